"""How long a study will take: from the records of earlier runs, or else from a calibrated guess."""

import time
from collections.abc import Iterable, Sequence

import torch

from benchmarks.base import environment
from benchmarks.base.config import RunConfig
from benchmarks.base.records import number
from benchmarks.base.store import Result

# Training arithmetic per epoch in PFLOP (three times the forward's, two FLOP a multiply-add), and steps per epoch.
_WORK = {
    "cifar10-vgg16": (0.094, 391),
    "cifar10-resnet18": (0.166, 391),
    "cifar10-wrn16-4": (0.126, 391),
    "cifar100-vgg16": (0.094, 391),
    "cifar100-resnet18": (0.166, 391),
    "cifar100-wrn16-4": (0.126, 391),
    "imagenet-vgg16": (119.0, 5005),
    "imagenet-resnet18": (14.0, 5005),
    "fashion-cnn": (0.0008, 469),
    "digits-mlp": (0.000001, 12),
}
_UTILIZATION = 0.3  # of the speed of one large product, which training reaches on a good day
_PER_STEP = {"cpu": 2e-3, "cuda": 0.5e-3}  # seconds of launching


class Estimator:
    """Seconds per run on one device.

    Args:
        results: earlier runs; those made on this device count.
        device: where the runs would be made.
    """

    def __init__(self, results: Iterable[Result], device: torch.device) -> None:
        self._device = device
        self._speed: float | None = None
        self._epochs: dict[tuple[str, str | None, str], list[float]] = {}
        here = environment.describe(device)["device"]
        for result in results:
            if result.environment.get("device") != here or result.config["max_steps"]:
                continue
            config = result.config
            seconds = [number(x) for epoch in result.epochs for x in (epoch.time.train_s, epoch.time.eval_s)]
            for optimizer in (config["optimizer"], None):
                key = (config["workload"], optimizer, config["precision"])
                self._epochs.setdefault(key, []).append(sum(seconds) / len(result.epochs))

    def seconds(self, config: RunConfig) -> tuple[float | None, str]:
        """Expected seconds of a run, None if nothing is known, and where the number comes from."""
        for optimizer, source in ((config.optimizer, "earlier runs"), (None, "earlier runs of other optimizers")):
            known = self._epochs.get((config.workload, optimizer, config.precision))
            if known:
                return config.epochs * sum(known) / len(known), source
        if config.workload not in _WORK:
            return None, "unknown"
        work, steps = _WORK[config.workload]
        if config.max_steps:
            work, steps = work * min(1, config.max_steps / steps), min(config.max_steps, steps)
        width = float(config.workload_options.get("width", 1))
        arithmetic = width**2 * work * 1e15 / (_UTILIZATION * self.speed(config.precision))
        return config.epochs * (arithmetic + steps * _PER_STEP[self._device.type]), "a calibrated guess"

    def speed(self, precision: str) -> float:
        """FLOP/s of a large matrix product, measured once."""
        if self._speed is None:
            size = 8192 if self._device.type == "cuda" else 1024
            kind = torch.bfloat16 if precision == "bf16" and self._device.type == "cuda" else torch.float32
            matrix = torch.randn(size, size, device=self._device, dtype=kind)
            times = []
            for _ in range(4):
                start = time.perf_counter()
                (matrix @ matrix)[0, 0].item()
                times.append(time.perf_counter() - start)
            self._speed = 2 * size**3 / min(times)
        return self._speed


def duration(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def total(parts: Sequence[tuple[float | None, str]], lanes: int) -> str:
    """The time of several runs on so many lanes, and where the numbers come from."""
    known = [seconds for seconds, _ in parts if seconds is not None]
    text = f"about {duration(sum(known) / max(1, lanes))}" if known else "unknown"
    sources = list(dict.fromkeys(source for seconds, source in parts if seconds is not None))
    unknown = len(parts) - len(known)
    text += f" (from {' and '.join(sources)})" if sources else ""
    return text + (f", and {unknown} runs of unknown length" if known and unknown else "")
