"""The feasible sets by themselves: against a convex solver, exact fractions, and all that makes a projection one."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls, root
from torch import Tensor

from partial_adaptive import Box, Constraint, HalfSpace, L1Ball, L2Ball, NonNegative, Simplex

NAN, INF = math.nan, math.inf
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
NORMAL = np.array([1.0, -2.0, 0.5, 3.0, -0.25, 0.0])  # of as many elements as there are
Exact = list[Fraction]
dtypes = pytest.mark.parametrize("dtype", EPS, ids=str)


# -- what is right, without rounding


def onto_simplex(b: Exact, w: Exact, size: Fraction) -> Exact:
    """Elements join the support one after the other by falling bw, for as long as they are above τ."""
    order = sorted(range(len(b)), key=lambda i: b[i] * w[i], reverse=True)
    total, inverse, tau = -size, Fraction(0), Fraction(0)
    for i in order:
        total, inverse = total + b[i], inverse + 1 / w[i]
        if b[i] * w[i] * inverse <= total and i != order[0]:
            break
        tau = total / inverse
    return [max(x - tau / y, Fraction(0)) for x, y in zip(b, w, strict=True)]


def onto_l1_ball(b: Exact, w: Exact, size: Fraction) -> Exact:
    nearest = onto_simplex([*map(abs, b)], w, size)
    return b if sum(map(abs, b)) <= size else [x if y >= 0 else -x for x, y in zip(nearest, b, strict=True)]


def onto_l2_ball(b: Exact, w: Exact, size: Fraction) -> Exact:
    """By bisection in decimal numbers of sixty digits."""
    if sum(x * x for x in b) <= size * size:
        return b
    with localcontext(prec=60):
        (r, *rest) = [Decimal(x.numerator) / Decimal(x.denominator) for x in (size, *b, *w)]
        pairs = [*zip(rest[: len(b)], rest[len(b) :], strict=True)]
        low, high = Decimal(0), max(rest[len(b) :]) * sum((x * x for x, _ in pairs), Decimal(0)).sqrt() / r
        for _ in range(330):
            mu = (low + high) / 2
            shorter = sum((x * y / (y + mu)) ** 2 for x, y in pairs) <= r * r
            low, high = (low, mu) if shorter else (mu, high)
        return [Fraction(x * y / (y + high)) for x, y in pairs]


def onto_half_space(b: Exact, w: Exact, normal: Exact, offset: Fraction) -> Exact:
    excess = sum(a * x for a, x in zip(normal, b, strict=True)) - offset
    square = sum(a * a / y for a, y in zip(normal, w, strict=True))
    return [x - max(excess, Fraction(0)) / square * a / y for x, y, a in zip(b, w, normal, strict=True)]


@dataclass(frozen=True)
class Kind:
    """Sets of all sizes, and what is known of them without the library."""

    make: Callable[..., Constraint]  # from the size, and the length of the vectors
    exact: Callable[[Exact, Exact, Fraction], Exact]  # the nearest point to b in the metric w, from the size
    outside: Callable[[Exact, Fraction], Any]  # how far a point is outside; 0 on the boundary, less inside
    faces: Callable[[Any], tuple[Any, Any]] | None  # G and h of Gx ≥ h for size 1, from the unit matrix
    vector: bool = True  # whether it takes `rows`


def fractions(values: Any) -> Exact:
    return [*map(Fraction, torch.as_tensor(values, dtype=torch.float64).tolist())]


def tensor(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


KINDS: dict[str, Kind] = {
    "Box": Kind(
        lambda size, n: Box(-size, size / 2),
        lambda b, w, size: [min(max(x, -size), size / 2) for x in b],
        lambda x, size: max(max(v - size / 2, -size - v) for v in x),
        lambda axes: (np.vstack([axes, -axes]), np.repeat([-1.0, -0.5], len(axes))),
        vector=False,
    ),
    "NonNegative": Kind(
        lambda size, n: NonNegative(),
        lambda b, w, size: [max(x, Fraction(0)) for x in b],
        lambda x, size: -min(x),
        lambda axes: (axes, 0 * axes[0]),
        vector=False,
    ),
    "L2Ball": Kind(
        lambda size, n, **rows: L2Ball(size, **rows),
        onto_l2_ball,
        lambda x, size: (sum(v * v for v in x) / size - size) / 2,
        None,
    ),
    "L1Ball": Kind(
        lambda size, n, **rows: L1Ball(size, **rows),
        onto_l1_ball,
        lambda x, size: sum(map(abs, x)) - size,
        lambda axes: (np.array([*itertools.product([-1.0, 1.0], repeat=len(axes))]), np.full(2 ** len(axes), -1.0)),
    ),
    "Simplex": Kind(
        lambda size, n, **rows: Simplex(size, **rows),
        onto_simplex,
        lambda x, size: max(abs(sum(x) - size), -min(x)),
        lambda axes: (np.vstack([axes, axes.sum(0), -axes.sum(0)]), np.append(0 * axes[0], [1.0, -1.0])),
    ),
    "HalfSpace": Kind(
        lambda size, n, **rows: HalfSpace(tensor(NORMAL[:n]), size, **rows),
        lambda b, w, size: onto_half_space(b, w, fractions(NORMAL[: len(b)]), size),
        lambda x, size: sum(a * v for a, v in zip(fractions(NORMAL), x, strict=False)) - size,
        lambda axes: (-NORMAL[None, : len(axes)], np.array([-1.0])),
    ),
    "HalfSpace of a number": Kind(
        lambda size, n, **rows: HalfSpace(-2.0, -size, **rows),
        lambda b, w, size: onto_half_space(b, w, [Fraction(-2)] * len(b), -size),
        lambda x, size: size - 2 * sum(x),
        lambda axes: (2 * axes.sum(0, keepdims=True), np.array([1.0])),
    ),
}
VECTORS = [name for name, kind in KINDS.items() if kind.vector]
kinds = pytest.mark.parametrize("name", KINDS)


def rows_of(name: str) -> Constraint:
    """The set of size 1 for each row of three elements, or for each element."""
    return KINDS[name].make(1.0, 3, **({"rows": True} if KINDS[name].vector else {}))


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether they are the same, the signs of zeros included."""
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())


# -- the nearest point


def solved(name: str, b: Any, w: Any) -> Any:
    """The nearest point of the set of size 1, by SciPy.

    The least √w(x − b) with Gx ≥ h is found by non-negative least squares (Lawson, Hanson, 1974, chapter 23); that of
    the ball as the root of the KKT equations. Both are exact to 1e-12, where SLSQP ends at 1e-7.
    """
    n = len(b)
    faces = KINDS[name].faces
    if faces is None:
        start = np.append(b / np.linalg.norm(b), w.mean() * (np.linalg.norm(b) - 1))
        stationary = root(lambda z: np.append(w * (z[:n] - b) + z[n] * z[:n], z[:n] @ z[:n] - 1), start, tol=1e-14)
        return b if b @ b <= 1 else stationary.x[:n]
    normals, offsets = faces(np.eye(n))
    system = np.vstack([normals.T / np.sqrt(w)[:, None], offsets - normals @ b])
    residual = system @ nnls(system, np.eye(n + 1)[n])[0] - np.eye(n + 1)[n]
    return b - residual[:n] / residual[n] / np.sqrt(w)


@pytest.mark.parametrize("rows", [False, True], ids=["whole", "rows"])
@kinds
def test_solver(name: str, rows: bool) -> None:
    """SciPy's solvers find the same points to 1e-8, of parameters and of each of their rows."""
    generator = np.random.default_rng(0)
    for n in (1, 2, 5):
        b, w = generator.normal(size=(4, n)) * 2, generator.uniform(0.3, 3, size=(4, n))
        expected = np.stack([solved(name, *problem) for problem in zip(b, w, strict=True)])
        if rows and KINDS[name].vector:
            actual = KINDS[name].make(1.0, n, rows=True).project(tensor(b), tensor(w))
        else:
            constraint = KINDS[name].make(1.0, n)
            actual = torch.stack([constraint.project(x, y) for x, y in zip(tensor(b), tensor(w), strict=True)])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-8)


@dataclass(frozen=True)
class Problem:
    """A point b, the weights and the size of the set."""

    b: tuple[float, ...]
    w: tuple[float, ...]
    size: float

    def solved(self, name: str) -> Tensor:
        solution = KINDS[name].exact(fractions(self.b), fractions(self.w), Fraction(self.size))
        return tensor([*map(float, solution)])

    def projected(self, name: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.constraint(name).project(tensor(self.b, dtype), tensor(self.w, dtype))

    def constraint(self, name: str) -> Constraint:
        return KINDS[name].make(self.size, len(self.b))

    def reach(self, name: str) -> float:
        """What rounding is relative to: a half-space has no size of its own."""
        return self.size + (max(map(abs, self.b)) if name.startswith("HalfSpace") else 0.0)


@st.composite
def problems(draw: st.DrawFn, decades: float = 8, width: Any = 64) -> Problem:
    """Points near the set and far from it, along the directions, too, in which many elements stay positive."""
    n = draw(st.integers(1, 6))
    rounded = np.float32 if width == 32 else np.float64
    w = [float(rounded(10**e)) for e in draw(st.lists(st.floats(-decades, decades), min_size=n, max_size=n))]
    y = draw(st.lists(st.floats(-10, 10, width=width), min_size=n, max_size=n))
    far = draw(st.sampled_from([0.0, 0.0, 1e-3, 1.0, 1e4, 1e12]))
    b = [float(rounded(x + far * max(w) / v)) for x, v in zip(y, w, strict=True)]
    return Problem(tuple(b), tuple(w), draw(st.sampled_from([2.0 ** (-10 if width == 32 else -40), 1.0, 1000.0])))


def check(name: str, problem: Problem, dtype: torch.dtype, precision: float) -> None:
    """Compare with exact fractions, to a part of the size and an ulp of b; see that it is in the set, and stays there.

    An ulp of b is what b·w is rounded by, and may be more than 1e-8 of a set that is far away. A half-space has no
    size; there, all is relative to the point that was projected.
    """
    x, reach = problem.projected(name, dtype), problem.reach(name)
    ulp = 0.0 if name == "L2Ball" else EPS[dtype] * max(map(abs, problem.b))
    torch.testing.assert_close(x.double(), problem.solved(name), rtol=0, atol=precision * reach + 2 * ulp)
    assert KINDS[name].outside(fractions(x), Fraction(problem.size)) <= max(1e-12, 8 * EPS[dtype]) * reach
    again = problem.constraint(name).project(x, tensor(problem.w, dtype))
    if name.startswith("HalfSpace"):
        torch.testing.assert_close(again, x, rtol=0, atol=4 * EPS[dtype] * reach)
    else:
        assert same_bits(again, x)


@kinds
@settings(max_examples=200)
@given(problem=problems())
def test_exact(name: str, problem: Problem) -> None:
    """It is the exact point to 1e-12 for weights of sixteen decades, in the set to 1e-12, and idempotent to the bit."""
    check(name, problem, torch.float64, 1e-12)


@kinds
@settings(max_examples=100)
@given(problem=problems(decades=5, width=32))
@example(problem=Problem((1e12, 2e12, -3e12), (1.0, 2.0, 0.5), 2.0**-10))
def test_exact_in_float32(name: str, problem: Problem) -> None:
    """So it is in float32, to 1e-5."""
    check(name, problem, torch.float32, 1e-5)


@kinds
@settings(max_examples=100)
@given(problem=problems(), other=problems(decades=0))
def test_non_expansive(name: str, problem: Problem, other: Problem) -> None:
    """In the weighted norm two points do not come to lie further apart."""
    n = min(len(problem.b), len(other.b))
    w, one, two = (tensor(it[:n]) for it in (problem.w, problem.b, other.b))
    constraint = KINDS[name].make(problem.size, n)

    def norm(x: Tensor) -> float:
        return float((w.sqrt() * x).norm())

    apart = norm(constraint.project(one, w) - constraint.project(two, w))
    rounding = 32 * EPS[torch.float64] * (norm(one) + norm(two) + norm(torch.full_like(w, problem.size)))
    assert apart <= norm(one - two) * (1 + 1e-12) + rounding


@kinds
@settings(max_examples=60)
@given(problem=problems(decades=2))
def test_stationary(name: str, problem: Problem) -> None:
    """No point of the set is nearer in any direction: ⟨w(b − x), y − x⟩ ≤ 0 for every y in it (the KKT conditions)."""
    x, b, w = problem.projected(name), tensor(problem.b), tensor(problem.w)
    axes = torch.eye(len(b), dtype=torch.float64) * problem.size
    for step in (*axes, *-axes):
        y = problem.constraint(name).project(x + step, torch.ones_like(b))
        slack = 1e-12 * (w * (b.abs() + x.abs()) * ((y - x).abs() + problem.reach(name))).sum()
        assert w * (b - x) @ (y - x) <= slack


@dtypes
@pytest.mark.parametrize("n", [1, 3, 1000, 100_000])
@kinds
def test_points_of_the_set_come_back(name: str, n: int, dtype: torch.dtype) -> None:
    """A point of the set, inside or on the boundary as rounding left it, is the same bit for bit, of any length."""
    name = "HalfSpace of a number" if name == "HalfSpace" and n > len(NORMAL) else name
    constraint = KINDS[name].make(1.0, n)
    weights = torch.rand(n, dtype=dtype) + 0.1
    inside = torch.full((n,), float(name == "HalfSpace of a number"), dtype=dtype)
    inside[-1] = 1.0 if name in ("Simplex", "HalfSpace of a number") else -0.0
    boundary = constraint.project(torch.randn(n, dtype=dtype) * 3 + (n**-0.5), weights)
    middle = torch.full_like(inside, 1 / n) if name == "Simplex" else inside + (boundary - inside) / 2
    for point in (inside, boundary, middle):
        assert same_bits(constraint.project(point, weights), point)
        assert same_bits(constraint.project(point, torch.rand(n, dtype=dtype)), point)


@pytest.mark.parametrize("w", [(0.0, 1.0, 2.0), (0.0, 0.0, 1.0), (1.0, 0.0, 3.0), (0.0, 0.0, 0.0), (0.0,)], ids=str)
@pytest.mark.parametrize("b", [(5.0, 3.0, 0.25), (-5.0, 3.0, 4.0), (0.5, 0.75, -9.0), (1e9, 2.0, -1.5)], ids=str)
@kinds
def test_zero_weights(name: str, b: tuple[float, ...], w: tuple[float, ...]) -> None:
    """Weights of zero are the limit of weights that go to zero together, and so of the best objective there is."""
    b = b[: len(w)]
    actual = Problem(b, w, 1.0).projected(name)
    limit = Problem(b, tuple(weight or (1e-60 if any(w) else 1.0) for weight in w), 1.0)
    tolerance = 1e-12 + 2 * EPS[torch.float64] * max(map(abs, b))
    torch.testing.assert_close(actual, limit.solved(name), rtol=0, atol=tolerance)
    assert KINDS[name].outside(fractions(actual), Fraction(1)) <= 1e-12 * limit.reach(name)
    cost, best = ((tensor(w) * (x - tensor(b)) ** 2).sum() for x in (actual, limit.solved(name)))
    assert cost <= best * (1 + 1e-12) + 1e-24


@pytest.mark.parametrize("w", [(1e-300, 1.0, 1e300), (5e-324, 0.0, 5e-324), (1e-310, 1e-320, 0.0), (1e308,) * 3])
@dtypes
@kinds
def test_any_weights(name: str, dtype: torch.dtype, w: tuple[float, ...]) -> None:
    """Weights at the ends of what a float can hold give a point of the set; one that outweighs all others rests."""
    weights = tensor(w).clamp(max=torch.finfo(dtype).max).to(dtype)
    x = KINDS[name].make(1.0, 3).project(tensor((3.0, -1.0, 0.25), dtype), weights)
    assert x.isfinite().all()
    assert KINDS[name].outside(fractions(x), Fraction(1)) <= 32 * EPS[dtype]
    assert w[2] != 1e300 or x[2] == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("growth", [0, 3, 5])
@pytest.mark.parametrize("decades", [16, 30])
@kinds
def test_weights_of_all_sizes(name: str, decades: int, growth: int) -> None:
    """Twenty elements with twenty sizes of weights, of which each counts at another multiplier, are solved as well."""
    w = [10.0 ** (-decades * i / 19) for i in range(20)]
    b = [1.00003, *(1e-3 * 10.0 ** (growth * i / 19) for i in range(1, 20))]
    if name != "HalfSpace":
        problem = Problem(tuple(b), tuple(w), 1.0)
        torch.testing.assert_close(problem.projected(name), problem.solved(name), rtol=0, atol=1e-11)


@pytest.mark.parametrize("unit", [2.0**-90, 2.0**90])
@dtypes
@pytest.mark.parametrize("name", VECTORS)
def test_units(name: str, dtype: torch.dtype, unit: float) -> None:
    """A problem in other units has its solution in these, also where squares leave the range; so has a normal."""
    b, w = tensor((3.0, -2.0, 2.5), dtype), tensor((1.0, 2.0, 0.5), dtype)
    constraint = KINDS[name].make(1.0, 3)
    solutions = [KINDS[name].make(unit, 3).project(b * unit, w) / unit]
    if isinstance(constraint, HalfSpace):
        solutions.append(HalfSpace(constraint.normal * unit, constraint.offset * unit).project(b, w))
    for solution in solutions:
        torch.testing.assert_close(solution, constraint.project(b, w), rtol=4 * EPS[dtype], atol=0)


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**40, 1e-9, 7.0])
@kinds
def test_weights_count_by_their_ratios(name: str, factor: float) -> None:
    """All weights multiplied by one number change nothing."""
    b, w = tensor([3.0, -1.0, 0.25, 2.0]), tensor([0.3, 1.7, 0.1, 1.0])
    constraint = KINDS[name].make(1.0, 4)
    torch.testing.assert_close(constraint.project(b, w * factor), constraint.project(b, w), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (0, 3)], ids=str)
@kinds
def test_shapes_without_dimensions_or_elements(name: str, shape: tuple[int, ...]) -> None:
    """A number is a vector of one element, and what has no elements or rows comes back."""
    normal = {"HalfSpace": HalfSpace(tensor(1.0), 1.0)} if shape == () else {}
    for constraint in (normal.get(name, KINDS[name].make(1.0, 3)), *([rows_of(name)] if len(shape) > 1 else [])):
        x = constraint.project(tensor(-4.0).expand(shape), tensor(0.3).expand(shape))
        assert x.shape == shape
        assert shape or x == Problem((-4.0,), (1.0,), 1.0).solved(name)


@pytest.mark.parametrize("position", [0, 1, 2])
@kinds
def test_nan(name: str, position: int) -> None:
    """NaN comes through, in its row alone, and stops nothing."""
    clean = torch.tensor([[3.0, -1.0, 0.25], [0.1, 5.0, -2.0]])
    b = clean.clone()
    b[0, position] = NAN
    x, expected = (rows_of(name).project(it, torch.ones(2, 3)) for it in (b, clean))
    assert x[0, position].isnan()
    assert same_bits(x[1], expected[1])
    assert KINDS[name].make(1.0, 3).project(b[0], torch.ones(3))[position].isnan()


@pytest.mark.parametrize("name", VECTORS)
def test_memory(name: str) -> None:
    """Nothing that is given is changed or returned; views, transposed tensors and expanded weights are as any other."""
    b, w = torch.randn(3, 6, dtype=torch.float64)[:, ::2] * 3, torch.rand(3, 1, dtype=torch.float64).expand(3, 3)
    for constraint in (rows_of(name), L2Ball(1.0)):
        expected = constraint.project(b.contiguous(), w.contiguous())
        for x in (b, b.t().contiguous().t(), expected.clone()):
            before, weights = x.clone(), w.clone()
            result = constraint.project(x, w)
            torch.testing.assert_close(result, expected, rtol=1e-15, atol=1e-15)
            assert same_bits(x, before)
            assert same_bits(w, weights)
            assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@pytest.mark.parametrize("name", VECTORS)
def test_rows_are_flattened(name: str) -> None:
    """With `rows` each x[i] is a vector, of whatever dimensions."""
    b, w = torch.randn(4, 2, 3, dtype=torch.float64) * 3, torch.rand(4, 2, 3, dtype=torch.float64) + 0.1
    matrices = HalfSpace(tensor(NORMAL).reshape(2, 3), 1.0, rows=True)
    constraint = matrices if name == "HalfSpace" else rows_of(name)
    expected = [KINDS[name].make(1.0, 6).project(x.ravel(), y.ravel()) for x, y in zip(b, w, strict=True)]
    torch.testing.assert_close(constraint.project(b, w).flatten(1), torch.stack(expected), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("weights", [[[0.7, 1.3, 2.1], [0.4, 3.0, 1.0]], [[1.0] * 3] * 2], ids=["unequal", "equal"])
@pytest.mark.parametrize("shift", [0.0, 3.0], ids=["near", "far"])
@kinds
def test_derivatives(name: str, shift: float, weights: list[list[float]]) -> None:
    """Autograd has the derivatives for the point and the weights, as finite differences confirm."""
    b = (tensor([[0.4, -0.3, 0.35], [1.9, 0.7, 1.1]]) + shift).requires_grad_()
    w = tensor(weights).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: rows_of(name).project(x, y) + 0 * y, (b, w))


@pytest.mark.parametrize("name", ["Box", "L2Ball", "L1Ball", "HalfSpace"])
def test_derivatives_at_zero(name: str) -> None:
    """A parameter that is all zeros, inside the set, is not moved, and has the derivatives of one that is not."""
    b, w = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    gradients = torch.autograd.grad((KINDS[name].make(1.0, 3).project(b, w) + 0 * w).sum(), (b, w))
    assert [gradient.tolist() for gradient in gradients] == [[1.0] * 3, [0.0] * 3]


# -- what cannot be a set, or a parameter in it

SIZED = {L2Ball: "radius", L1Ball: "radius", Simplex: "total"}
SIZES = [0, -1.0, NAN, INF, -INF, True, np.bool_(True), "1", None, 1j, [1.0], torch.ones(2), 10**400]
NORMALS = [torch.zeros(2), tensor([1.0, NAN]), tensor([INF]), torch.ones(2).long(), torch.ones(2) * 1j, torch.ones(0)]
ERRORS: list[tuple[Callable[[Any], Any], str, str, list[Any]]] = [
    (lambda low: Box(low, 1.0), "low", "number", [NAN, INF, "0", True, None, 0j, torch.ones(2)]),
    (lambda high: Box(0.0, high), "high", "≥ low, which is 0", [-1, NAN, -INF, "1", True, None, [1.0]]),
    *((kind, name, "a number in [1e-30, 1e30]", SIZES) for kind, name in SIZED.items()),
    *((partial(kind, 1.0), "rows", "True or False", [1, None, "rows"]) for kind in (*SIZED, partial(HalfSpace, 1.0))),
    (lambda normal: HalfSpace(normal, 1.0), "normal", "a finite number", [0, NAN, INF, "1", True, None, 1j]),
    (lambda normal: HalfSpace(normal, 1.0), "normal", "of finite real numbers, not all 0", NORMALS),
    (lambda offset: HalfSpace(1.0, offset), "offset", "a finite number", [NAN, INF, "1", True, None, 1j]),
]


@pytest.mark.parametrize(
    ("make", "argument", "allowed", "value"),
    [
        pytest.param(*error, value, id=f"{i}-{error[1]}-{str(value)[:12]}")
        for i, (*error, values) in enumerate(ERRORS)
        for value in values
    ],
)
def test_what_is_no_set(make: Callable[[Any], Any], argument: str, allowed: str, value: Any) -> None:
    """An empty or unbounded set, and what is no number, is a ValueError with the class, the argument and the value."""
    with pytest.raises(ValueError, match=rf"^(Box|L2Ball|L1Ball|Simplex|HalfSpace): {argument} must be ") as error:
        make(value)
    assert allowed in str(error.value)
    assert repr(value) in str(error.value)


SHAPES: list[tuple[Constraint, Sequence[int], str | None]] = [
    (L2Ball(1.0, rows=True), (3,), "rows=True takes two dimensions or more, got the shape (3,)"),
    (HalfSpace(torch.ones(3), 1.0), (3, 1), "normal must have the shape (3, 1), got (3,)"),
    (HalfSpace(torch.ones(3), 1.0, rows=True), (3, 4), "normal must have the shape (4,), got (3,)"),
    (Simplex(2.0), (0,), "without elements nothing adds up to 2, got the shape (0,)"),
    (Simplex(rows=True), (2, 0), "without elements"),
    (Simplex(rows=True), (0, 2), None),
    (HalfSpace(torch.ones(3), 1.0, rows=True), (5, 3), None),
    (Box(0, 1), (0,), None),
]


@pytest.mark.parametrize(("constraint", "shape", "reason"), SHAPES, ids=str)
def test_shapes(constraint: Constraint, shape: Sequence[int], reason: str | None) -> None:
    """A set says why a parameter of some shape cannot be in it, and says nothing where it can."""
    refused = constraint.refuses(torch.Size(shape))
    assert refused is None if reason is None else reason in (refused or "")


def test_sets_are_values() -> None:
    """Sets cannot be changed, and are equal where their numbers are; a half-space keeps a normal of its own."""
    with pytest.raises(ValueError, match="Box: one of low and high must be finite, got -inf and inf"):
        Box(-INF, INF)
    assert Box(0, 1) == Box(0.0, np.float32(1.0))
    assert hash(L2Ball(1)) == hash(L2Ball(torch.tensor(1.0)))
    assert Simplex() != Simplex(2.0)
    normal = torch.ones(2, requires_grad=True)
    half = HalfSpace(normal, 1.0)
    with torch.no_grad():
        normal.zero_()
    assert half.project(torch.tensor([3.0, 1.0]), torch.ones(2)).tolist() == [1.5, -0.5]
    assert isinstance(half.normal, Tensor)
    assert not half.normal.requires_grad
    with pytest.raises(FrozenInstanceError):
        half.offset = 2.0
