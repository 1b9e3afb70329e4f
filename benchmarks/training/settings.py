"""Whether the settings of a run go together: checked before anything is loaded or trained."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.training import groups, optimizers, schedules


class SettingError(BenchmarkError, ValueError):
    """A setting out of its range, or two that exclude each other."""


def check(config: RunConfig) -> None:
    """Raise a `BenchmarkError` that names the field of `config` that is wrong, e.g. ``schedules.lr.warmup``.

    The optimizer's own hyperparameters, its groups' and all values that schedules give them are tried on it.
    """
    for name, allowed, fits in (
        ("clip_norm", "a finite number > 0, or 0 for no clipping", 0 <= config.clip_norm < math.inf),
        ("label_smoothing", "in [0, 1)", 0 <= config.label_smoothing < 1),
        ("ema", "in [0, 1), 0 for none", 0 <= config.ema < 1),
    ):
        if not fits:
            raise SettingError(f"{name} must be {allowed}, got {getattr(config, name)!r}")
    if "lr" in config.schedules and config.milestones:
        raise SettingError("schedules.lr and milestones exclude each other")
    own = [groups.hyper(group) for group in config.groups]
    for place, group in enumerate(config.groups):
        groups.selectors(place, group)
    optimizers.find(config.optimizer).cls  # noqa: B018  # there is such a class
    if own:
        optimizers.check(config.optimizer, config.hyper, own)
    for name, options in config.schedules.items():
        if ":" not in str(options.get("kind")):
            for hyper in (config.hyper, *({**config.hyper, **one} for one in own)):
                _try(config.optimizer, name, options, hyper)


def _try(optimizer: str, name: str, options: Mapping[str, Any], hyper: Mapping[str, Any]) -> None:
    """The least and the greatest value of a schedule must be ones that the optimizer takes."""
    # The number of steps is not known before the data is loaded: enough for the moments that are given in steps.
    counts = [moment for option in options.values() for moment in (option if isinstance(option, list) else [option])]
    total = 1000 + 4 * max((count for count in counts if type(count) is int), default=0)
    value = schedules.value(name, options, total)
    base = schedules.entry(hyper, name)
    if base is None:
        return
    values = [value(step, float(base)) for step in range(0, total, total // 1000)]
    known = optimizers.find(hyper.get("member") or optimizer)
    for extreme in {min(values), max(values)}:
        tried = {key: one for key, one in hyper.items() if known.open or key in known.parameters}
        schedules.write(tried, name, extreme, None)
        try:
            optimizers.check(known.name, tried)
        except optimizers.OptimizerError as error:
            raise SettingError(f"schedules.{name}: {error}") from error


def captures(config: RunConfig) -> bool:
    """Whether the step of a run can be captured in a CUDA graph; else it is launched kernel by kernel.

    In float16 the host looks at each step whether the gradients were finite.
    """
    return config.precision != "fp16" and optimizers.captures(config.optimizer, config.schedules)
