"""PartialShampoo and PartialSOAP beside transcriptions in NumPy float64, and what they promise on their own."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from family import WHOLE_MODES, maker, plain
from kronecker_reference import shampoo, soap
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.rules.hyperparameters import Hyper
from partial_adaptive.rules.kronecker import eigen
from partial_adaptive.testing.harness import contents, default_dtype, gradient, same, train, values

Array = np.ndarray[Any, Any]
EXPONENTS = (0.0, 1 / 16, 1 / 8, 0.3, 1 / 2)
MEMBERS = ["partial_shampoo", "partial_soap"]
SHAPES = [(4, 4), (5, 4), (4, 5), (3, 2, 2), (4, 2, 1, 2)]  # of which two gradients make factors of full rank
MOVING = (0.5, 0.3, 0.0, 1 / 16, 0.4, 0.5, 1 / 8)


def run(name: str, shapes: Sequence[tuple[int, ...]], exponents: Sequence[float], **options: Any) -> list[Tensor]:
    """Where steps with these exponents lead from zeros."""
    params = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    with default_dtype(torch.float64):
        optimizer = maker(name)(params, **options)
        for t, p in enumerate(exponents):
            optimizer.param_groups[0]["partial"] = p
            train(optimizer, 1, start=t)
    return values(params)


def followed(reference: Callable[..., Array], shapes: Sequence[tuple[int, ...]], *args: Any, **options: Any) -> Any:
    """Where a transcription leads with the same gradients."""
    ends = []
    for i, shape in enumerate(shapes):
        param = torch.zeros(shape, dtype=torch.float64)
        grads = [gradient(param, t, i).reshape(shape[0], -1).numpy() for t in range(len(args[0]))]
        ends.append(torch.from_numpy(reference(grads, *args, **options)).reshape(shape))
    return ends


# -- beside NumPy


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("beta", [None, 0.9])
@pytest.mark.parametrize("p", [*EXPONENTS, MOVING], ids=str)
def test_shampoo(p: Any, beta: float | None, frequency: int, mode: dict[str, Any]) -> None:
    """The steps are L^(−p/2) n R^(−p/2), of sums and averages, p moving over eigenvectors that stay, in every mode."""
    exponents = p if isinstance(p, tuple) else (p,) * 7
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.7}
    ours = run(
        "partial_shampoo",
        SHAPES,
        exponents,
        shampoo_beta=beta,
        precondition_frequency=frequency,
        eps=0.0,
        **options,
        **mode,
    )
    same(ours, followed(shampoo, SHAPES, exponents, frequency, beta, **options), "it is not Shampoo", 1e-11)


@pytest.mark.parametrize("beta", [None, 0.9])
def test_initial_accumulator_value(beta: float | None) -> None:
    """It is Shampoo's εI: what sums start with, and what is added to averages; of vectors as of matrices."""
    options = {"initial_accumulator_value": 0.3, "shampoo_beta": beta, "eps": 0.0}
    if beta is None:
        ours = run("partial_shampoo", SHAPES, MOVING, momentum=0.0, **options)
        same(ours, followed(shampoo, SHAPES, MOVING, initial=0.3), "L does not start with εI", 1e-11)
    g = torch.tensor([2.0, 0.5], dtype=torch.float64)
    params = torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for param in params:
        optimizer = maker("partial_shampoo", **options)([param], lr=1.0, momentum=0.0, partial=0.5)
        param.grad = g if param.ndim == 1 else g.diag()
        optimizer.step()
        step = param if param.ndim == 1 else param.diagonal()
        torch.testing.assert_close(step, -g / (g**2 + 0.3).sqrt(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize(("beta", "corrected"), [(None, True), (-1, False), (0.6, True)])
@pytest.mark.parametrize("p", [*EXPONENTS, MOVING], ids=str)
def test_soap(p: Any, beta: float | None, corrected: bool, frequency: int, mode: dict[str, Any]) -> None:
    """The steps are those of the published algorithm, p aside and the first v, in every mode."""
    exponents = p if isinstance(p, tuple) else (p,) * 7
    ours = run(
        "partial_soap",
        SHAPES,
        exponents,
        betas=(0.9, 0.8),
        shampoo_beta=beta,
        precondition_frequency=frequency,
        weight_decay=0.0,
        bias_correction="consistent" if corrected else "none",
        **mode,
    )
    beta = None if beta == -1 else beta
    right = followed(soap, SHAPES, exponents, frequency, (0.9, 0.8), beta, corrected=corrected)
    same(ours, right, "it is not SOAP", 1e-10)


def test_first_step_of_soap_is_adams_in_the_bases() -> None:
    """Where v is g² and where it is √(w_L × w_R) the first gradient is the same: the step is U S^(1−2p) Vᵀ."""
    for p in EXPONENTS:
        ours = run("partial_soap", SHAPES, [p], lr=1.0, eps=0.0, weight_decay=0.0)
        for i, shape in enumerate(SHAPES):
            g = gradient(ours[i], 0, i).reshape(shape[0], -1)
            u, s, vh = torch.linalg.svd(g, full_matrices=False)
            same([ours[i]], [-((u * s ** (1 - 2 * p)) @ vh).reshape(shape)], "it is another step", 1e-11)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", [1 / 8, 0.5])
@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (4, 5)], ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_rotation(name: str, shape: tuple[int, int], p: float, mode: dict[str, Any]) -> None:
    """Gradients rotated from both sides rotate the steps, momentum, decay and all: no coordinates are preferred."""
    left, right = (torch.linalg.qr(plain([(size, size)])[0])[0] for size in shape)
    start = plain([shape])[0]
    ours, rotated = start.clone(), left @ start @ right
    options = {"lr": 0.1, "weight_decay": 0.1, "partial": p, "precondition_frequency": 2, **mode}
    with default_dtype(torch.float64):
        optimizer, other = (maker(name)([param], **options) for param in (ours, rotated))
        for t in range(6):
            ours.grad = gradient(start, t)
            rotated.grad = left @ ours.grad @ right
            optimizer.step()
            other.step()
    same([rotated.detach()], [left @ ours.detach() @ right], "the step was not rotated", 1e-10)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_blocks(name: str, mode: dict[str, Any]) -> None:
    """A matrix whose dimensions are larger than a block moves as the fewest equal blocks would by themselves."""
    options = {"partial": 0.3, "precondition_frequency": 2, **mode}
    for shape, (a, b) in {(6, 8): (3, 4), (4, 3, 2): (4, 3), (9, 2, 2): (3, 4), (8, 1): (4, 1)}.items():
        (whole,) = plain([shape])
        matrix = whole.detach().reshape(shape[0], -1)
        corners = [*itertools.product(range(0, matrix.shape[0], a), range(0, matrix.shape[1], b))]
        blocks = [matrix[i : i + a, j : j + b].clone() for i, j in corners]
        optimizer, alone = maker(name)([whole], block_size=4, **options), maker(name)(blocks, **options)
        for t in range(5):
            whole.grad = gradient(whole, t)
            for (i, j), part in zip(corners, blocks, strict=True):
                part.grad = whole.grad.reshape(shape[0], -1)[i : i + a, j : j + b].clone()
            optimizer.step()
            alone.step()
        now = whole.detach().reshape(shape[0], -1)
        same([now[i : i + a, j : j + b] for i, j in corners], values(blocks), "a block is not alone", 1e-12)


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("name", MEMBERS)
def test_vectors_as_diagonals(name: str, p: float) -> None:
    """A vector is the diagonal of a matrix: Adagrad's sum is Shampoo's, Adam's average SOAP's."""
    frequency = 1 if name == "partial_shampoo" else 2  # the eigenvalues of a vector are always of now
    vector, matrix = torch.zeros(4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    with default_dtype(torch.float64):
        optimizers = [
            maker(name)([param], partial=p, lr=0.1, precondition_frequency=frequency, shampoo_beta=0.9)
            for param in (vector, matrix)
        ]
        for t in range(5):
            vector.grad = gradient(vector, t)
            matrix.grad = torch.diag(vector.grad)
            for optimizer in optimizers:
                optimizer.step()
    same([matrix.detach()], [torch.diag(vector.detach())], "a vector is another matrix", 1e-10)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("partial_shampoo", lambda params: torch.optim.Adagrad(params, lr=0.1, eps=1e-8)),
        ("partial_soap", lambda params: torch.optim.Adam(params, lr=0.1, betas=(0.95, 0.95))),
    ],
)
def test_vectors_are_torchs(name: str, theirs: Callable[[Any], Any]) -> None:
    """At p = 1/2 vectors go with torch's Adagrad, and its Adam."""
    ours, right = plain([(5,), ()]), plain([(5,), ()])
    options = {"momentum": 0.0} if name == "partial_shampoo" else {"weight_decay": 0.0}
    train(maker(name)(ours, partial=0.5, lr=0.1, **options), 10)
    train(theirs(right), 10)
    same(values(ours), values(right), "it is not torch's", 1e-12)


# -- what has not been seen


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_a_first_gradient_of_zeros(name: str, mode: dict[str, Any]) -> None:
    """Eigenvectors of zeros do not last: at p = 1/2 the steps after it are as large as they always are."""
    params = [torch.zeros(4, 5)]
    optimizer = maker(name)(params, partial=0.5, lr=1.0, weight_decay=0.0, precondition_frequency=10, **mode)
    train(optimizer, 1, factor=0.0)
    assert not params[0].any()
    for t in range(1, 10):
        before = params[0].detach().clone()
        train(optimizer, 1, start=t)
        assert 0.1 < (params[0] - before).norm() < 10


def test_unseen_directions_are_coordinates() -> None:
    """Where the first gradient is zero SOAP's bases are coordinates, whatever rounding makes of eigenvectors of 0."""
    param = torch.zeros(6, 5, dtype=torch.float64)
    optimizer = pa.PartialSOAP([param])
    param.grad = torch.zeros_like(param)
    param.grad[1:3] = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    basis = optimizer.state[param]["left_basis"][0]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-14)
    assert sorted(basis[:, 2:].abs().argmax(0).tolist()) == [0, 3, 4, 5]
    torch.testing.assert_close(basis[:, 2:].abs().amax(0), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-14)
    twin = torch.zeros(2, 12, dtype=torch.float64)
    ends = []
    for noise in (0.0, 1e-15):
        param = twin.clone()
        optimizer = pa.PartialSOAP([param], partial=0.3, weight_decay=0.0)
        for t in range(4):
            param.grad = gradient(twin, t) + noise * gradient(twin, t + 7)
            optimizer.step()
        ends.append(param.detach())
    same(ends[:1], ends[1:], "rounding decides about the step", 1e-10)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
def test_first_bases_of_soap_stay(mode: dict[str, Any]) -> None:
    """Before the second step there is nothing to iterate with: unseen directions would turn by rounding alone."""
    (param,) = plain([(2, 12)])
    optimizer = pa.PartialSOAP([param], precondition_frequency=1, **mode)
    kept = []
    for t in range(3):
        train(optimizer, 1, start=t)
        kept.append([optimizer.state[param][name].detach().clone() for name in ("left_basis", "right_basis")])
    same(kept[1], kept[0], "the bases have turned")
    assert not torch.equal(kept[2][0].abs(), kept[0][0].abs())


@pytest.mark.parametrize("shape", [(24, 32), (32, 24), (24, 24)], ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_float32(name: str, shape: tuple[int, int]) -> None:
    """In float32 the steps are those of float64 to 1e-4 at p = 1/2: what counts as rounding is no part of them."""
    ends = []
    for dtype in (torch.float32, torch.float64):
        param = torch.zeros(shape, dtype=dtype)
        optimizer = maker(name)([param], partial=0.5, weight_decay=0.0, precondition_frequency=3)
        for t in range(8):
            param.grad = gradient(param.double(), t).to(dtype)
            optimizer.step()
        ends.append(param.detach().double())
    same(ends[:1], ends[1:], "float32 takes other steps", 1e-4)


# -- derivatives


@pytest.mark.parametrize("shape", [(3, 3), (3, 4), (4, 3)], ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_differentiable_where_bases_change(name: str, shape: tuple[int, int]) -> None:
    """Gradients flow through eigenvectors, old and new, as finite differences confirm."""

    def after(grad: Tensor, partial: Tensor) -> Tensor:
        param = torch.zeros(shape, dtype=torch.float64)
        optimizer = maker(name)([param], lr=0.1, partial=partial, differentiable=True, precondition_frequency=2)
        for t in range(4):
            param.grad = grad * (t + 1) + gradient(grad, t).detach()
            optimizer.step()
        return param

    inputs = plain([shape])[0], torch.tensor(0.3, dtype=torch.float64)
    assert torch.autograd.gradcheck(after, tuple(x.requires_grad_() for x in inputs))


@pytest.mark.parametrize("rows", [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]], ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_differentiable_at_low_rank(name: str, rows: list[float]) -> None:
    """Factors of low rank, in which eigenvectors of 0 are undetermined, give derivatives, through QR as well."""

    def after(left: Tensor, right: Tensor) -> Tensor:
        param = torch.zeros(len(rows), 5, dtype=torch.float64)
        optimizer = maker(name)([param], lr=0.1, partial=0.25, differentiable=True, precondition_frequency=1)
        for t in range(4):
            param.grad = (t + 1) * torch.tensor(rows, dtype=torch.float64)[:, None] * (left @ right)
            optimizer.step()
        return param

    inputs = plain([(len(rows), 2), (2, 5)])
    assert torch.autograd.gradcheck(after, tuple(x.requires_grad_() for x in inputs))


@pytest.mark.parametrize("name", MEMBERS)
def test_differentiable_at_equal_eigenvalues(name: str) -> None:
    """Of an orthogonal gradient times c, all eigenvalues are c²: the step is −c^(1−2p) times it, and so goes d/dc."""
    orthogonal = torch.linalg.qr(plain([(6, 6)])[0])[0]
    c = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    param = torch.zeros(6, 6, dtype=torch.float64)
    optimizer = maker(name)([param], lr=1.0, partial=0.3, eps=0.0, weight_decay=0.0, differentiable=True)
    if name == "partial_shampoo":
        optimizer.param_groups[0]["momentum"] = 0.0
    param.grad = c * orthogonal
    optimizer.step()
    (slope,) = torch.autograd.grad((param * orthogonal).sum(), c)
    torch.testing.assert_close(slope, torch.tensor(-6 * 0.4 * 2.0**-0.6, dtype=torch.float64), rtol=1e-12, atol=0)


def test_derivative_of_eigenvectors_of_rounding() -> None:
    """Eigenvalues that differ by rounding alone do not turn their eigenvectors into each other, by 1/difference."""
    optimizer = pa.PartialSOAP(plain([(3, 3)]), differentiable=True)
    hyper = Hyper(optimizer.param_groups[0], 1.0, 1.0, (None, None))
    gram = torch.diag(torch.tensor([1.0, 3e-20, 1e-20], dtype=torch.float64))[None]
    jacobian = torch.autograd.functional.jacobian(lambda matrix: eigen(matrix, hyper).basis, gram)
    torch.testing.assert_close(jacobian.abs().max(), torch.tensor(1.0, dtype=torch.float64), rtol=1e-12, atol=0)


# -- checkpoints


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_resumed_between_changes(name: str, mode: dict[str, Any]) -> None:
    """A checkpoint from the middle between two changes of the bases goes on bit for bit."""
    params = plain([(4, 5), (3, 2, 2), (3,)])
    options = {"precondition_frequency": 4, "partial": 0.3, **mode}
    optimizer = maker(name)(params, **options)
    for stop in (5, 6, 7):
        train(optimizer, stop - (0 if stop == 5 else stop - 1), start=0 if stop == 5 else stop - 1)
        copies = values(params)
        resumed = maker(name)(copies, **options)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        ahead = copy.deepcopy(optimizer)
        train(ahead, 5, start=stop)
        train(resumed, 5, start=stop)
        same(contents(resumed), contents(ahead), f"it does not go on from step {stop}")


# -- bad input


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3,), r"takes matrices, got the shape \(3,\); vectors='diagonal'"),
        ((), r"takes matrices, got the shape \(\); vectors='diagonal'"),
        ((7, 3), r"its 7 rows are not equal blocks of at most block_size=4 and at least half"),
        ((3, 11, 1), r"its 11 columns are not equal blocks of at most block_size=4 and at least half"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", MEMBERS)
def test_shapes_are_refused(name: str, shape: tuple[int, ...], message: str, mode: dict[str, Any]) -> None:
    """What is no matrix, or cannot be cut, is refused by name with the way out, before any other has moved."""
    params = plain([(4, 3), shape])
    cls = pa.MEMBERS[name].cls
    optimizer = cls(list(zip(("weight", "other"), params, strict=True)), block_size=4, **mode)
    before = values(params)
    for i, param in enumerate(params):
        param.grad = gradient(param, 0, i)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"{cls.__name__}: parameter 'other'.*{message}"):
            optimizer.step()
    same(values(params), before, "the refused step has moved something")
    assert not optimizer.state
    optimizer.param_groups[0] |= {"block_size": None, "vectors": "diagonal"}
    optimizer.step()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("precondition_frequency", 0),
        ("precondition_frequency", 1.5),
        ("precondition_frequency", True),
        ("block_size", 0),
        ("block_size", 2.0),
        ("shampoo_beta", 1.0),
        ("shampoo_beta", -0.5),
        ("shampoo_beta", math.nan),
        ("vectors", "adam"),
        ("eps", -1e-8),
        ("partial", 0.6),
    ],
)
@pytest.mark.parametrize("name", MEMBERS)
def test_bad_arguments(name: str, argument: str, value: Any) -> None:
    """The error names the member, the argument and the value, also in mid-training, where nothing moves."""
    cls = pa.MEMBERS[name].cls
    message = f"{cls.__name__}: {argument} must be .*got {value!r}"
    with pytest.raises((ValueError, TypeError), match=message):
        cls(plain([(4, 3)]), **{argument: value})
    optimizer = cls(plain([(4, 3)]))
    train(optimizer, 2)
    before = contents(optimizer)
    optimizer.param_groups[0][argument] = value
    with pytest.raises((ValueError, TypeError), match=message):
        train(optimizer, 1, start=2)
    same(contents(optimizer), before, "the refused step has changed something")


def test_correction_keeps_its_digits() -> None:
    """Where the count is a tensor of float32 1 − βᵗ keeps its digits: steps as with a Python number, to 2e-7."""
    steps = []
    for capturable in (False, True):
        params = plain([(3, 3)])
        optimizer = pa.PartialShampoo(params, partial=0.5, eps=0.0, shampoo_beta=0.9999, capturable=capturable)
        before = values(params)
        train(optimizer, 1)
        steps.append([after - start for after, start in zip(values(params), before, strict=True)])
    same(*steps, "the correction has lost digits", 2e-7)


def test_a_sum_has_no_such_decay() -> None:
    """-1, which is β₂ to SOAP, is nothing to Shampoo."""
    with pytest.raises(ValueError, match=r"shampoo_beta must be a number in \[0, 1\), or None, got -1"):
        pa.PartialShampoo(plain([(4, 3)]), shampoo_beta=-1)


@pytest.mark.parametrize("name", MEMBERS)
def test_blocks_that_change(name: str) -> None:
    """Other blocks in mid-training do not fit the state: refused by name, and what was there goes on."""
    optimizer = maker(name)(plain([(6, 8)]))
    train(optimizer, 2)
    before = contents(optimizer)
    optimizer.param_groups[0]["block_size"] = 4
    with pytest.raises(RuntimeError, match=r"state\['left(_exp_avg)?'\]"):
        train(optimizer, 1, start=2)
    same(contents(optimizer), before, "the refused step has changed something")
    optimizer.param_groups[0]["block_size"] = None
    train(optimizer, 1, start=2)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_gradient_that_is_not_finite(name: str, bad: float, mode: dict[str, Any]) -> None:
    """It spoils its own parameter, as in every optimizer, and no step ends half-way for it, at its step and later."""
    params = plain([(3, 4), (4, 3), (2, 2)])
    optimizer = maker(name)(params, precondition_frequency=1, **mode)
    train(optimizer, 1)
    for i, param in enumerate(params):
        param.grad = gradient(param, 1, i)
    assert params[1].grad is not None
    params[1].grad[0, 0] = bad
    optimizer.step()
    train(optimizer, 2, start=2)
    assert [bool(param.isfinite().all()) for param in params] == [True, False, True]
    assert [state["step"].item() for state in optimizer.state.values()] == [4, 4, 4]


@pytest.mark.parametrize("name", MEMBERS)
def test_squares_beyond_the_range(name: str) -> None:
    """A gradient of which the square is infinite in float32 makes a step of 0, as Adam's is, and no NaN."""
    (param,) = params = plain([(3, 4)], torch.float32)
    optimizer = maker(name)(params, weight_decay=0.0, partial=0.5, precondition_frequency=1)
    train(optimizer, 2)
    before = values(params)
    param.grad = torch.full_like(param, 1e25)
    optimizer.step()
    same(values(params), before, "the step is not 0")
