"""The one update rule, for one tensor or for whatever stands in for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, cast

from torch import Tensor

from partial_adaptive.rules.codecs import check_names, stored
from partial_adaptive.rules.hyperparameters import (
    BETA,
    BETAS,
    HYPERPARAMETERS,
    Hyper,
    Hyperparameter,
    nearest,
    table_for,
)
from partial_adaptive.rules.numerators import Momentum
from partial_adaptive.rules.projection import CONSTRAINT, Constraint
from partial_adaptive.rules.rounding import Rounding, rounding_of
from partial_adaptive.rules.second_moments import Estimator, Null, Quotient, SecondMoment
from partial_adaptive.rules.stage import RESERVED, Needs, Selectable, Slot, Stage, Tensors, Transform
from partial_adaptive.rules.transforms import decayed


@dataclass(frozen=True)
class Rule:
    """θ ← θ − α·P^(−p) n, as stages.

    Args:
        before: change the gradient, in this order.
        momentum: makes the numerator n of it.
        second_moment: is P.
        after: change the direction P^(−p) n, in this order.
        constraint: the feasible set onto which θ is projected at the end, if there is one.
        storage: how the slots are stored, as `state_dtype` says.
        rounding: how parameters in 16 bits are rounded; None for the nearest.
    """

    before: tuple[Transform, ...]
    momentum: Momentum
    second_moment: SecondMoment
    after: tuple[Transform, ...]
    constraint: Constraint | None = None
    storage: Any = None
    rounding: Rounding | None = None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order in which they run."""
        last = () if self.constraint is None else (self.constraint,)
        return (*self.before, self.momentum, self.second_moment, *self.after, *last)

    @cached_property
    def slots(self) -> Mapping[str, Slot]:
        """All state tensors, by name, as they are stored."""
        declared = {name: slot for stage in self.stages for name, slot in stage.slots.items()}
        return stored(declared, self.storage) | dict(self.rounding.slots if self.rounding else {})

    @cached_property
    def coded(self) -> tuple[str, ...]:
        """Names of the slots that are stored in a code."""
        return tuple(name for name, slot in self.slots.items() if slot.codec)

    @cached_property
    def needs(self) -> Needs:
        """What the rule as a whole must see: TENSOR if one of its stages must."""
        return Needs.TENSOR if any(stage.needs is Needs.TENSOR for stage in self.stages) else Needs.ELEMENT

    @property
    def breaks(self) -> frozenset[str]:
        """The `LAWS` that one of the stages breaks."""
        return frozenset(law for stage in self.stages for law in stage.breaks)

    @cached_property
    def _getters(self) -> Mapping[Stage, Callable[[Mapping[str, Any]], tuple[Any, ...]]]:
        return {stage: _getter((*stage.slots, *stage.reads)) for stage in self.stages}

    def hyper(self, group: Mapping[str, Any], step: Any, age: Any, scalars: Sequence[Any]) -> Hyper:
        """The numbers of a step, which is taken into `scalars`; see `Hyper` for the other arguments."""
        hyper = Hyper(group, step, age, (self.momentum.decay, self.second_moment.decay))
        if scalars:
            vars(hyper).update(self.momentum.numbers(hyper, *scalars))
        hyper.step_size = self.step_size(hyper)
        return hyper

    def step_size(self, hyper: Hyper) -> Any:
        """The factor of the direction in a step."""
        size = self.momentum.step_size(hyper)
        return size if self.after else size / hyper.correction1

    def direction(
        self, param: Tensor, grad: Tensor, hyper: Hyper, state: Mapping[str, Any]
    ) -> tuple[Tensor | Quotient, Any]:
        """What a step subtracts a multiple of, and s^(2p) where it divides by that; the state changes, in place."""
        grad, numerator = self._numerator(param, grad, hyper, state)
        direction = self.second_moment.divide(numerator, grad, hyper, *self._of(self.second_moment, state))
        weights = direction.denominator if isinstance(direction, Quotient) else None
        if self.after:
            if isinstance(direction, Quotient):
                direction = direction.divided()
            elif direction is numerator:  # at p = 0: the state, or the gradient, of somebody else
                direction = direction.clone()
            if not isinstance(hyper.correction1, float) or hyper.correction1 != 1.0:
                direction = direction.div(hyper.correction1)
            tensors = Tensors(param, grad, numerator)
            for stage in self.after:
                direction = self._applied(stage, direction, hyper, tensors, state)
        return direction, weights

    def update(self, param: Tensor, grad: Tensor, hyper: Hyper, state: Mapping[str, Any]) -> None:
        """Take one step: change `param` and its state, in place, and leave `grad` as it is."""
        direction, weights = self.direction(param, grad, hyper, state)
        if hyper.has_decay and hyper.decoupled_weight_decay and not any(stage.decays for stage in self.after):
            if hyper.cautious_weight_decay:
                direction = direction.divided() if isinstance(direction, Quotient) else direction
                param.sub_(decayed(direction, param, hyper).mul(hyper.lr))
            else:
                param.mul_(1 - hyper.lr * hyper.effective_decay)
        self._subtract(param, direction, hyper.step_size)
        if self.constraint is not None:
            self._project(param, weights, self.constraint)

    def scale(self, param: Tensor, grad: Tensor, hyper: Hyper, state: Mapping[str, Any]) -> Tensor | None:
        """What the step would divide by, before the power; None where it divides by nothing of that kind."""
        if not isinstance(self.second_moment, Estimator):
            return None
        grad, numerator = self._numerator(param, grad, hyper, state)
        return self.second_moment.measured(numerator, grad, hyper, *self._of(self.second_moment, state))

    def _numerator(self, param: Tensor, grad: Tensor, hyper: Hyper, state: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The gradient as the second moment sees it, and n."""
        if hyper.maximize:
            grad = grad.neg()
        if hyper.has_decay and not hyper.decoupled_weight_decay:
            grad = grad.add(param, alpha=hyper.weight_decay)
        for stage in self.before:
            grad = self._applied(stage, grad, hyper, Tensors(param, grad, grad), state)
        numerator = self.momentum.numerator(grad, hyper, *self._of(self.momentum, state))
        return grad, _returned(self.momentum, numerator)

    def _applied(self, stage: Transform, x: Any, hyper: Hyper, tensors: Tensors, state: Mapping[str, Any]) -> Any:
        """What a stage of one's own makes of x, which may be somebody else's state."""
        seen = (x, *tensors)
        before = [*map(version_of, seen)]
        result = _returned(stage, stage.apply(x, hyper, tensors, *self._of(stage, state)))
        if [*map(version_of, seen)] != before:
            raise TypeError(
                f"{type(stage).__name__}.apply changes in place what it is given; it must return a new tensor"
            )
        return result

    @staticmethod
    def _subtract(param: Tensor, direction: Any, step_size: Any) -> None:
        number = isinstance(step_size, float)
        if isinstance(direction, Quotient) and direction.direction is None and number:
            param.addcdiv_(direction.numerator, direction.denominator, value=-step_size)
            return
        if isinstance(direction, Quotient):
            direction = direction.divided()
        if number:
            param.add_(direction, alpha=-step_size)
        else:
            param.sub_(direction.mul(step_size))

    @staticmethod
    def _project(param: Tensor, weights: Any, constraint: Constraint) -> None:
        """Move θ to the nearest point of the set."""
        whole = constraint.needs is Needs.TENSOR
        if weights is None:
            weights = param.new_ones(()) if whole else 1.0
        if whole:
            weights = weights.expand(param.shape)
        projected = _returned(constraint, constraint.project(param, weights))
        if isinstance(projected, int | float):
            raise TypeError(f"{type(constraint).__name__}.project must return a tensor like x, got {projected}")
        if whole and (projected.shape, projected.dtype) != (param.shape, param.dtype):
            raise TypeError(
                f"{type(constraint).__name__}.project must return the shape and dtype of x, {tuple(param.shape)} and "
                f"{param.dtype}, got {tuple(projected.shape)} and {projected.dtype}"
            )
        param.copy_(projected)

    def _of(self, stage: Stage, state: Mapping[str, Any]) -> tuple[Any, ...]:
        return self._getters[stage](state)


def version_of(tensor: Any) -> Any:
    """A value that changes when a tensor is changed in place."""
    if not isinstance(tensor, Tensor):
        return tensor.version
    return None if tensor.is_inference() else tensor._version


def _getter(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """What takes the entries of some names out of a state; a step does so for every parameter."""
    if len(names) > 1:
        return itemgetter(*names)
    return (lambda state: (state[names[0]],)) if names else (lambda state: ())


def _returned(stage: Stage, value: Any) -> Any:
    if value is None:
        raise TypeError(f"{type(stage).__name__} must return a tensor, got None; is a return missing?")
    return value


REMEMBERED = 32  # rules of one optimizer: a set that is new at every step must not stay for ever
_PROJECTION = "constraint"  # the entry of a param group that is the rule's last stage


@dataclass(frozen=True)
class Recipe:
    """The stages of an optimizer, each of which may be a `Switch`, from which every param group gets its rule.

    Args:
        owner: the optimizer's name, for messages.
        before, momentum, second_moment, after: as in `Rule`.

    Raises:
        TypeError: for a part that is not a stage of its kind, or declares what cannot be meant.
    """

    owner: str
    before: tuple[Selectable[Transform], ...]
    momentum: Selectable[Momentum]
    second_moment: Selectable[SecondMoment]
    after: tuple[Selectable[Transform], ...]

    def __post_init__(self) -> None:
        for argument, kind, parts in (
            ("before", Transform, self.before),
            ("momentum", Momentum, (self.momentum,)),
            ("estimator", SecondMoment, (self.second_moment,)),
            ("after", Transform, self.after),
        ):
            for part in parts:
                _check_kind(argument, kind, part)
        own: dict[str, Hyperparameter] = {_PROJECTION: CONSTRAINT}
        for stage in self.stages:
            stage.check()
            for name, entry in stage.own.items():
                if own.setdefault(name, entry) is not entry:
                    raise TypeError(f"{type(stage).__name__}.own has {name!r}, which another stage declares otherwise")
            for name in own.keys() & {*stage.hyperparameters} & HYPERPARAMETERS.keys():
                raise TypeError(f"{type(stage).__name__} reads the library's {name!r}, which another stage redefines")
        for option in (getattr(chosen, "option", None) for chosen in self.parts):
            if option is not None and option not in (*HYPERPARAMETERS, *own):
                raise TypeError(
                    f"a Switch chooses by {option!r}, which is no hyperparameter of this optimizer"
                    f"{nearest(option, (*HYPERPARAMETERS, *own))}"
                )
        for stage in self.stages:
            for name, slot in stage.slots.items():
                if isinstance(slot.first, str) and slot.first not in (*self.hyperparameters, *own):
                    raise TypeError(
                        f"{type(stage).__name__}.slots[{name!r}] starts with {slot.first!r}, which is no "
                        "hyperparameter of this optimizer; name it in `hyperparameters` or declare it in `own`"
                    )
        _check_names(self.parts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts alone: what follows from them may hold functions."""
        return type(self), (self.owner, self.before, self.momentum, self.second_moment, self.after)

    @cached_property
    def parts(self) -> tuple[Selectable[Stage], ...]:
        """All parts, in the order in which they run."""
        return (*self.before, self.momentum, self.second_moment, *self.after)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages that a group may get."""
        return tuple(stage for part in self.parts for stage in part.alternatives if stage is not None)

    @cached_property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names from the library's table that the stages read, and the options that choose between them."""
        names = (name for stage in self.stages for name in stage.hyperparameters)
        options = (option for part in self.parts if (option := getattr(part, "option", None)))
        return tuple(dict.fromkeys((*names, *options)))

    @cached_property
    def own(self) -> Mapping[str, Hyperparameter]:
        """The hyperparameters that the stages declare themselves, the feasible set last."""
        return {name: entry for stage in self.stages for name, entry in stage.own.items()} | {_PROJECTION: CONSTRAINT}

    @cached_property
    def table(self) -> Mapping[str, Hyperparameter]:
        """Everything that a param group holds."""
        return table_for(self.hyperparameters, self.own)

    @cached_property
    def numbers(self) -> Mapping[str, Hyperparameter]:
        """What of a param group may move from step to step, the betas one by one."""
        moving = {name: entry for name, entry in self.table.items() if not entry.static and name != "betas"}
        return moving | (dict.fromkeys(BETAS, BETA) if "betas" in self.table else {})

    def rule(self, group: Mapping[str, Any], *, scaled: bool) -> Rule:
        """The rule of a param group, with P⁰ where it is not `scaled`; ValueError for what its stages do not take."""
        try:
            return self._rule(group, scaled=scaled)
        except ValueError as error:
            if str(error).startswith(self.owner):
                raise
            raise ValueError(f"{self.owner}: {error}") from error

    def _rule(self, group: Mapping[str, Any], *, scaled: bool) -> Rule:
        second_moment = cast(SecondMoment, self.second_moment.select(group))
        constraint = group[_PROJECTION]
        if constraint is not None and not isinstance(second_moment, Estimator | Null):
            raise TypeError(
                f"{_PROJECTION} takes a second moment with a value per element, an Estimator: the projection is in its "
                f"metric; got {type(second_moment).__name__}"
            )
        storage = HYPERPARAMETERS["state_dtype"].convert(group["state_dtype"])  # what is set in a group may be a dict
        key = (
            tuple(filter(None, (part.select(group) for part in self.before))),
            cast(Momentum, self.momentum.select(group)),
            second_moment if scaled else Null(second_moment.decay),
            tuple(filter(None, (part.select(group) for part in self.after))),
            constraint,
            storage,
            rounding_of(group),
        )
        if key not in self._known:
            check_names(storage, [name for stage in self.stages for name in stage.slots], self.owner)
            if constraint is not None:
                constraint.check()
            while len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            rule = Rule(*key)
            assert rule.slots is not None, "a choice of storage that does not fit is refused here"
            self._known[key] = rule
        return self._known[key]

    @cached_property
    def _known(self) -> dict[Any, Rule]:
        return {}


def _check_kind(argument: str, kind: type, part: Any) -> None:
    alternatives = getattr(part, "alternatives", (part,)) if not isinstance(part, type) else (part,)
    for stage in alternatives:
        if isinstance(stage, type):
            raise TypeError(
                f"{argument} must be a {kind.__name__}, got the class {stage.__name__}: write {stage.__name__}()"
            )
        optional = stage is None and argument in ("before", "after") and part is not None
        if not isinstance(stage, kind) and not optional:
            given = "None" if stage is None else f"a {type(stage).__name__}"
            raise TypeError(f"{argument} must be a {kind.__name__} or a Switch between two, got {given}")


def _check_names(parts: Sequence[Selectable[Stage]]) -> None:
    """Raise TypeError where two stages may keep state under one name, or one reads what not every group keeps."""
    owners: dict[str, tuple[int, Stage | None]] = dict.fromkeys(RESERVED, (-1, None))
    for i, part in enumerate(parts):
        for stage in filter(None, part.alternatives):
            for name in _kept(stage):
                place, other = owners.setdefault(name, (i, stage))
                if place != i:
                    owner = "the optimizer" if other is None else type(other).__name__
                    raise TypeError(f"{type(stage).__name__} and {owner} both keep state as {name!r}; rename a slot")
    always = {
        name
        for part in parts
        for name in owners
        if all(stage is not None and name in stage.slots for stage in part.alternatives)
    }
    for stage in (stage for part in parts for stage in part.alternatives if stage is not None):
        for name in stage.reads:
            if name not in always:
                raise TypeError(
                    f"{type(stage).__name__} reads {name!r}, which no stage of this optimizer keeps; "
                    f"there are {', '.join(sorted(always)) or 'none'}"
                )


def _kept(stage: Stage) -> tuple[str, ...]:
    return (*stage.slots, *getattr(stage, "scalars", ()))


RecipeOf = Callable[[Mapping[str, Any]], Recipe]  # the stages of a param group
