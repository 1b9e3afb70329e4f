"""How the one arithmetic is run: per tensor, on lists of tensors, differentiably."""
