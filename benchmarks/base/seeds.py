"""Random streams of a run: every draw comes from a generator seeded by the run's seed and the purpose of the draw."""

import hashlib

import torch


def derive(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one purpose, e.g. ``derive(0, "order", epoch)``: streams of different purposes never meet."""
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device, seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A generator of its own on `device`, seeded by `derive`."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, *counters))
