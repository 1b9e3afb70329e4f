"""fused=True: the rule recorded as a program, written out in C++ or Triton, and launched on all tensors at once."""
