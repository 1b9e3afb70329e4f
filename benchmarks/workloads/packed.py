"""CIFAR-10 in two parts of under 60 MB each, without loss, for machines that files come to in small portions.

    python -m benchmarks.workloads.packed pack DATA PARTS      writes PARTS/a and PARTS/b from DATA/cifar10.npz
    python -m benchmarks.workloads.packed unpack PARTS DATA    writes DATA/cifar10.npz once both parts have come

``unpack`` keeps what has come in ``DATA/cifar10-parts``, so that the parts may come one after the other.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.base.errors import BenchmarkError
from benchmarks.base.files import replacing

BLOCK, WIDTH = 2500, 50  # images of a file, and of a row of it
PIXELS = 32
LARGEST = 60e6  # bytes of a part


class PackedError(BenchmarkError, ValueError):
    """Parts that do not fit together, or data that cannot be put into them."""


def pack(data_dir: Path, parts: Path) -> None:
    """Write both parts: mosaics of images, the first half in ``a``, and the other half with the labels in ``b``."""
    with np.load(data_dir / "cifar10.npz") as data:
        images = np.concatenate([data["x_train"], data["x_test"]])
        labels = np.concatenate([data["y_train"], data["y_test"]])
        if 6 * len(data["x_test"]) != len(images) or len(images) % WIDTH:
            raise PackedError(f"{data_dir}/cifar10.npz does not have five images to train on for one to test on")
    blocks = [images[i : i + BLOCK] for i in range(0, len(images), BLOCK)]
    for half in "ab":
        (parts / half).mkdir(parents=True, exist_ok=True)
    names = [parts / ("a" if i < len(blocks) // 2 else "b") / f"{i:02d}.webp" for i in range(len(blocks))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_encode, names, blocks))
    np.save(parts / "b" / "labels.npy", labels)
    for half in "ab":
        size = sum(path.stat().st_size for path in (parts / half).iterdir())
        if size >= LARGEST:
            raise PackedError(f"{parts / half} has {size / 1e6:.0f} MB, more than {LARGEST / 1e6:.0f}")


def unpack(parts: Path, data_dir: Path) -> bool:
    """Take over the parts that have come; whether ``cifar10.npz`` is there now."""
    whole, kept = data_dir / "cifar10.npz", data_dir / "cifar10-parts"
    if whole.is_file():
        return True
    kept.mkdir(parents=True, exist_ok=True)
    new = [path for path in sorted(parts.glob("[ab]/*.webp")) if not (kept / f"{path.stem}.npy").exists()]
    with ThreadPoolExecutor() as pool:
        for path, block in zip(new, pool.map(_decode, new), strict=True):
            _save(kept / f"{path.stem}.npy", block)
    if (parts / "b" / "labels.npy").is_file():
        _save(kept / "labels.npy", np.load(parts / "b" / "labels.npy"))
    if not (kept / "labels.npy").is_file():
        return False
    labels = np.load(kept / "labels.npy")
    names = [kept / f"{i:02d}.npy" for i in range(-(-len(labels) // BLOCK))]
    if not all(name.is_file() for name in names):
        return False
    images = np.concatenate([np.load(name) for name in names])
    if images.shape != (len(labels), PIXELS, PIXELS, 3):
        raise PackedError(f"the parts have {len(images)} images for {len(labels)} labels")
    cut = len(labels) * 5 // 6
    with replacing(whole) as file:
        np.savez(file, x_train=images[:cut], y_train=labels[:cut], x_test=images[cut:], y_test=labels[cut:])
    return True


def _save(path: Path, array: Any) -> None:
    with replacing(path) as file:
        np.save(file, array)


def _encode(path: Path, block: Any) -> None:
    rows = len(block) // WIDTH
    mosaic = block.reshape(rows, WIDTH, PIXELS, PIXELS, 3).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(mosaic.reshape(rows * PIXELS, WIDTH * PIXELS, 3))
    picture.save(path, "WEBP", lossless=True, quality=75, method=5)


def _decode(path: Path) -> Any:
    with Image.open(path) as picture:
        mosaic = np.asarray(picture.convert("RGB"))
    rows = mosaic.shape[0] // PIXELS
    return mosaic.reshape(rows, PIXELS, WIDTH, PIXELS, 3).transpose(0, 2, 1, 3, 4).reshape(-1, PIXELS, PIXELS, 3)


def main(arguments: Sequence[str]) -> int:
    """Run the command line of this module and return its exit code: 3 while a part is missing."""
    if len(arguments) != 3 or arguments[0] not in ("pack", "unpack"):
        print(__doc__, file=sys.stderr)
        return 2
    command, source, target = arguments[0], Path(arguments[1]), Path(arguments[2])
    try:
        if command == "pack":
            pack(source, target)
            return 0
        if unpack(source, target):
            return 0
        print(f"{target}/cifar10.npz waits for the part that has not come yet")
        return 3
    except (BenchmarkError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
