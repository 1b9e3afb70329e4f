"""The arithmetic, on one tensor: what a step is made of, whoever runs it."""
