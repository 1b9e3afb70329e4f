"""Schedules: hyperparameters over time, those of Theorem 4.2 of the Padam paper among them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from partial_adaptive.rules.curves import Curve
from partial_adaptive.rules.hyperparameters import BETAS, HYPERPARAMETERS, Hyperparameter, accepted, as_float, nearest
from partial_adaptive.rules.interpolation import checked, interpolated_lr
from partial_adaptive.rules.rule import Recipe

Rescale: TypeAlias = Callable[[Any, Sequence[float]], Sequence[float]]  # from the groups' new p, their learning rates


@final
class Schedule:
    """Changes numeric hyperparameters at every step, each along a curve that starts from its value in the group.

    The value of the first step is written when the schedule is made, that of each later one by `step`, which is called
    after the optimizer's; whatever else is written there in between is lost. Tensors are filled in place, so that a
    CUDA graph sees it. A group that is added later starts from its own value and goes on at the schedule's t.

    Where p moves, `rescale_lr` moves the learning rate with it: by `equivalent_lr`, so that the update of each group
    keeps its size, from the gradients that are there when `step` is called; or along known learning rates by exponent,
    see `interpolated_lr`, in proportion. A curve for lr, and schedulers of torch's that multiply what they find, come
    on top. While a learning rate is 0 it stays there and nothing is taken note of.

    Args:
        optimizer: one of the family; a hyperparameter is scheduled in all of its groups whose member has it.
        groups: the positions of the groups to schedule; None for all.
        rescale_lr: `equivalent_lr`, a dict of learning rates by exponent, or any function of the optimizer and the
            groups' new exponents that gives their learning rates; None for a learning rate that p leaves alone.
        **curves: by name (`lr`, `partial`, `weight_decay`, …, `beta1` and `beta2` for the entries of `betas`), a
            function of the start value and of t = 1, 2, … that gives the value of step t: `Linear`, `Cosine`,
            `Logistic`, `Steps`, `Geometric`, `Inverse`, `InverseSqrt`, `LPSGDM`, `DynMuon` or any other.

    Raises:
        TypeError: for a name that is no numeric hyperparameter of the optimizer, a curve that cannot be called, or a
            `rescale_lr` without a curve for `partial`.
        ValueError: for the position of a group that is not there, and where a curve leaves the range of its
            hyperparameter, before anything has changed.
        RuntimeError: where `equivalent_lr` has no gradients to go by, before anything has changed.

    Example:
        >>> from partial_adaptive import Geometric, InverseSqrt, Padam, Schedule
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = Padam([weight], lr=0.1, betas=(0.9, 0.999), bias_correction="none")
        >>> schedule = Schedule(optimizer, lr=InverseSqrt(), beta1=Geometric(0.5))
        >>> for _ in range(3):
        ...     weight.sum().backward()
        ...     optimizer.step()
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]
        (0.05, (0.1125, 0.999))

        From Adam to SGD, each at its own learning rate:

        >>> from partial_adaptive import Linear
        >>> optimizer = Padam([weight], lr=1e-3, partial=1 / 2)
        >>> schedule = Schedule(optimizer, partial=Linear(0.0, 3), rescale_lr={0: 1.0, 1 / 2: 1e-3})
        >>> for _ in range(2):
        ...     optimizer.step()
        ...     schedule.step()
        >>> optimizer.param_groups[0]["partial"], round(optimizer.param_groups[0]["lr"], 9)
        (0.0, 1.0)

    Chen, Gu: Padam: Closing the Generalization Gap of Adaptive Gradient Methods, Theorem 4.2.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        groups: Sequence[int] | None = None,
        rescale_lr: Rescale | Mapping[float, float] | None = None,
        **curves: Curve,
    ) -> None:
        if not isinstance(getattr(optimizer, "recipe", None), Recipe):
            raise TypeError(f"Schedule: optimizer must be one of the family, got {type(optimizer).__name__}")
        self._optimizer = optimizer
        places = range(len(optimizer.param_groups))
        if groups is not None and not (groups and all(type(place) is int and place in places for place in groups)):
            raise ValueError(f"Schedule: groups must be positions of groups, 0 to {len(places) - 1}, got {groups!r}")
        self._groups = groups
        known = {name: entry for of_group in self._scheduled() for name, entry in of_group.items()}
        for name, curve in curves.items():
            if name not in known:
                raise TypeError(
                    f"Schedule: {type(optimizer).__name__} has no numeric hyperparameter {name!r}"
                    f"{nearest(name, known)}; it has {', '.join(known)}"
                )
            if not callable(curve) or isinstance(curve, type):
                raise TypeError(f"Schedule: {name} must be a curve, a function of start and t, got {curve!r}")
        self._curves = curves
        self._rescale = _rescaling(rescale_lr)
        if self._rescale is not None and "partial" not in curves:
            raise TypeError(
                "Schedule: rescale_lr needs a curve for partial, with which the learning rate moves; got none"
            )
        self._t = 1
        self._starts: list[dict[str, float]] = []
        self._factors: list[float] = []
        self._apply(1, [])

    def _scheduled(self) -> list[Mapping[str, Hyperparameter]]:
        """What can be scheduled in each group: nothing in those that are left alone."""
        return [
            self._optimizer.recipe_of(group).numbers if self._groups is None or i in self._groups else {}
            for i, group in enumerate(self._optimizer.param_groups)
        ]

    @property
    def t(self) -> int:
        """The number of the step that comes next, 1 at first."""
        return self._t

    def step(self) -> None:
        """Go on to the next step's values."""
        self._apply(self._t + 1, self._starts)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, as plain data, without the curves.

        It is t, and of each group the start values and the factor by which p has moved the learning rate so far.
        """
        return {"t": self._t, "starts": [dict(start) for start in self._starts], "factors": [*self._factors]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another one was; a learning rate without a curve is the optimizer's to load.

        Args:
            state_dict: what `state_dict` of a schedule of the same hyperparameters and groups gave.

        Raises:
            ValueError: where it is of others, before anything has changed.
        """
        t, starts = state_dict.get("t"), [dict(start) for start in state_dict.get("starts", ())]
        if type(t) is not int or t < 1:
            raise ValueError(f"Schedule: state_dict must have a whole number t ≥ 1, got {t!r}")
        names = [self._curves.keys() & known for known in self._scheduled()]
        if len(starts) > len(names) or any(set(start) != own for start, own in zip(starts, names, strict=False)):
            theirs = sorted({name for start in starts for name in start})
            raise ValueError(
                f"Schedule: state_dict must be of {', '.join(sorted(self._curves))} in {len(names)} groups, "
                f"got {', '.join(theirs)} in {len(starts)}"
            )
        self._apply(t, starts, state_dict.get("factors", ()))

    def _apply(self, t: int, starts: Sequence[Mapping[str, float]], factors: Sequence[float] | None = None) -> None:
        """Write the values of step t into all groups, once they are known to be allowed.

        Args:
            t: the step.
            starts: the start values of the groups that have some.
            factors: of their learning rates; those so far where None, and the one of the way to this step.
        """
        groups = self._optimizer.param_groups
        known = [dict(start) for start in starts]
        if len(known) > len(groups):
            raise ValueError(f"Schedule: {len(known)} groups were scheduled and {len(groups)} are left; make a new one")
        entries = self._scheduled()
        for group, numeric in zip(groups[len(known) :], entries[len(known) :], strict=True):
            names = [name for name in self._curves if name in numeric]
            known.append({name: self._start(group, name, zip(groups, known, strict=False)) for name in names})
        found = [
            {name: self._value(name, numeric[name], begin, t, group) for name, begin in start.items()}
            for group, numeric, start in zip(groups, entries, known, strict=True)
        ]
        so_far = [*(self._factors if factors is None else factors)]
        so_far += [1.0] * (len(groups) - len(so_far))
        if factors is None and self._rescale is not None:
            so_far = self._moved(so_far, found, t)
        for values, factor in zip(found, so_far, strict=True):
            if "lr" in self._curves and "lr" in values:
                values["lr"] *= factor
        with torch.no_grad():
            for group, values in zip(groups, found, strict=True):
                for name, value in values.items():
                    _write(group, name, value)
        self._t, self._starts, self._factors = t, known, so_far

    def _moved(self, factors: Sequence[float], found: Sequence[dict[str, float]], t: int) -> list[float]:
        """The factors once the learning rates have gone with p; those without a curve are added to what was found."""
        assert self._rescale is not None
        groups = self._optimizer.param_groups
        moving = [group for group, values in zip(groups, found, strict=True) if values]
        tensors = [id(group["lr"]) for group in moving if isinstance(group["lr"], Tensor)]
        if len({*tensors}) < len(tensors):
            raise ValueError(
                "Schedule: rescale_lr gives each group its own lr, got one tensor in two; give each a clone"
            )
        entry = HYPERPARAMETERS["lr"]
        moved = []
        partials = [values.get("partial", group["partial"]) for group, values in zip(groups, found, strict=True)]
        rates = self._rescale(self._optimizer, [as_float(p) for p in partials])
        for group, values, factor, rate in zip(groups, found, factors, rates, strict=True):
            if not values:
                moved.append(factor)
                continue
            if not entry.accepts(entry.convert(rate)):
                raise ValueError(f"Schedule: lr must be {entry.allowed}, got {rate!r} at step {t}")
            now = as_float(group["lr"])
            moved.append(factor * as_float(rate) / now if now else factor)
            values.setdefault("lr", as_float(rate))
        return moved

    @staticmethod
    def _start(group: Mapping[str, Any], name: str, earlier: Iterable[tuple[Any, Mapping[str, float]]]) -> float:
        """The start value of a group that is new here: that of an earlier one if it holds the same tensor."""
        value = _entry_of(group, name)
        if value is None:
            raise ValueError(f"Schedule: {name} must be a number in every group to be scheduled, got None")
        shared = (
            start[name]
            for other, start in earlier
            if isinstance(value, Tensor) and name in start and _entry_of(other, name) is value
        )
        return next(shared, as_float(value))

    def _value(self, name: str, entry: Hyperparameter, start: float, t: int, group: Mapping[str, Any]) -> float:
        given = self._curves[name](start, t)
        value = entry.convert(given)
        if not accepted(name, value, entry, group):
            raise ValueError(f"Schedule: {name} must be {entry.allowed}, got {given!r} at step {t}")
        return float(value)


def _rescaling(rescale_lr: Any) -> Rescale | None:
    """What gives the learning rates at new exponents."""
    if isinstance(rescale_lr, Mapping):
        return partial(_along, checked(rescale_lr))
    if rescale_lr is not None and (not callable(rescale_lr) or isinstance(rescale_lr, type)):
        raise TypeError(
            "Schedule: rescale_lr must be a function such as equivalent_lr, a dict of learning rates by exponent or "
            f"None, got {rescale_lr!r}"
        )
    return rescale_lr


def _along(known: Mapping[float, float], optimizer: Any, partials: Sequence[float]) -> list[float]:
    """The groups' learning rates at new exponents, in proportion to those that are known."""
    rates = []
    for group, p in zip(optimizer.param_groups, partials, strict=True):
        ratio = interpolated_lr(p, known) / interpolated_lr(as_float(group["partial"]), known)
        rates.append(as_float(group["lr"]) * ratio)
    return rates


def _entry_of(group: Mapping[str, Any], name: str) -> Any:
    return group["betas"][BETAS.index(name)] if name in BETAS else group[name]


def _write(group: dict[str, Any], name: str, value: float) -> None:
    if name in BETAS:
        betas = list(group["betas"])
        place = BETAS.index(name)
        if isinstance(betas[place], Tensor):
            betas[place].fill_(value)
        else:
            betas[place] = value
            group["betas"] = tuple(betas)
    elif isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value
