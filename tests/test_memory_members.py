"""The members that keep less than a value per element: what they compute, keep, load and refuse."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from family import WHOLE, WHOLE_MODES, maker, plain
from numpy.typing import NDArray
from torch.optim import Adafactor

import partial_adaptive as pa
from partial_adaptive.testing.harness import contents, default_dtype, gradient, params_of, same, train, values

Array = NDArray[np.float64]
Step = Callable[[Array, int], None]  # takes the gradient of step t = 1, 2, … and changes θ in place
STEPS, LR, EPS, DECAY, BETAS = 12, 0.05, 1e-6, 0.1, (0.9, 0.99)
EXPONENTS = (0.0, 1 / 8, 0.3, 1 / 2)
SHAPES = [(4, 6), (2, 3, 2), (6,), (2, 1, 3, 4)]


def adam_mini(theta: Array, p: float, blocks: str, heads: int) -> Step:
    """Algorithm 1 of the Adam-mini paper: Adam whose v is one number for each block of θ."""
    parts = {"row": len(theta), "head": heads, "tensor": 1}[blocks]
    m, v = np.zeros_like(theta), np.zeros(parts)

    def step(g: Array, t: int) -> None:
        m[...] = BETAS[0] * m + (1 - BETAS[0]) * g
        for block, (of_g, of_m, of_theta) in enumerate(zip(*(np.split(x, parts) for x in (g, m, theta)), strict=True)):
            v[block] = BETAS[1] * v[block] + (1 - BETAS[1]) * np.mean(of_g * of_g)
            scale = np.sqrt(v[block] / (1 - BETAS[1] ** t)) + EPS
            of_theta -= LR * of_m / (1 - BETAS[0] ** t) / scale ** (2 * p)

    return step


def sm3(theta: Array, p: float, momentum: float) -> Step:
    """SM3-II with the cover of a matrix by its rows and columns; of a vector by its elements."""
    matrix = theta.reshape(len(theta), -1)
    of_rows, of_columns, ball = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[1]), np.zeros_like(matrix)

    def step(g: Array, t: int) -> None:
        g = g.reshape(matrix.shape)
        v = np.empty_like(matrix)
        for i, j in np.ndindex(*matrix.shape):
            least = of_rows[i] if theta.ndim == 1 else min(of_rows[i], of_columns[j])
            v[i, j] = least + g[i, j] ** 2
        of_rows[:], of_columns[:] = v.max(1), v.max(0)
        ball[:] = momentum * ball + g / (np.sqrt(v) + EPS) ** (2 * p)
        matrix[:] -= LR * ball

    return step


def adafactor(theta: Array, p: float, d: float, lr: float) -> Step:
    """Algorithms 4 and 5 of the Adafactor paper, with p, and decay as torch has it."""
    floor, each = float(np.finfo(np.float64).eps), np.zeros_like(theta)
    rows, columns = np.zeros((*theta.shape[:-1], 1)), np.zeros((*theta.shape[:-2], 1, theta.shape[-1]))

    def step(g: Array, t: int) -> None:
        weight = t**-0.8
        if theta.ndim == 1:
            each[...] = (1 - weight) * each + weight * g * g
            v = each
        else:
            rows[...] = (1 - weight) * rows + weight * (g * g).mean(-1, keepdims=True)
            columns[...] = (1 - weight) * columns + weight * (g * g).mean(-2, keepdims=True)
            v = rows * columns / rows.mean(-2, keepdims=True)
        x = g / np.sqrt(np.maximum(v, floor**2)) ** (2 * p)
        x = x / max(1.0, float(np.sqrt((x * x).mean())) / d)
        size = max(1e-3, float(np.sqrt((theta * theta).mean())))
        theta[...] = (1 - lr * DECAY) * theta - min(lr, t**-0.5) * size * x

    return step


def follows(make: Callable[..., Any], transcription: Callable[[Array], Step], mode: dict[str, Any]) -> None:
    """In a mode the member goes where the transcription goes, for all shapes."""
    with default_dtype(torch.float64):
        params = plain(SHAPES)
        optimizer = make(params, **mode)
        right = [param.numpy().copy() for param in params]
        steps = [transcription(theta) for theta in right]
        for t in range(1, STEPS + 1):
            for i, (param, step) in enumerate(zip(params, steps, strict=True)):
                param.grad = gradient(param, t, i)
                step(param.grad.numpy(), t)
            optimizer.step()
        same(values(params), [torch.from_numpy(theta) for theta in right], f"it goes elsewhere ({mode})", 1e-12)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize(("blocks", "heads"), [("row", 1), ("head", 2), ("head", 1), ("tensor", 1)], ids=str)
def test_adam_mini(blocks: str, heads: int, p: float, mode: dict[str, Any]) -> None:
    """Adam-mini with blocks of rows, heads and whole tensors is its algorithm, for every p and in every mode."""
    make = maker("partial_adam_mini", lr=LR, betas=BETAS, eps=EPS, blocks=blocks, heads=heads, partial=p)
    follows(make, lambda theta: adam_mini(theta, p, blocks, heads), mode)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sm3(momentum: float, p: float, mode: dict[str, Any]) -> None:
    """SM3 is SM3-II, more dimensions as a matrix of rows x[i], vectors as in Adagrad; its momentum comes after."""
    make = maker("partial_sm3", lr=LR, eps=EPS, momentum=momentum, partial=p)
    follows(make, lambda theta: sm3(theta, p, momentum), mode)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize(("d", "lr"), [(1.0, 0.01), (1.0, 10.0), (100.0, 0.4)], ids=str)
def test_adafactor(d: float, lr: float, p: float, mode: dict[str, Any]) -> None:
    """Adafactor is its algorithm where clipping and the relative step are at work, and where they are not."""
    make = maker("partial_adafactor", lr=lr, d=d, weight_decay=DECAY, partial=p)
    follows(make, lambda theta: adafactor(theta, p, d, lr), mode)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"d": 1.0, "lr": 10.0},  # the relative step 1/√t is less than lr, always
        {"d": 1.0, "lr": 0.3, "weight_decay": 0.1},  # and from the twelfth step on
        {"d": 50.0, "eps": (1e-3, 0.5)},  # nothing is clipped, the floors count
        {"beta2_decay": -0.3, "maximize": True},
    ],
    ids=str,
)
def test_adafactor_is_torch(options: dict[str, Any], mode: dict[str, Any]) -> None:
    """At p = 1/2 it is torch.optim.Adafactor, with gradients of very different sizes."""
    with default_dtype(torch.float64):
        theirs, ours = plain(SHAPES), plain(SHAPES)
        reference = Adafactor(theirs, foreach=False, **options)
        optimizer = pa.PartialAdafactor(ours, partial=0.5, **options, **mode)
        for t in range(20):
            for i, (param, twin) in enumerate(zip(theirs, ours, strict=True)):
                param.grad = twin.grad = gradient(param, t, i) * 10.0 ** (t % 5 - 2)
            reference.step()
            optimizer.step()
        same(ours, theirs, "it is not torch's", 1e-12)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("to_torch", [False, True])
def test_adafactor_checkpoints(to_torch: bool, foreach: bool) -> None:
    """A checkpoint of torch's goes on here and one of ours in torch, exactly, vectors and matrices."""
    params = plain(SHAPES)
    options = {"lr": 0.3, "d": 1.5, "weight_decay": 0.1, "foreach": foreach}
    make: list[Callable[..., Any]] = [Adafactor, maker("partial_adafactor", partial=0.5)]
    first, second = make[::-1] if to_torch else make
    source = first(params, **options)
    train(source, 5)
    copies = copy.deepcopy(params)
    resumed = second(copies)
    resumed.load_state_dict(copy.deepcopy(source.state_dict()))
    assert resumed.param_groups[0]["d"] == 1.5
    train(source, 5, start=5)
    train(resumed, 5, start=5)
    same(copies, params, "training does not go on", 1e-12)


# -- memory

BYTES: dict[str, tuple[float, float]] = {  # of state per parameter, in float32: of a 64 × 32 matrix, of a vector
    "padam": (12, 12),
    "partial_adam": (8, 8),
    "partial_nadam": (8, 8),
    "partial_rmsprop": (4, 4),
    "partial_adagrad": (4, 4),
    "partial_adamax": (8, 8),
    "partial_adadelta": (8, 8),
    "partial_adabelief": (8, 8),
    "partial_yogi": (8, 8),
    "partial_sign": (4, 4),
    "partial_adam_mini": (4 + 4 / 32, 8),  # the momentum, and a number for each row
    "partial_adafactor": (4 * (64 + 32) / (64 * 32), 4),
    "partial_sm3": (4 * (64 + 32) / (64 * 32), 4),
    "partial_muon": (4, 4),
    # The momentum; of each side a factor, its eigenvectors and eigenvalues; of vectors the diagonal of a factor.
    "partial_shampoo": (4 + 4 * (2 * 64**2 + 64 + 2 * 32**2 + 32) / (64 * 32), 8),
    "partial_soap": (8 + 4 * (2 * 64**2 + 2 * 32**2) / (64 * 32), 8),
}


def state_bytes(optimizer: pa.PartialAdaptiveOptimizer) -> list[float]:
    """Bytes of state per parameter, without counts and other single numbers, of each tensor."""
    return [
        sum(value.nbytes for value in optimizer.state[param].values() if value.ndim) / param.numel()
        for param in params_of(optimizer)
    ]


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_bytes_of_state(name: str) -> None:
    """Each member keeps what the table says and no more; it has a line in the table."""
    optimizer = maker(name)(plain([(64, 32), (32,)], torch.float32))
    train(optimizer, 2)
    assert state_bytes(optimizer) == list(BYTES[name])


@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("partial_adam_mini", {}, {"exp_avg": (64, 32), "exp_avg_sq": (64, 1)}),
        ("partial_adam_mini", {"blocks": "head", "heads": 4}, {"exp_avg": (64, 32), "exp_avg_sq": (4, 1)}),
        ("partial_adam_mini", {"blocks": "tensor"}, {"exp_avg": (64, 32), "exp_avg_sq": (1, 1)}),
        ("partial_adafactor", {}, {"row_var": (64, 1), "col_var": (1, 32), "variance": (0,)}),
        ("partial_sm3", {"momentum": 0.9}, {"row_max": (64, 1), "col_max": (1, 32), "momentum_buffer": (64, 32)}),
        ("partial_muon", {}, {"momentum_buffer": (64, 32)}),
    ],
    ids=str,
)
def test_shapes_of_state(name: str, options: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """State has the shapes of what it estimates, under torch's names where torch has them; at p = 0 none of that."""
    for partial in (1 / 8, 0.0):
        optimizer = maker(name, partial=partial, **options)(plain([(64, 32)]))
        train(optimizer, 1)
        (state,) = optimizer.state.values()
        counts = {"step", "estimator_step"}
        kept = {key: tuple(value.shape) for key, value in state.items() if key not in counts}
        assert kept == {key: shape if partial or shape == (64, 32) else (0,) for key, shape in shapes.items()}


# -- bad input


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
def test_heads_that_do_not_divide(mode: dict[str, Any]) -> None:
    """Rows that are not so many equal heads are refused by parameter and number, before any other has moved."""
    params = plain([(6, 2), (4, 6), (3,)])
    optimizer = pa.PartialAdamMini(list(zip("abc", params, strict=True)), blocks="head", heads=3, **mode)
    before = values(params)
    for i, param in enumerate(params):
        param.grad = gradient(param, 0, i)
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"PartialAdamMini: parameter 'b', of shape \(4, 6\).*4 rows are not 3 equal"
        ):
            optimizer.step()
    same(values(params), before, "the refused step has moved something")
    assert not optimizer.state


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("partial_adam_mini", {"blocks": "column"}),
        ("partial_adam_mini", {"blocks": None}),
        ("partial_adam_mini", {"heads": 0}),
        ("partial_adam_mini", {"heads": 1.5}),
        ("partial_adafactor", {"eps": (1e-30,)}),
        ("partial_adafactor", {"eps": (-1e-30, 1e-3)}),
        ("partial_adafactor", {"eps": 1e-3}),
        ("partial_adafactor", {"eps": (None, None)}),
        ("partial_adafactor", {"d": 0.5}),
        ("partial_adafactor", {"beta2_decay": 0.8}),
        ("partial_sm3", {"momentum": -0.1}),
    ],
    ids=str,
)
def test_bad_arguments(name: str, options: dict[str, Any]) -> None:
    """The error names the member, the argument and the value; a group that has it is not added."""
    ((argument, value),) = options.items()
    optimizer = pa.create(name, plain([(4, 3)]))
    attempts: list[Callable[[], object]] = [
        lambda: pa.create(name, plain([(4, 3)]), **options),
        lambda: optimizer.add_param_group({"params": plain([(4, 3)]), **options}),
    ]
    for attempt in attempts:
        with pytest.raises((ValueError, TypeError)) as error:
            attempt()
        for part in (pa.MEMBERS[name].cls.__name__, f"{argument} must be", repr(value)):
            assert part in str(error.value)
    assert len(optimizer.param_groups) == 1


def test_blocks_that_change() -> None:
    """Other blocks in mid-training do not fit the state: refused by name, and what was there goes on."""
    params = plain([(4, 6)])
    optimizer = pa.PartialAdamMini(params)
    train(optimizer, 2)
    before = contents(optimizer)
    optimizer.param_groups[0]["blocks"] = "tensor"
    with pytest.raises(RuntimeError, match=r"state\['exp_avg_sq'\]"):
        train(optimizer, 1, start=2)
    same(contents(optimizer), before, "the refused step has changed something")
    optimizer.param_groups[0]["blocks"] = "row"
    train(optimizer, 1, start=2)


@pytest.mark.parametrize(("name", "dtype"), [*itertools.product(WHOLE, (torch.complex64, torch.float32))], ids=str)
def test_small_tensors(name: str, dtype: torch.dtype) -> None:
    """Numbers, empty tensors, single rows and columns, complex or not, are trained and stay finite."""
    params = plain([(), (0,), (1,), (0, 3), (3, 0), (1, 5), (5, 1), (2, 0, 3)], dtype)
    optimizer = maker(name)(params)
    train(optimizer, 3)
    assert all(bool(tensor.isfinite().all()) for tensor in contents(optimizer))
