"""Feasible sets: where a step ends, projected in the metric of the power that it has divided by.

The nearest point of a set X to b in that metric is argmin over X of Σ wᵢ(xᵢ − bᵢ)², with the weights w = s^(2p).
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast, final

import torch
from torch import Tensor

from partial_adaptive.rules.hyperparameters import Hyperparameter, nearest
from partial_adaptive.rules.stage import ELEMENT, TENSOR, Needs, Stage

NEWTON_STEPS = 40  # for weights of 30 decades; 3 to 8 are usual, 22 the most that a search has found
LARGEST = torch.finfo(torch.float32).max  # of a bound: all that is not float64 is calculated with in float32
ROUNDING = 16  # in units of the machine epsilon: how far outside counts as rounding, and is left alone


class Constraint(Stage, ABC):
    """A closed convex set that the parameters of a group stay in, for `constraint=`.

    What a new one implements is `project`. It must be a frozen dataclass: what a step does is remembered by it.
    A set that looks at one element at a time declares `needs = ELEMENT`, and then runs in every mode.

    Example:
        >>> @dataclass(frozen=True)
        ... class MeanZero(Constraint):
        ...     def project(self, x, weights):
        ...         inverse = weights.reciprocal()
        ...         return x - inverse * (x.sum() / inverse.sum())
        >>> MeanZero().project(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 3.0]))
        tensor([-3.5000,  3.5000])
    """

    needs: Needs = TENSOR

    def check(self) -> None:
        """Raise TypeError for a declaration that cannot be meant so; a set has nothing to declare but `needs`."""
        super().check()
        for attribute in ("slots", "own", "reads", "hyperparameters", "decay", "breaks"):
            if getattr(self, attribute):
                raise TypeError(
                    f"{type(self).__name__} has {attribute} = {getattr(self, attribute)!r}; a set keeps and reads "
                    "nothing but what `project` gets"
                )

    @abstractmethod
    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        """The point of the set that is nearest to x, as a new tensor.

        Args:
            x: of the parameter's shape; a complex parameter counts as a real one with a last dimension of 2.
            weights: w = s^(2p), not negative, of the same shape; 1 at p = 0. With `needs = ELEMENT` it may be a number,
                or only broadcast to the shape.
        """


@final
@dataclass(frozen=True)
class Box(Constraint):
    """Every element in [low, high]; the weights do not matter.

    Args:
        low: the least value; a number within ±3.4e38, or −infinity for none.
        high: the largest value; such a number ≥ low, or infinity for none.

    Raises:
        ValueError: where the box is empty, or bounds nothing.

    Example:
        >>> Box(-1, 1).project(torch.tensor([-3.0, 0.5]), torch.ones(2))
        tensor([-1.0000,  0.5000])
    """

    low: float
    high: float

    needs = ELEMENT
    sparse = True

    def __post_init__(self) -> None:
        bound = f"a number within ±{LARGEST:.3g}"
        _settle(self, "low", f"{bound} or −infinity", lambda low: abs(low) <= LARGEST or low == -math.inf)
        _settle(
            self,
            "high",
            f"{bound} or infinity, and ≥ low, which is {self.low:g}",
            lambda high: (abs(high) <= LARGEST or high == math.inf) and high >= self.low,
        )
        if math.isinf(self.low) and math.isinf(self.high):
            raise ValueError(f"Box: one of low and high must be finite, got {self.low} and {self.high}")

    def project(self, x: Tensor, weights: Any) -> Tensor:
        bounds = {"min": self.low, "max": self.high}
        return x.clamp(**{end: bound for end, bound in bounds.items() if math.isfinite(bound)})


@final
@dataclass(frozen=True)
class NonNegative(Constraint):
    """Every element ≥ 0; the weights do not matter.

    Example:
        >>> NonNegative().project(torch.tensor([-3.0, 0.5]), torch.ones(2))
        tensor([0.0000, 0.5000])
    """

    needs = ELEMENT
    sparse = True

    def project(self, x: Tensor, weights: Any) -> Tensor:
        return x.clamp(min=0.0)


class VectorSet(Constraint, ABC):
    """A set of vectors: of a parameter as one long vector, or of each of its rows.

    Attributes:
        rows: whether each x[i], flattened, is such a vector.
    """

    rows: bool

    def refuses(self, shape: torch.Size) -> str | None:
        return f"rows=True takes two dimensions or more, got the shape {tuple(shape)}" if self._flat(shape) else None

    def _flat(self, shape: torch.Size) -> bool:
        return self.rows and len(shape) < 2

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        """The nearest vectors; weights of zero stand for ones that are next to nothing beside the others."""
        if not x.shape.numel():
            return x
        count, real = (x.shape[0] if self.rows else 1), torch.finfo(x.dtype)
        # An element that is infinitely heavy stays where it is.
        weights = weights.expand(x.shape).reshape(count, -1).to(x.dtype).clamp(max=real.max)
        # Only ratios matter. Sums of their inverses have to stay within the dtype.
        weights = weights.div(weights.amax(1, keepdim=True).clamp(min=real.tiny)).clamp(min=real.eps**4)
        return self.nearest(x.reshape(count, -1), weights, ROUNDING * real.eps).reshape(x.shape)

    @abstractmethod
    def nearest(self, x: Tensor, weights: Tensor, rounding: float) -> Tensor:
        """The nearest vector to each row of x, and bit for bit the row itself where it is in the set.

        Args:
            x: a matrix.
            weights: a matrix of the same shape, in (0, 1], with a 1 in every row.
            rounding: what is outside by no more than this part counts as inside.
        """


@final
@dataclass(frozen=True)
class L2Ball(VectorSet):
    """‖x‖₂ ≤ R: x = wb/(w + μ), with the least μ ≥ 0 for which that holds.

    Args:
        radius: R, a number in [1e-30, 1e30].
        rows: whether every row x[i] is to be in the ball, rather than the parameter as a whole.

    Raises:
        ValueError: where the radius is not allowed.

    Example:
        >>> L2Ball(1.0).project(torch.tensor([3.0, 4.0]), torch.ones(2))
        tensor([0.6000, 0.8000])
    """

    radius: float
    rows: bool = False

    def __post_init__(self) -> None:
        _settle_size(self, "radius")

    def nearest(self, x: Tensor, weights: Tensor, rounding: float) -> Tensor:
        # In units of the radius. By Newton's method on 1/‖x(μ)‖, which is concave in μ: from below it rises to the root
        # and does not pass it. It begins where no element alone is outside; so all squares are within the dtype.
        y, tiny = x / self.radius, torch.finfo(x.dtype).tiny
        mu = (weights * (y.abs() - 1)).amax(1, keepdim=True).clamp(min=0)
        for _ in range(NEWTON_STEPS):
            square = (y * (weights / (weights + mu))).square()
            size = square.sum(1, keepdim=True).clamp(min=tiny)
            slope = (square / (weights + mu)).sum(1, keepdim=True).clamp(min=tiny)
            excess = size.sqrt() - 1
            mu = (mu + excess * (size / slope)).clamp(min=0)
            if x.device.type == "cpu" and bool((excess <= rounding).all()):  # elsewhere nobody waits for the answer
                break
        scaled = y * (weights / (weights + mu))
        scaled = scaled * (self.radius / scaled.square().sum(1, keepdim=True).clamp(min=1).sqrt())
        return x.where(y.square().sum(1, keepdim=True).sqrt() <= 1 + rounding, scaled)


@final
@dataclass(frozen=True)
class L1Ball(VectorSet):
    """Σ|xᵢ| ≤ R: the projection of |b| onto the simplex of that size, with the signs of b.

    Args:
        radius: R, a number in [1e-30, 1e30].
        rows: whether every row x[i] is to be in the ball, rather than the parameter as a whole.

    Raises:
        ValueError: where the radius is not allowed.

    Example:
        >>> L1Ball(1.0).project(torch.tensor([-3.0, 2.5]), torch.ones(2))
        tensor([-0.7500,  0.2500])
    """

    radius: float
    rows: bool = False

    def __post_init__(self) -> None:
        _settle_size(self, "radius")

    def nearest(self, x: Tensor, weights: Tensor, rounding: float) -> Tensor:
        inside = x.abs().sum(1, keepdim=True) <= self.radius * (1 + rounding)
        return x.where(inside, _onto_simplex(x.abs(), weights, self.radius) * x.sign())


@final
@dataclass(frozen=True)
class Simplex(VectorSet):
    """x ≥ 0 and Σxᵢ = total: x = max(b − τ/w, 0), with the τ for which that holds.

    Args:
        total: a number in [1e-30, 1e30].
        rows: whether every row x[i] is to be in the simplex, rather than the parameter as a whole.

    Raises:
        ValueError: where the total is not allowed.

    Example:
        >>> Simplex().project(torch.tensor([0.9, 0.7]), torch.tensor([3.0, 1.0]))
        tensor([0.7500, 0.2500])
    """

    total: float = 1.0
    rows: bool = False

    def __post_init__(self) -> None:
        _settle_size(self, "total")

    def refuses(self, shape: torch.Size) -> str | None:
        if not self._flat(shape) and not shape[1 if self.rows else 0 :].numel():
            return f"without elements nothing adds up to {self.total:g}, got the shape {tuple(shape)}"
        return super().refuses(shape)

    def nearest(self, x: Tensor, weights: Tensor, rounding: float) -> Tensor:
        off = (x.sum(1, keepdim=True) - self.total).abs()
        inside = (x >= 0).all(1, keepdim=True).logical_and(off <= self.total * rounding)
        return x.where(inside, _onto_simplex(x, weights, self.total))


@final
@dataclass(frozen=True, eq=False)
class HalfSpace(VectorSet):
    """Σaᵢxᵢ ≤ c: x = b − (a·b − c)₊/(Σa²/w) · a/w.

    Args:
        normal: a, finite and not all zero: a tensor (a list will do) of the parameter's shape, or of a row's with
            `rows`; a number stands for equal ones. For CUDA graphs it has to be on the parameter's device.
        offset: c, a finite number.
        rows: whether every row x[i] is to be in the half-space, rather than the parameter as a whole.

    Raises:
        ValueError: where `normal` or `offset` is not allowed.

    Example:
        >>> HalfSpace(1.0, 2.0).project(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0]))
        tensor([1.5000, 0.5000])
    """

    normal: Tensor | float
    offset: float
    rows: bool = False

    def __post_init__(self) -> None:
        if hasattr(self.normal, "__len__") and not isinstance(self.normal, Tensor | str):
            object.__setattr__(self, "normal", torch.tensor(self.normal, dtype=torch.float64, device="cpu"))
        if isinstance(self.normal, Tensor):
            real = self.normal.is_floating_point() and bool(self.normal.isfinite().all() and self.normal.any())
            if not real:
                raise ValueError(f"HalfSpace: normal must be of finite real numbers, not all 0, got {self.normal}")
            object.__setattr__(self, "normal", self.normal.detach().clone())
        else:
            _settle(self, "normal", "a tensor, or a finite number other than 0", lambda a: math.isfinite(a) and a != 0)
        _settle(self, "offset", "a finite number", math.isfinite)
        _check_rows(self)

    def refuses(self, shape: torch.Size) -> str | None:
        if not self._flat(shape) and isinstance(self.normal, Tensor):
            right = shape[1:] if self.rows else shape
            if self.normal.shape != right:
                return f"normal must have the shape {tuple(right)}, got {tuple(self.normal.shape)}"
        return super().refuses(shape)

    def nearest(self, x: Tensor, weights: Tensor, rounding: float) -> Tensor:
        normal: Any = self.normal
        length = normal.abs().amax() if isinstance(normal, Tensor) else abs(normal)
        offset, normal = self.offset / length, normal / length
        if isinstance(normal, Tensor):
            normal = normal.to(x.device, x.dtype).reshape(1, -1)
        terms = x * normal
        excess = terms.sum(1, keepdim=True) - offset
        size = terms.abs().amax(1, keepdim=True) * math.sqrt(terms.shape[1])  # that of the sum's rounding errors
        inside = excess <= (size + abs(offset)) * rounding
        across = weights.reciprocal() * normal
        return x.where(inside, x - across * (excess / (across * normal).sum(1, keepdim=True)))


def _onto_simplex(x: Tensor, weights: Tensor, total: float) -> Tensor:
    """max(b − τ/w, 0) of each row, τ such that it adds up to `total`.

    An element is positive where its t = bw is above τ. With t in descending order, the positive ones are the first: as
    many as there are places at which τ could still fall before Σ(tᵢ − τ)/wᵢ, the sum, reaches the total. Gaps between
    neighbours and sums of what is positive lose no digits, however large b and unequal w are.
    """
    values = x * weights
    order = values.argsort(dim=1, descending=True)
    falling = values.gather(1, order)
    inverse = weights.reciprocal().gather(1, order).cumsum(1)
    gaps = (falling.roll(1, 1) - falling).clamp(min=0)  # the first has no neighbour: from the last up to it is below 0
    sums = (gaps * inverse.roll(1, 1)).cumsum(1)  # at τ = t of each
    last = (sums < total).sum(1, keepdim=True).clamp(min=1) - 1
    rest = (total - sums.gather(1, last)) / inverse.gather(1, last)
    result = (values - falling.gather(1, last) + rest).clamp(min=0) / weights
    return result * (total / result.sum(1, keepdim=True))


def _settle_size(constraint: Any, name: str) -> None:
    _settle(constraint, name, "a number in [1e-30, 1e30]", lambda size: 1e-30 <= size <= 1e30)
    _check_rows(constraint)


def _check_rows(constraint: Any) -> None:
    if not isinstance(constraint.rows, bool):
        raise ValueError(f"{type(constraint).__name__}: rows must be True or False, got {constraint.rows!r}")


def _settle(constraint: Any, name: str, allowed: str, accepts: Callable[[float], bool]) -> None:
    """Make an attribute a float; ValueError where it is not allowed."""
    given = getattr(constraint, name)
    plain = given.item() if getattr(given, "shape", None) == () else given
    try:
        value = float(plain)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if isinstance(plain, bool | str) or math.isnan(value) or not accepts(value):
        raise ValueError(f"{type(constraint).__name__}: {name} must be {allowed}, got {given!r}")
    object.__setattr__(constraint, name, value)


# -- as plain data, for checkpoints and configurations


def description(constraint: Constraint) -> dict[str, Any]:
    """A constraint as plain data: the name of its class under "set", and its arguments, other sets among them too.

    Example:
        >>> description(Box(-1, 1))
        {'set': 'Box', 'low': -1.0, 'high': 1.0}
    """
    arguments = (field.name for field in fields(cast(Any, constraint)) if field.init)
    return {"set": _name(type(constraint)), **{name: _described(getattr(constraint, name)) for name in arguments}}


def _described(value: Any) -> Any:
    if isinstance(value, Constraint):
        return description(value)
    return tuple(map(_described, value)) if isinstance(value, tuple) else value


def described(data: Any) -> Any:
    """The constraint of a description; anything else is given back, and a list of descriptions as a tuple of sets.

    Raises:
        ValueError: where the description names no set that is known here, or its arguments do not fit.

    Example:
        >>> described({"set": "Simplex", "total": 2})
        Simplex(total=2.0, rows=False)
    """
    if isinstance(data, list | tuple):
        return tuple(map(described, data))
    if not isinstance(data, Mapping) or "set" not in data:
        return data
    known = {_name(kind): kind for kind in _kinds(Constraint)}
    name = data["set"]
    if not isinstance(name, str) or name not in known:
        raise ValueError(
            f"constraint names the set {name!r}{nearest(str(name), known)}, which is not known here; there are "
            f"{', '.join(known)}; one of your own has to be imported first"
        )
    arguments = {key: described(value) for key, value in data.items() if key != "set"}
    try:
        return known[name](**arguments)
    except TypeError as error:
        raise ValueError(f"constraint has arguments that do not fit: {error}") from error


def _kinds(kind: type[Any]) -> Iterator[type[Constraint]]:
    for child in kind.__subclasses__():
        if not inspect.isabstract(child):
            yield child
        yield from _kinds(child)


def _name(kind: type[Constraint]) -> str:
    """What a description calls a class: the library's own by their names alone."""
    return kind.__name__ if kind.__module__ == __name__ else f"{kind.__module__}.{kind.__qualname__}"


def _accepts(value: Any) -> bool:
    """Whether it is no set, or one that can be remembered, and described in a checkpoint."""
    if value is None:
        return True
    frozen = getattr(getattr(type(value), "__dataclass_params__", None), "frozen", False)
    if not isinstance(value, Constraint) or not frozen or any(it.name == "set" for it in fields(cast(Any, value))):
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return _is_plain(description(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return type(value) in (bool, int, float, str, type(None)) or isinstance(value, Tensor)


CONSTRAINT = Hyperparameter(
    "feasible set, onto which every step is projected in the metric s^(2p)",
    "None, a Constraint or its description; it must be a frozen dataclass of plain values, tensors and other sets",
    _accepts,
    None,
    described,
)
