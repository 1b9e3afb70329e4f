"""Whether the settings of a run go together: checked before anything is loaded or trained."""

import json
import math
from typing import Any

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.training import groups, optimizers, schedules
from benchmarks.workloads import of

SMOOTHED = ("classification", "language")
"""The tasks that have labels to be smoothed."""


class SettingError(BenchmarkError, ValueError):
    """A setting out of its range, or two that exclude each other."""


def check(config: RunConfig) -> None:
    """Raise a `BenchmarkError` that names the field of `config` that is wrong, e.g. ``schedules.lr.warmup``.

    The optimizer's own hyperparameters, its groups' and all values that schedules give them are tried on it.
    """
    for name, allowed, fits in (
        ("epochs", "at least 1", config.epochs >= 1),
        ("batch_size", "at least 1", config.batch_size >= 1),
        ("clip_norm", "a finite number > 0, or 0 for no clipping", 0 <= config.clip_norm < math.inf),
        ("label_smoothing", "in [0, 1)", 0 <= config.label_smoothing < 1),
        ("ema", "in [0, 1), 0 for none", 0 <= config.ema < 1),
    ):
        if not fits:
            raise SettingError(f"{name} must be {allowed}, got {getattr(config, name)!r}")
    for name, value in config.to_dict().items():
        try:
            json.dumps(None if name == "schedules" else value, allow_nan=False)  # those say where, below
        except ValueError as error:  # nor could its record be found again
            raise SettingError(f"{name} must have finite numbers alone, got {value!r}") from error
    task = of(config).task
    if config.label_smoothing and task not in SMOOTHED:
        raise SettingError(f"label_smoothing is for {' and '.join(SMOOTHED)}, and {config.workload} is {task}")
    if "lr" in config.schedules and config.milestones:
        raise SettingError("schedules.lr and milestones exclude each other")
    for place, group in enumerate(config.groups):
        groups.selectors(place, group)
    own = [groups.hyper(group) for group in config.groups]
    if own:
        optimizers.check(config.optimizer, config.hyper, own)
    if config.schedules:
        _try_schedules(config, own)


def _try_schedules(config: RunConfig, own: list[dict[str, Any]]) -> None:
    """The least and the greatest value that a schedule gives in each group must be ones that the optimizer takes."""
    optimizer = optimizers.example(config.optimizer, config.hyper, own)
    # How many steps there are is not known before the data is loaded: as many as moments given in steps ask for.
    options = [option for schedule in config.schedules.values() for option in schedule.values()]
    moments = [moment for option in options for moment in (option if isinstance(option, list | tuple) else [option])]
    total = 1000 + 4 * max((moment for moment in moments if type(moment) is int), default=0)
    moving = schedules.Schedules(config, optimizer, total, 1)
    first, *later = (moving.values(step) for step in (*range(0, total, total // 100), total))
    for place, values in enumerate(first):
        group = {**config.hyper, **(own[place] if place < len(own) else {})}
        known = optimizers.find(group.get("member") or config.optimizer)
        if known.foreign:
            continue  # what its constructor refuses, a learning rate of 0 for instance, its step may take
        for name in values:
            for value in {extreme(one[place][name] for one in (first, *later)) for extreme in (min, max)}:
                tried = {key: one for key, one in group.items() if key in known.parameters or known.open}
                if name in optimizers.BETAS:
                    tried.setdefault("betas", optimizer.param_groups[place]["betas"])
                schedules.write(tried, name, value, None)
                try:
                    optimizers.check(known.name, tried)
                except optimizers.OptimizerError as error:
                    raise SettingError(f"schedules.{name}: {error}") from error


def captures(config: RunConfig) -> bool:
    """Whether the step of a run can be captured in a CUDA graph; else it is launched kernel by kernel.

    In float16 the host looks at each step whether the gradients were finite.
    """
    return config.precision != "fp16" and optimizers.captures(config.optimizer, config.schedules)
