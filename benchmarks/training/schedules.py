"""Hyperparameters that move from step to step: each value is a function of the step alone, so nothing is remembered.

`RunConfig.schedules` has, by hyperparameter (``"lr"``, ``"weight_decay"``, ``"partial"``, ``"beta1"``, ``"beta2"`` or
any other number of the optimizer's), a ``kind`` and its options. A moment of a run is a whole number of steps, or a
fraction of all steps in [0, 1). The base value is that of each parameter group.

    kind             from the base value …                              options
    "constant"       it stays
    "cosine"         along half a cosine to the end value               final or to
    "linear"         in equal steps to the end value                    final or to
    "wsd"            it stays, then falls in equal steps                final or to; decay: how long (0.2)
    "exponential"    by equal factors to the end value                  final or to, not 0
    "steps"          to another value at each of some moments           at; factor (0.1) or to: a value for each moment
    "module:object"  what the function (step, total, base, **options) gives, with steps from 0

    warmup           a rise in equal steps to the base value before all that, how long (0); of every kind but a function
    final            the end value as a share of the base value; 0 for lr and weight_decay unless given
    to               the end value itself, as for an exponent p

A schedule of `partial`, of any kind, takes `rescale`: learning rates by exponent, ``[[p, lr], …]``. The learning rate,
with whatever schedule of its own, then follows p in proportion to `partial_adaptive.interpolated_lr` of these.

The end value stands after the last step, as with torch's schedulers: the n-th of N steps has gone (n − 1)/N of the way.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError, nearest
from benchmarks.base.numbers import is_number
from benchmarks.base.references import ReferenceLookupError, is_reference, load
from benchmarks.training.optimizers import BETAS
from partial_adaptive import Cosine, Geometric, Linear, Steps, interpolated_lr

Value = Callable[[int, float], float]
"""The value of a hyperparameter at a step, counted from 0, from its base value."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "cosine": ("final", "to"),
    "linear": ("final", "to"),
    "wsd": ("final", "to", "decay"),
    "exponential": ("final", "to"),
    "steps": ("at", "factor", "to"),
}
"""The options of each kind, `warmup` aside."""

_FALLING = ("lr", "weight_decay")  # what ends at 0 unless it is said where


class ScheduleError(BenchmarkError, ValueError):
    """A schedule that does not exist, or an option that it does not take."""


class Schedules:
    """Writes the scheduled hyperparameters of a step into an optimizer's groups; tensors are filled in place.

    Args:
        config: the run, of which `schedules`, `milestones` and `gamma` count.
        optimizer: its groups have the base values.
        total: steps of the whole run.
        epoch_steps: steps of an epoch, by which `milestones` count.
    """

    def __init__(self, config: RunConfig, optimizer: torch.optim.Optimizer, total: int, epoch_steps: int) -> None:
        self._optimizer = optimizer
        given = {name: dict(options) for name, options in config.schedules.items()}
        self._rates = _rates(given["partial"].pop("rescale", None)) if "partial" in given else {}
        self._values = {name: value(name, options, total) for name, options in given.items()}
        if config.milestones:
            self._values["lr"] = _milestones(config.milestones, config.gamma, epoch_steps)
        self._bases = [
            {name: float(entry(group, name)) for name in ("lr", *self._values) if entry(group, name) is not None}
            for group in optimizer.param_groups
        ]
        for name in self._values:
            if not any(name in base for base in self._bases):
                raise ScheduleError(f"schedules.{name}: {config.optimizer} has no such number")
        self._tensors = [
            {name: found for name in (*group, *BETAS) if isinstance(found := entry(group, name), Tensor)}
            for group in optimizer.param_groups
        ]

    def lr(self, step: int) -> float | None:
        """The learning rate of a step, of the first parameter group; None where there is none."""
        return self._of(self._bases[0], step).get("lr", self._bases[0].get("lr"))

    def values(self, step: int) -> list[dict[str, float]]:
        """What each group is given at a step, counted from 0."""
        return [self._of(base, step) for base in self._bases]

    def _of(self, base: Mapping[str, float], step: int) -> dict[str, float]:
        """What a group with these base values is given."""
        values = {name: value(step, base[name]) for name, value in self._values.items() if name in base}
        if self._rates and "partial" in values and "lr" in base:
            now, then = (interpolated_lr(p, self._rates) for p in (values["partial"], base["partial"]))
            values["lr"] = values.get("lr", base["lr"]) * now / then
        return values

    def apply(self, step: int) -> None:
        """Write the values of a step into the groups before it is taken."""
        groups = zip(self._optimizer.param_groups, self.values(step), self._tensors, strict=True)
        for group, values, tensors in groups:
            for name, value in values.items():
                write(group, name, value, tensors.get(name))

    def rebind(self) -> None:
        """After a checkpoint was loaded: the tensors that a captured step reads are in their groups again."""
        for group, tensors in zip(self._optimizer.param_groups, self._tensors, strict=True):
            for name, tensor in tensors.items():
                write(group, name, float(entry(group, name)), tensor)


def value(name: str, options: Mapping[str, Any], total: int) -> Value:
    """The values of one scheduled hyperparameter over a run.

    Args:
        name: the hyperparameter.
        options: ``kind`` and its options.
        total: steps of the run, at least 1.

    Raises:
        ScheduleError: naming the entry of ``schedules`` that is wrong.
    """
    given = dict(options)
    kind = given.pop("kind", None)
    if isinstance(kind, str) and is_reference(kind):
        return _function(name, kind, given, total)
    if kind not in KINDS:
        raise ScheduleError(f"schedules.{name}.kind: unknown kind {kind!r}{nearest(str(kind), KINDS)}")
    for option in given:
        if option not in ("warmup", *KINDS[kind]):
            known = ("warmup", *KINDS[kind])
            raise ScheduleError(f"schedules.{name}.{option}: no option of {kind!r}{nearest(option, known)}")
    warmup = _moment(name, "warmup", given.pop("warmup", 0), total)
    after = _after(name, kind, given, total, max(total - warmup, 1))
    return lambda step, base: base * (step + 1) / warmup if step < warmup else after(step - warmup, base)


def _after(name: str, kind: str, options: Mapping[str, Any], total: int, steps: int) -> Value:
    """The values of the steps after the warm-up, of which there are `steps` of the run's `total`."""
    if kind == "constant":
        return lambda step, base: base
    if kind == "steps":
        return _steps(name, options, total, total - steps)
    end = _end(name, options)
    if kind == "exponential":
        return _exponential(name, end, steps)
    if kind == "wsd":
        decay = _moment(name, "decay", options.get("decay", 0.2), total)
        if decay > steps:
            raise ScheduleError(f"schedules.{name}.decay: {decay} steps and the warm-up are more than all {total}")
        still, decay = steps - decay, max(decay, 1)
        return lambda step, base: base if step < still else Linear(end(base), decay + 1)(base, step - still + 1)
    curve = Cosine if kind == "cosine" else Linear
    return lambda step, base: curve(end(base), steps + 1)(base, step + 1)


def _exponential(name: str, end: Callable[[float], float], steps: int) -> Value:
    if not end(1.0):
        raise ScheduleError(f"schedules.{name}: an exponential schedule ends above 0: give final or to")

    def at(step: int, base: float) -> float:
        if not 0 < end(base) <= base:
            raise ScheduleError(
                f"schedules.{name}: an exponential schedule falls from {base} to {end(base)}, which is no fall"
            )
        return Geometric((end(base) / base) ** (1 / steps))(base, step + 1)

    return at


def _steps(name: str, options: Mapping[str, Any], total: int, warmup: int) -> Value:
    """From moments to values: factors on the base value, or values."""
    moments = options.get("at")
    if not isinstance(moments, list | tuple) or not moments:
        raise ScheduleError(f"schedules.{name}.at: moments are needed, e.g. [0.5, 0.75], got {moments!r}")
    at = [_moment(name, "at", moment, total) - warmup for moment in moments]
    if at != sorted(set(at)) or at[0] < 1:
        raise ScheduleError(f"schedules.{name}.at: moments must ascend, from after the warm-up, got {moments!r}")
    if "to" not in options:
        factor = _number(name, "factor", options.get("factor", 0.1))
        return lambda step, base: base * factor ** sum(moment <= step for moment in at)
    values = options["to"] if isinstance(options["to"], list | tuple) else [options["to"]]
    if "factor" in options or len(values) != len(at):
        raise ScheduleError(
            f"schedules.{name}.to: a value for each of {len(at)} moments, without factor, got {values!r}"
        )
    curve = Steps({moment + 1: _number(name, "to", one) for moment, one in zip(at, values, strict=True)})
    return lambda step, base: curve(base, step + 1)


def _rates(given: Any) -> dict[float, float]:
    """Learning rates by exponent; none where there is no `rescale`."""
    if given is None:
        return {}
    try:
        rates = {float(p): float(lr) for p, lr in given}
        interpolated_lr(0.5, rates)
    except (TypeError, ValueError) as error:
        raise ScheduleError(
            "schedules.partial.rescale: must be two or more learning rates > 0 by exponents in [0, 1], "
            f"e.g. [[0.0, 1.0], [0.5, 0.001]], got {given!r}"
        ) from error
    return rates


def _milestones(milestones: tuple[int, ...], gamma: float, epoch_steps: int) -> Value:
    """The step decay by epochs."""
    return lambda step, base: base * gamma ** sum(milestone <= step // epoch_steps for milestone in milestones)


def _function(name: str, reference: str, options: Mapping[str, Any], total: int) -> Value:
    try:
        function = load(reference)
    except ReferenceLookupError as error:
        raise ScheduleError(f"schedules.{name}.kind: {error}") from error

    def at(step: int, base: float) -> float:
        try:
            return _number(name, "kind", float(function(step, total, base, **options)))
        except (TypeError, ValueError) as error:
            raise ScheduleError(f"schedules.{name}: {reference} at step {step}: {error}") from error

    return at


def _end(name: str, options: Mapping[str, Any]) -> Callable[[float], float]:
    """The end value from the base value."""
    if "to" in options and "final" in options:
        raise ScheduleError(f"schedules.{name}: final (a share of the base value) and to (a value) exclude each other")
    if "to" in options:
        to = _number(name, "to", options["to"])
        return lambda base: to
    if "final" not in options and name not in _FALLING:
        raise ScheduleError(
            f"schedules.{name}: where does it end? give to (a value) or final (a share of the base value)"
        )
    final = _number(name, "final", options.get("final", 0.0))
    if final < 0:
        raise ScheduleError(f"schedules.{name}.final: must be at least 0, got {final}")
    return lambda base: final * base


def _moment(name: str, option: str, given: Any, total: int) -> int:
    """A whole number of steps from such a number or a fraction of all steps."""
    moment = _number(name, option, given)
    if moment < 0 or (isinstance(given, float) and moment >= 1):
        raise ScheduleError(
            f"schedules.{name}.{option}: must be a fraction of all steps in [0, 1) or a whole number of them, "
            f"got {given!r}"
        )
    return round(moment * total) if isinstance(given, float) else int(moment)


def _number(name: str, option: str, given: Any) -> float:
    if not is_number(given) or not math.isfinite(given):
        raise ScheduleError(f"schedules.{name}.{option}: must be a finite number, got {given!r}")
    return float(given)


def entry(group: Mapping[str, Any], name: str) -> Any:
    """A number of a group, or a tensor; None where it has none of that name."""
    found = group["betas"][BETAS.index(name)] if name in BETAS and "betas" in group else group.get(name)
    if isinstance(found, Tensor):
        return found if found.numel() == 1 else None
    return found if is_number(found) else None


def write(group: dict[str, Any], name: str, value: float, tensor: Tensor | None) -> None:
    """Write a number into a group; where it is kept in a tensor, into that."""
    if tensor is not None:
        tensor.fill_(value)
    entry = value if tensor is None else tensor
    if name in BETAS and "betas" in group:
        betas = list(group["betas"])
        betas[BETAS.index(name)] = entry
        group["betas"] = tuple(betas)
    else:
        group[name] = entry
