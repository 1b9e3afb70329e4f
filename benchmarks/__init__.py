"""The shared benchmark of partially adaptive optimizers; run it with ``python -m benchmarks``."""
