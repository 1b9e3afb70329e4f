"""Algorithm 1 of the paper in full, against a transcription of its own; and every member with a projection at the end.

The transcription is NumPy in float64, and finds the nearest points by bisection on the multiplier of the KKT
conditions; it shares no code with the library.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from family import METRIC, has, maker
from third_party import OPTIMIZERS
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive import TENSOR, Box, Constraint, HalfSpace, L1Ball, L2Ball, NonNegative, Padam, Simplex, Switch
from partial_adaptive.execution.compiled import cpp, launch
from partial_adaptive.execution.compiled.program import trace
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.testing import Make
from partial_adaptive.testing.harness import contents, gradient, parameters, same, train, values

Array = np.ndarray[Any, np.dtype[np.float64]]
Project = Callable[[Array, Array], Array]  # from points and weights, a vector in each row

PARTIALS = np.array([0, 1 / 16, 1 / 8, 0.3, 1 / 2])
ALPHA, BETA1, BETA2, LAMBDA, EPS, STEPS = 0.3, 0.9, 0.999, 0.99, 1e-8, 200
WHOLE, ROWS = (3, 4), (3, 2, 2)  # of a parameter that is one vector, and of one whose rows are
NORMAL = np.array([1.0, -0.5, 2.0, 0.25])  # again and again


# -- the transcription


def bisected(point: Callable[[Array], Array], measure: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The point of the multiplier at which a measure that falls from above 0 passes it, in each row."""
    while True:
        middle = (low + high) / 2
        if ((middle == low) | (middle == high)).all():
            return point(middle)
        above = measure(point(middle)) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)


def total(x: Array) -> Array:
    return x.sum(1, keepdims=True)


def on_simplex(size: float) -> Project:
    """X = max(b − τ/w, 0)."""

    def project(b: Array, w: Array) -> Array:
        low, high = (w * (b - size)).min(1, keepdims=True), (w * b).max(1, keepdims=True)
        return bisected(lambda tau: np.maximum(b - tau / w, 0), lambda x: total(x) - size, low, high)

    return project


def in_l1_ball(size: float) -> Project:
    def project(b: Array, w: Array) -> Array:
        nearest = np.sign(b) * on_simplex(size)(np.abs(b), w)
        return np.where(total(np.abs(b)) > size, nearest, b)

    return project


def in_l2_ball(size: float) -> Project:
    """X = wb/(w + μ)."""

    def project(b: Array, w: Array) -> Array:
        high = np.where(total(b * b) > size**2, w.max(1, keepdims=True) * np.sqrt(total(b * b)) / size, 0)
        nearest = bisected(lambda mu: w * b / (w + mu), lambda x: total(x * x) - size**2, 0 * high, high)
        return np.where(high > 0, nearest, b)

    return project


def in_half_space(offset: float) -> Project:
    """X = b − μa/w."""

    def project(b: Array, w: Array) -> Array:
        a = np.resize(NORMAL, b.shape[1])
        bound = (total(np.abs(a * b)) + abs(offset)) * w.max(1, keepdims=True) / (a * a).max()
        high = np.where(total(a * b) > offset, bound, 0)
        nearest = bisected(lambda mu: b - mu * a / w, lambda x: total(a * x) - offset, 0 * high, high)
        return np.where(high > 0, nearest, b)

    return project


def normal(shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.resize(NORMAL, math.prod(shape)).reshape(shape))


@dataclass(frozen=True)
class Case:
    """A feasible set: the library's for a parameter and for one of rows, and how it is projected onto here."""

    whole: Constraint
    rows: Constraint
    project: Project


CASES: dict[str, Case] = {
    "Box": Case(Box(-0.25, 0.5), Box(-0.25, 0.5), lambda b, w: np.minimum(np.maximum(b, -0.25), 0.5)),
    "NonNegative": Case(NonNegative(), NonNegative(), lambda b, w: np.maximum(b, 0)),
    "L2Ball": Case(L2Ball(0.8), L2Ball(0.8, rows=True), in_l2_ball(0.8)),
    "L1Ball": Case(L1Ball(1.2), L1Ball(1.2, rows=True), in_l1_ball(1.2)),
    "Simplex": Case(Simplex(1.0), Simplex(1.0, rows=True), on_simplex(1.0)),
    "HalfSpace": Case(HalfSpace(normal(WHOLE), 0.1), HalfSpace(normal(ROWS[1:]), 0.1, rows=True), in_half_space(0.1)),
}
MODES: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}, {"capturable": True}, {"differentiable": True}]


def targets() -> tuple[Array, Array]:
    """Of the online problems ½‖θ − z‖²: z for each step and both parameters, in and out of the sets."""
    generator = np.random.default_rng(0)
    drift = np.sin(np.arange(STEPS) / 15)
    return tuple(
        generator.normal(size=(STEPS, *shape)) / 4
        + drift.reshape(-1, *(1 for _ in shape)) * generator.normal(size=shape)
        for shape in (WHOLE, ROWS)
    )


@cache
def transcribed(name: str) -> tuple[list[Array], list[float]]:
    """Algorithm 1 for all exponents at once: the path of each parameter, and how often it has been projected."""
    project, paths, active = CASES[name].project, [], []
    for z, rows in zip(targets(), (1, ROWS[0]), strict=True):
        p = PARTIALS.reshape(-1, *(1 for _ in z.shape[1:]))
        m = v = largest = theta = np.zeros((len(PARTIALS), *z.shape[1:]))
        path, moved = [], 0
        for t in range(1, STEPS + 1):
            g = theta - z[t - 1]
            beta1 = BETA1 * LAMBDA ** (t - 1)
            m = beta1 * m + (1 - beta1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            largest = np.maximum(largest, v)
            w = (np.sqrt(largest) + EPS) ** (2 * p)
            b = theta - ALPHA / np.sqrt(t) * m / w
            vectors = (len(PARTIALS) * rows, -1)
            theta = project(b.reshape(vectors), w.reshape(vectors)).reshape(b.shape)
            moved += np.abs(theta - b).max() > 1e-6
            path.append(theta)
        paths.append(np.stack(path))
        active.append(moved / STEPS)
    return paths, active


def run(name: str, p: float, **mode: bool) -> list[Array]:
    """The paths of the library's parameters."""
    params = [torch.zeros(shape, dtype=torch.float64) for shape in (WHOLE, ROWS)]
    groups = [
        {"params": [param], "constraint": constraint}
        for param, constraint in zip(params, (CASES[name].whole, CASES[name].rows), strict=True)
    ]
    optimizer = Padam(groups, lr=ALPHA, betas=(BETA1, BETA2), eps=EPS, partial=p, bias_correction="none", **mode)
    schedule = pa.Schedule(optimizer, lr=pa.InverseSqrt(), beta1=pa.Geometric(LAMBDA))
    paths: list[list[Array]] = [[], []]
    of_step = [torch.from_numpy(z) for z in targets()]
    for step in range(STEPS):
        for param, z in zip(params, of_step, strict=True):
            param.grad = param.detach() - z[step]
        optimizer.step()
        schedule.step()
        for param, path in zip(params, paths, strict=True):
            path.append(param.detach().numpy().copy())
    return [np.stack(path) for path in paths]


@pytest.mark.parametrize("name", CASES)
def test_the_sets_matter(name: str) -> None:
    """The comparisons below are of projections: of the steps of the transcription more than a fifth ends at a boundary.

    Not all do, but on the simplex, which has no inside; and the exponents end in different places.
    """
    paths, active = transcribed(name)
    for path, share in zip(paths, active, strict=True):
        assert share > 0.2
        assert np.unique(path[-1].reshape(len(PARTIALS), -1).round(6), axis=0).shape[0] > 1


@pytest.mark.parametrize("mode", [*MODES, {"fused": True}], ids=str)
@pytest.mark.parametrize("p", PARTIALS.tolist())
@pytest.mark.parametrize("name", CASES)
def test_algorithm_1(name: str, p: float, mode: dict[str, Any]) -> None:
    """Two hundred steps agree with the transcription to 1e-12; fused does so, or says by name why it cannot."""
    if mode.get("fused") and CASES[name].whole.needs is TENSOR:
        with pytest.raises(
            RuntimeError, match=rf"Padam: fused=True .* {name} must see whole TENSORs; use foreach=True"
        ):
            run(name, p, **mode)
        return
    paths, _ = transcribed(name)
    for ours, expected in zip(run(name, p, **mode), paths, strict=True):
        np.testing.assert_allclose(ours, expected[:, PARTIALS.tolist().index(p)], rtol=0, atol=1e-12)


# -- every member: the step that it takes without a set, and then a projection with the weights that it has divided by

GROUPS: list[tuple[tuple[int, ...], Constraint | None]] = [
    ((3, 4), Box(-0.5, 0.7)),
    ((5,), NonNegative()),
    ((3, 4), None),
    ((), Box(-math.inf, 0.1)),
    ((3, 4), L2Ball(1.0)),
    ((2, 3, 2), L2Ball(0.5, rows=True)),
    ((5,), L1Ball(1.5)),
    ((3, 4), Simplex(2.0)),
    ((4, 3), Simplex(rows=True)),
    ((5,), HalfSpace(normal((5,)), -0.5)),
    ((3, 4), HalfSpace(-1.0, -1.0, rows=True)),
]
ELEMENTWISE = [group for group in GROUPS if group[1] is None or group[1].needs is not TENSOR]


MAKES: dict[str, Make] = {name: maker(name) for name in METRIC} | {
    "padam-none": maker("padam", bias_correction="none"),
    "padam-adam-amsgrad=False": maker("padam", bias_correction="adam", amsgrad=False),
    "partial_rmsprop-momentum": maker("partial_rmsprop", momentum=0.9),
    "partial_rmsprop-centered": maker("partial_rmsprop", momentum=0.9, centered=True),
    "partial_adagrad-mean": maker("partial_adagrad", mean=True),
    "partial_nadam-none": maker("partial_nadam", bias_correction="none"),
}
OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "decay": lambda: {"weight_decay": 0.1},
    "decoupled": lambda: {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "maximize": lambda: {"maximize": True, "foreach": True},
    "tensors": lambda: {
        "lr": torch.tensor(0.1, dtype=torch.float64),
        "partial": torch.tensor(0.3, dtype=torch.float64),
    },
    "tensors on the device": lambda: {
        "lr": torch.tensor(0.1, dtype=torch.float64),
        "partial": torch.tensor(0.3, dtype=torch.float64),
        "capturable": True,
    },
}


def check_member(make: Make, groups: Sequence[tuple[tuple[int, ...], Constraint | None]], **options: Any) -> None:
    """Compare six steps, each from the same parameters and state, with the step without sets and a projection after."""
    params, twins = (parameters([shape for shape, _ in groups]) for _ in range(2))
    described = [
        {"params": [param], "constraint": constraint} for param, (_, constraint) in zip(params, groups, strict=True)
    ]
    constrained, free = make(described, **options), make([{"params": [twin]} for twin in twins], **options)
    moved = 0
    for step in range(6):
        weights = []
        for i, (param, twin) in enumerate(zip(params, twins, strict=True)):
            param.grad, twin.grad = gradient(param, step, i), gradient(param, step, i)
            twin.data.copy_(param.data)
            free.state[twin] = {name: value.clone() for name, value in constrained.state.get(param, {}).items()}
            scale = constrained.scale_of(param)
            p = float(constrained.param_groups[i]["partial"])
            weights.append(torch.ones_like(param.detach()) if scale is None else scale ** (2 * p))
        constrained.step()
        free.step()
        for i, (_, constraint) in enumerate(groups):
            b = twins[i].detach()
            expected = b if constraint is None else constraint.project(b, weights[i])
            same([params[i].detach()], [expected], f"{constraint} is not where the step ends", 1e-12)
            moved += not torch.equal(expected, b)
        same(contents(constrained)[len(params) :], contents(free)[len(twins) :], "a set has changed the state", 1e-14)
    assert moved >= 2 * len(groups)


@pytest.mark.parametrize("p", [0, 1 / 8, 1 / 2])
@pytest.mark.parametrize("name", [*MAKES, *OPTIMIZERS])
def test_every_member(name: str, p: float) -> None:
    """Whatever divides the step, rows and columns too, a step ends at the nearest point in the metric s^(2p)."""
    check_member((MAKES | OPTIMIZERS)[name], GROUPS, partial=p)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", [*MAKES, *OPTIMIZERS])
def test_every_option(name: str, option: str) -> None:
    """So it does with decay of either kind, ascending, with tensors for α and p, and where those stay on the device."""
    check_member((MAKES | OPTIMIZERS)[name], GROUPS, **OPTIONS[option]())


@pytest.mark.parametrize("p", [0, 1 / 8, 1 / 2])
@pytest.mark.parametrize("name", [name for name in MAKES if has(name.partition("-")[0], {"fused": True})])
def test_every_member_fused(name: str, p: float) -> None:
    """So do sets of single elements in compiled steps."""
    check_member(MAKES[name], ELEMENTWISE, partial=p, fused=True)


@dataclass(frozen=True)
class ZeroSum(Constraint):
    """A user's set, Σxᵢ = 0: x = b − τ/w, which takes a weight for each element."""

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        inverse = weights.reciprocal()
        return x - inverse * (x.sum() / inverse.sum())


@pytest.mark.parametrize("p", [0, 1 / 8])
@pytest.mark.parametrize("name", ["padam", "adam-mini", "factored"])
def test_users_sets_get_a_weight_for_each_element(name: str, p: float) -> None:
    """Also where there is one for a row, and where p = 0 and there is none."""
    params = parameters([(3, 4), (5,)])
    train((MAKES | OPTIMIZERS)[name](params, partial=p, constraint=ZeroSum()))
    assert max(abs(param.sum().item()) for param in params) < 1e-14


@pytest.mark.parametrize("name", [name for name in pa.MEMBERS if name not in METRIC])
def test_members_without_a_metric(name: str) -> None:
    """A member whose P is a matrix takes no set: the projection would be in another metric."""
    optimizer = maker(name)(parameters())
    optimizer.param_groups[0]["constraint"] = Box(-1, 1)
    with pytest.raises(TypeError, match="constraint takes a second moment with a value per element"):
        train(optimizer, 1)


class Signs(pa.SecondMoment):
    """A second moment without a value per element."""

    def divide(self, numerator: Tensor, grad: Tensor, hyper: Any) -> Tensor:
        return numerator.sign()


def test_second_moments_without_weights() -> None:
    """A set in the metric of P needs P's values: with any other second moment it is a TypeError, at every door."""

    def make(estimator: Any, *groups: dict[str, Any], **options: Any) -> pa.PartialAdaptiveOptimizer:
        return pa.PartialAdaptiveOptimizer(groups or parameters(), {"lr": 0.1, **options}, estimator=estimator)

    message = "constraint takes a second moment with a value per element, an Estimator: .* got Signs"
    for attempt in (
        lambda: make(Signs(), constraint=Box(0, 1)),
        lambda: make(Signs(), constraint=Box(0, 1), partial=0.0),
        lambda: make(Signs(), {"params": parameters()}, {"params": parameters(), "constraint": {"set": "NonNegative"}}),
        lambda: make(Signs()).add_param_group({"params": parameters(), "constraint": Box(0, 1)}),
        lambda: make(Switch("amsgrad", ExpAvgSq(), Signs()), constraint=Box(0, 1), amsgrad=False),
    ):
        with pytest.raises(TypeError, match=message):
            attempt()
    make(Switch("amsgrad", ExpAvgSq(), Signs()), constraint=Box(0, 1), amsgrad=True)
    optimizer = make(Signs(), {"params": parameters()}, {"params": parameters()})
    before = contents(optimizer)
    optimizer.param_groups[1]["constraint"] = Box(0, 1)
    with pytest.raises(TypeError, match=message):
        train(optimizer, 1)
    same(contents(optimizer), before, "a refused step has changed something")


# -- distributed parameters


@pytest.mark.parametrize("placement", [Shard(0), Replicate()], ids=str)
@pytest.mark.parametrize("mode", [*MODES[:2], {"fused": True}], ids=str)
@pytest.mark.parametrize("constraint", [Box(-0.5, 0.5), NonNegative()], ids=repr)
def test_distributed_parameters(constraint: Constraint, mode: dict[str, Any], placement: Any, mesh: DeviceMesh) -> None:
    """A DTensor is in a set of single elements as a plain parameter is."""
    (plain,) = parameters([(4, 3)])
    param = Parameter(distribute_tensor(plain.detach().clone(), mesh, [placement]))
    ours, reference = Padam([param], constraint=constraint, **mode), Padam([plain], constraint=constraint)
    for step in range(3):
        plain.grad = gradient(plain, step)
        param.grad = distribute_tensor(plain.grad.clone(), mesh, [placement])
        ours.step()
        reference.step()
    same([param.full_tensor().detach()], values([plain]), "a DTensor ends elsewhere", 1e-12)


COMPLEX: dict[str, Constraint] = {
    "Box": Box(-0.1, 0.2),
    "NonNegative": NonNegative(),
    "L2Ball": L2Ball(0.5),
    "L2Ball of numbers": L2Ball(0.5, rows=True),
    "L1Ball": L1Ball(0.5),
    "Simplex of numbers": Simplex(0.5, rows=True),
    "HalfSpace": HalfSpace(torch.tensor([[1.0, -2.0], [0.5, 1.0], [3.0, 1.0]]), 0.1),
    "HalfSpace of numbers": HalfSpace(torch.tensor([1.0, -2.0]), 0.1, rows=True),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_parameters(name: str) -> None:
    """A complex parameter is in the set as its real and imaginary parts side by side are; a row is then a number."""
    values = torch.randn(3, 2, dtype=torch.float64)
    numbers, pairs = Parameter(torch.view_as_complex(values.clone())), Parameter(values.clone())
    optimizers = [Padam([param], lr=0.1, constraint=COMPLEX[name]) for param in (numbers, pairs)]
    for _ in range(3):
        gradient = torch.randn(3, 2, dtype=torch.float64)
        numbers.grad, pairs.grad = torch.view_as_complex(gradient), gradient
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(torch.view_as_real(numbers.detach()), pairs.detach())
    assert name != "L2Ball of numbers" or numbers.abs().max() <= 0.5 * (1 + 1e-12)


# -- the fused box


def source_of(optimizer: pa.PartialAdaptiveOptimizer, dtype: torch.dtype) -> str:
    """The compiled loop over the elements."""
    (group,), recipe = optimizer.param_groups, optimizer.recipe
    table = recipe.table
    program = trace(recipe.rule(group, scaled=True), group, table, scaled=False)
    return cpp.source(program, dict.fromkeys((*program.elements, *program.scalars), dtype))


@pytest.mark.parametrize(
    ("constraint", "clamps"),
    [
        (None, []),
        (Box(-0.25, 0.5), ["max(x, real(-0.25))", "min(x, real(0.5))"]),
        (Box(-0.25, math.inf), ["max(x, real(-0.25))"]),
        (Box(-math.inf, 0.5), ["min(x, real(0.5))"]),
        (NonNegative(), ["max(x, real(0.0))"]),
    ],
    ids=str,
)
def test_the_clamp_is_in_the_kernel(constraint: Constraint | None, clamps: list[str]) -> None:
    """The compiled loop is that of the step without a box, and of what it writes to the parameter one clamp more."""
    plain, ours = (
        source_of(Padam([torch.zeros(1)], fused=True, constraint=it), torch.float32) for it in (None, constraint)
    )
    added = [line for line in ours.splitlines() if "real(" in line and line not in plain.splitlines()]
    found = [line.partition("rule::")[2].rstrip(";") for line in added]
    assert [call.replace(call.partition("(")[2].partition(",")[0], "x") for call in found] == clamps


@pytest.mark.parametrize("constraint", [Box(-0.25, 0.5), NonNegative()], ids=str)
def test_one_launch(constraint: Constraint, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program is traced and one kernel called at each step, for all parameters, as without a box."""
    traced, called = [], []
    monkeypatch.setattr(launch, "trace", lambda *args, **kwargs: traced.append(1) or trace(*args, **kwargs))
    call = cpp.Kernel.__call__
    monkeypatch.setattr(cpp.Kernel, "__call__", lambda *args: called.append(1) or call(*args))
    train(Padam(parameters(), fused=True, constraint=constraint), 4)
    assert (len(traced), len(called)) == (1, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("p", PARTIALS.tolist())
@pytest.mark.parametrize("constraint", [Box(-0.1, 0.3), Box(-math.inf, 0.3), NonNegative()], ids=str)
def test_the_fused_box_clamps(constraint: Constraint, p: float, dtype: torch.dtype) -> None:
    """A compiled step with a box is the compiled step without, clamped, to the bit, and NaN comes through."""
    shapes = [(50, 41), (7,), ()]
    params, twins = parameters(shapes, dtype), parameters(shapes, dtype)
    optimizer = Padam(params, lr=0.1, partial=p, fused=True, constraint=constraint)
    free = Padam(twins, lr=0.1, partial=p, fused=True)
    for step in range(4):
        for i, (param, twin) in enumerate(zip(params, twins, strict=True)):
            param.grad = gradient(param, step, i)
            if step == 3 and param.ndim:
                param.grad[0] = math.nan
            twin.grad = param.grad.clone()
            twin.data.copy_(param.data)
        optimizer.step()
        free.step()
        for param, twin in zip(params, twins, strict=True):
            expected = constraint.project(twin.detach(), 1.0)
            torch.testing.assert_close(param.detach(), expected, rtol=0, atol=0, equal_nan=True)
    assert params[1].isnan().sum() == 1
