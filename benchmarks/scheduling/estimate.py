"""How long a study will take: from the records of earlier runs, or else from a calibrated guess."""

import dataclasses
import heapq
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.base import environment
from benchmarks.base.config import RunConfig
from benchmarks.base.records import number
from benchmarks.base.store import Result, Store, StoreError, read
from benchmarks.scheduling.settings import Settings
from benchmarks.workloads.cost import examples, flops_per_example

_UTILIZATION = 0.3  # of the speed of one large product, which training reaches on a good day
_PER_STEP = {"cpu": 2e-3, "cuda": 0.5e-3}  # seconds of launching
NEWEST = 1000  # runs of the store, at most, that are looked at


def arithmetic(config: RunConfig) -> float:
    """Training FLOP for one example; NaN where nothing is known, an earlier run of a model that is gone included."""
    found = flops_per_example(config)
    return math.nan if found is None else found


@dataclasses.dataclass(frozen=True)
class _Sample:
    """What an earlier run on this device took."""

    config: RunConfig
    load: tuple[Any, Any]
    step_s: float
    eval_s: float
    steps: int


class Estimator:
    """Seconds per run on one device.

    Args:
        store: of earlier runs the newest thousand; those made on this device count.
        device: where the runs would be made.
        settings: with how many threads, and how many side by side.
    """

    def __init__(self, store: Store, device: torch.device, settings: Settings) -> None:
        self._device = device
        self._load = (settings.threads or torch.get_num_threads(), settings.jobs)
        self._speed: dict[str, float] = {}
        here = environment.here(device).device
        self._samples: dict[str, list[_Sample]] = {}
        paths = [path for files in store.finished().values() for path in files]
        for path in heapq.nlargest(NEWEST, paths, key=lambda path: path.stat().st_mtime_ns):
            try:
                result = read(path)
            except StoreError:
                continue
            if result.provenance.device == here and (sample := _sample(result)) is not None:
                self._samples.setdefault(sample.config.workload, []).append(sample)
        self._known: dict[Any, tuple[float, float, str] | None] = {}

    def seconds(self, config: RunConfig) -> tuple[float | None, str]:
        """Expected seconds of a run, None if nothing is known, and where the number comes from."""
        steps = self._steps(config)
        if steps is None:
            return None, "unknown"
        key = (config.optimizer, _shape(config))
        if key not in self._known:
            self._known[key] = self._from_samples(config)
        known = self._known[key]
        if known is not None:
            step_s, eval_s, source = known
            return config.epochs * (steps * step_s + eval_s), source
        work = arithmetic(config)
        if math.isnan(work):
            return None, "unknown"
        computing = work * config.batch_size / (_UTILIZATION * self.speed(config.precision))
        return config.epochs * steps * (computing + _PER_STEP[self._device.type]), "a calibrated guess"

    def known(self, config: RunConfig) -> float | None:
        """Expected seconds of a run by earlier runs, None where they say nothing."""
        seconds, source = self.seconds(config)
        return seconds if source.startswith("earlier") else None

    def _from_samples(self, config: RunConfig) -> tuple[float, float, str] | None:
        """Seconds of a step and of an evaluation, and from where: the nearest kind of earlier runs that there are."""
        found = self._samples.get(config.workload, [])
        same = [one for one in found if _shape(one.config) == _shape(config)]
        for kept, source in (
            ([one for one in same if one.config.optimizer == config.optimizer], "earlier runs"),
            (same, "earlier runs of other optimizers"),
        ):
            alike = [one for one in kept if one.load == self._load]
            for chosen, words in ((alike, source), (kept, f"{source}, with other threads or side by side")):
                if chosen:
                    step_s = statistics.fmean(one.step_s for one in chosen)
                    return step_s, statistics.fmean(one.eval_s for one in chosen), words
        work = arithmetic(config)
        scaled = [
            (work * config.batch_size / (theirs * one.config.batch_size), one)
            for one in found
            if one.config.precision == config.precision and (theirs := arithmetic(one.config)) * work > 0
        ]
        if not scaled:
            return None
        step_s = statistics.fmean(factor * one.step_s for factor, one in scaled)
        factors = ((factor * one.config.batch_size / config.batch_size, one) for factor, one in scaled)
        return step_s, statistics.fmean(f * one.eval_s for f, one in factors), "earlier runs of another size, scaled"

    def _steps(self, config: RunConfig) -> int | None:
        """Steps of an epoch."""
        count = examples(config)
        if count is not None:
            steps = math.ceil(count / config.batch_size)
            return min(steps, config.max_steps or steps)
        for one in self._samples.get(config.workload, ()):
            if (one.config.data, one.config.split) == (config.data, config.split) and not one.config.max_steps:
                steps = math.ceil(one.steps * one.config.batch_size / config.batch_size)
                return min(steps, config.max_steps or steps)
        return config.max_steps or None

    def speed(self, precision: str) -> float:
        """FLOP/s of a large matrix product in this precision, measured once."""
        if precision not in self._speed:
            cuda = self._device.type == "cuda"
            size = 8192 if cuda else 1024
            kinds = {"bf16": torch.bfloat16, "fp16": torch.float16} if cuda else {}
            matrix = torch.randn(size, size, device=self._device, dtype=kinds.get(precision, torch.float32))
            times = []
            for _ in range(4):
                start = time.perf_counter()
                (matrix @ matrix)[0, 0].item()
                times.append(time.perf_counter() - start)
            self._speed[precision] = 2 * size**3 / min(times)
        return self._speed[precision]


def _sample(result: Result) -> _Sample | None:
    """What a run took; None where its record does not say."""
    if not result.epochs or not result.epochs[0].step:
        return None
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    config = RunConfig(**{key: value for key, value in result.config.items() if key in fields})
    steps = result.epochs[0].step
    train_s = statistics.median(number(epoch.time.train_s) for epoch in result.epochs)
    eval_s = statistics.median(number(epoch.time.eval_s) for epoch in result.epochs)
    if math.isnan(train_s + eval_s):
        return None
    # Before runs said how many shared their device, nobody can tell: they count as alone.
    load = (result.environment.get("threads"), result.environment.get("side_by_side", 1))
    return _Sample(config, load, train_s / steps, eval_s, steps)


def _shape(config: RunConfig) -> tuple[Any, ...]:
    """What decides how long a step takes, but for the optimizer."""
    options = repr(sorted(config.workload_options.items())), repr(sorted(config.data_options.items()))
    return (config.workload, config.model, config.data, *options, config.batch_size, config.precision)


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
