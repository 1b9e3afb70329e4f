"""Small data sets that tests make for themselves, in the place and format of the real ones."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def cifar10(folder: Path, train: int = 96, test: int = 24) -> Path:
    """A `cifar10.npz` of noise whose brightness tells the class; returns the data directory."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count, dtype=np.uint8) % 10
        noise = rng.integers(0, 60, (count, 32, 32, 3))
        arrays |= {f"x_{part}": (noise + 19 * labels[:, None, None, None]).astype(np.uint8), f"y_{part}": labels}
    np.savez(folder / "cifar10.npz", **arrays)
    return folder


def text(folder: Path, name: str, train: int = 12, test: int = 2) -> Path:
    """A `text.npz` or `prose.npz` of sentences that count; returns the data directory."""
    length = {"text": 64, "prose": 128}[name]
    codes = np.frombuffer(" ".join(f"this is sentence {i}." for i in range(400)).encode(), np.uint8)
    x, y = (codes[shift:][: (train + test) * length].reshape(-1, length) for shift in (0, 1))
    arrays: dict[str, Any] = {"x_train": x[:train], "y_train": y[:train], "x_test": x[train:], "y_test": y[train:]}
    np.savez(folder / f"{name}.npz", **arrays)
    return folder


def imagenet(folder: Path) -> Path:
    """An ImageNet of two classes, 24 images to train on and 7 to be judged on; returns the data directory."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 7)):
        for i in range(count):
            name = folder / "imagenet" / part / ("dark" if i % 2 else "light") / f"{i}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 128, (40, 48, 3), dtype=np.uint8) + 127 * (i % 2 == 0)
            Image.fromarray(pixels).convert("RGB").save(name)
    return folder
