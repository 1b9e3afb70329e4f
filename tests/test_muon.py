"""PartialMuon: singular values to the power 1 − 2p, beside the decomposition itself and beside torch.optim.Muon."""

from typing import Any

import pytest
import torch
from family import WHOLE_MODES, maker, plain
from spectral import BARE, conditioned, direction, powered, stretch
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.testing.harness import contents, default_dtype, gradient, same, train, values

torch_muon = pytest.importorskip("torch.optim._muon", reason="torch.optim.Muon came with torch 2.9")

EXPONENTS = (0.0, 1 / 16, 1 / 8, 0.3, 7 / 16, 1 / 2)
SHAPES = [(7, 4), (4, 7), (6, 6), (5, 3, 2, 2), (1, 4), (3, 1)]


def error(ours: Tensor, right: Tensor) -> float:
    """The largest difference as a part of the largest value."""
    return float((ours.double() - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_direction(shape: tuple[int, ...], p: float, mode: dict[str, Any]) -> None:
    """The step is U S^(1−2p) Vᵀ, for tall, wide, square and more-dimensional gradients of condition up to 1e3."""
    for condition in (1.0, 10.0, 1e3):
        n = conditioned(shape, condition)
        assert error(direction(n, p, **mode), powered(n, p)) < 1e-10


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_polar_factor(shape: tuple[int, ...]) -> None:
    """At p = 1/2 the smaller Gram matrix of the step is the identity: it is the nearest orthogonal matrix."""
    n = conditioned(shape, 1e3)
    step = direction(n, 0.5).reshape(shape[0], -1)
    gram = step @ step.mT if step.shape[0] <= step.shape[1] else step.mT @ step
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-10)
    u, _, vh = torch.linalg.svd(n.reshape(shape[0], -1), full_matrices=False)
    assert error(step, u @ vh) < 1e-10


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (6, 6)], ids=str)
def test_rank_deficient(shape: tuple[int, int], p: float) -> None:
    """Where singular values are 0 the step has none either, thanks to ε, and is finite; of zeros it is 0."""
    low = conditioned((shape[0], 2), 3.0) @ conditioned((2, shape[1]), 3.0, 1)
    assert error(direction(low, p, eps=1e-7), powered(low, p, 1e-7)) < 1e-8
    zero = torch.zeros(shape, dtype=torch.float64)
    assert torch.equal(direction(zero, p, eps=1e-7), zero)
    assert torch.equal(direction(zero, p), zero)


@pytest.mark.parametrize("p", [0.55, 0.75, 1.0])
def test_beyond_half(p: float) -> None:
    """Above 1/2 small singular values become the large ones, by the same formula."""
    for shape in SHAPES:
        n = conditioned(shape, 10.0)
        assert error(direction(n, p, beyond_half=True), powered(n, p)) < 1e-10


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
def test_singular_values_of_the_step(p: float, mode: dict[str, Any]) -> None:
    """They are lr·s^(1−2p), s those of the momentum, at every step of a run."""
    lr, mu = 0.02, 0.9
    (param,) = params = plain([(6, 9)])
    momentum = torch.zeros_like(param)
    with default_dtype(torch.float64):
        options = {**BARE, "lr": lr, "momentum": mu, "nesterov": True}
        optimizer = pa.PartialMuon(params, partial=p, **options, **mode)
        for t in range(4):
            before = param.detach().clone()
            param.grad = gradient(param, t)
            momentum.lerp_(param.grad, 1 - mu)
            expected = lr * torch.linalg.svdvals(param.grad.lerp(momentum, mu)) ** (1 - 2 * p)
            optimizer.step()
            taken = torch.linalg.svdvals(before - param.detach())
            torch.testing.assert_close(taken, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (6, 6)], ids=str)
def test_rotation(shape: tuple[int, int], p: float, mode: dict[str, Any]) -> None:
    """Gradients rotated from both sides rotate the steps, momentum, decay and all: no coordinates are preferred."""
    left, right = (torch.linalg.qr(conditioned((size, size), 1.0, 5))[0] for size in shape)
    start = plain([shape])[0]
    ours, rotated = start.clone(), left @ start @ right
    with default_dtype(torch.float64):
        options = {"lr": 0.1, "weight_decay": 0.1, "partial": p, **mode}
        optimizer, other = pa.PartialMuon([ours], **options), pa.PartialMuon([rotated], **options)
        for t in range(4):
            ours.grad = gradient(start, t)
            rotated.grad = left @ ours.grad @ right
            optimizer.step()
            other.step()
    assert error(rotated.detach(), left @ ours.detach() @ right) < 1e-10


def test_zero_is_sgd_with_momentum() -> None:
    """At p = 0 it is SGD(lr(1−μ), momentum=μ), the momentum kept alone, and vectors go with it."""
    shapes = [(4, 6), (3,), ()]
    ours, theirs = plain(shapes), plain(shapes)
    options = {**BARE, "lr": 0.1, "momentum": 0.9, "partial": 0.0}
    train(maker("partial_muon")(ours, **options), 20)
    train(torch.optim.SGD(theirs, lr=0.1 * (1 - 0.9), momentum=0.9), 20)
    same(values(ours), values(theirs), "it is not SGD", 1e-14)


def test_vectors_as_diagonals() -> None:
    """A vector is the diagonal of a matrix: at p = 1/2 its step is its sign, at any p that of the matrix."""
    g = torch.tensor([-3.0, 0.5, 0.0, 1e-3], dtype=torch.float64)
    for p in EXPONENTS:
        step = direction(g, p, vectors="diagonal")
        torch.testing.assert_close(step, g.sign() * g.abs() ** (1 - 2 * p), rtol=1e-12, atol=1e-15)
        assert error(step, direction(torch.diag(g), p).diagonal()) < 1e-10


# -- beside torch


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_is_torch_with_the_exact_factor(
    nesterov: bool, adjust: str | None, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At p = 1/2 momentum, Nesterov, decay and factors are torch's: with its iteration made exact the runs are one."""
    monkeypatch.setattr(torch_muon, "_zeropower_via_newtonschulz", lambda n, *_: powered(n, 0.5))
    shapes = [(7, 4), (4, 7), (6, 6)]
    theirs, ours = plain(shapes), plain(shapes)
    options: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.2, "momentum": 0.8}
    options |= {"nesterov": nesterov, "adjust_lr_fn": adjust}
    train(torch.optim.Muon(theirs, **options), 20)
    with default_dtype(torch.float64):
        train(pa.PartialMuon(ours, partial=0.5, eps=0.0, **options, **mode), 20)
    same(values(ours), values(theirs), "it is not torch's Muon", 1e-10)


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (48, 48)], ids=str)
def test_direction_is_torchs(shape: tuple[int, int]) -> None:
    """Torch's own iteration, when it has converged, has the direction of the exact factor, to its bfloat16: 0.9999."""
    g = conditioned(shape, 30.0, dtype=torch.float32)
    theirs = torch.zeros(shape)
    theirs.grad = g.clone()
    torch.optim.Muon(
        [theirs], lr=1.0, weight_decay=0.0, nesterov=False, ns_coefficients=(1.5, -0.5, 0.0), ns_steps=30
    ).step()
    ours = direction(g, 0.5).flatten()
    assert float(torch.cosine_similarity(ours, -theirs.flatten(), 0)) > 0.9995


def test_checkpoint_of_torch() -> None:
    """Its momentum goes on here; what is torch's alone, the iteration's settings, stays an entry of the user's."""
    params = plain([(7, 4), (4, 7)])
    reference = torch.optim.Muon(params, lr=0.05, weight_decay=0.2)
    train(reference, 3)
    optimizer = pa.PartialMuon(values(params), partial=0.5)
    optimizer.load_state_dict(reference.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["nesterov"], group["ns_steps"]) == (0.05, 0.2, True, 5)
    same(
        [state["momentum_buffer"] for state in optimizer.state.values()],
        [state["momentum_buffer"] for state in reference.state.values()],
        "the momentum was not taken over",
    )


# -- bad input


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("shape", [(3,), ()], ids=str)
def test_vectors_are_refused(shape: tuple[int, ...], mode: dict[str, Any]) -> None:
    """Without the option a vector is refused by name and shape, with the way out, before a matrix has moved."""
    params = plain([(4, 3), shape])
    optimizer = pa.PartialMuon(list(zip(("weight", "bias"), params, strict=True)), **mode)
    before = values(params)
    for i, param in enumerate(params):
        param.grad = gradient(param, 0, i)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"PartialMuon: parameter 'bias'.* takes matrices.*vectors='diagonal'"):
            optimizer.step()
    same(values(params), before, "the refused step has moved something")
    assert not optimizer.state


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("vectors", "adam"),
        ("adjust_lr_fn", "spectral"),
        ("momentum", 1.0),
        ("nesterov", 1),
        ("eps", -1e-7),
        ("partial", 0.6),
    ],
)
def test_bad_arguments(argument: str, value: Any) -> None:
    """The error names the argument and the value."""
    with pytest.raises((ValueError, TypeError), match=f"PartialMuon: {argument} must be .*got {value!r}"):
        pa.PartialMuon(plain([(4, 3)]), **{argument: value})


def test_no_constraint() -> None:
    """There is no metric per element to project in: a constraint is refused, as an argument and in a group."""
    with pytest.raises(TypeError, match="constraint"):
        pa.PartialMuon(plain([(4, 3)]), constraint=pa.Box(-1.0, 1.0))
    with pytest.raises(TypeError, match=r"constraint takes a second moment with a value per element.*Spectrum"):
        pa.PartialMuon([{"params": plain([(4, 3)]), "constraint": pa.Box(-1.0, 1.0)}])
    params = plain([(4, 3)])
    optimizer = pa.PartialMuon(params)
    train(optimizer, 1)
    before = contents(optimizer)
    optimizer.param_groups[0]["constraint"] = pa.Box(-1.0, 1.0)
    with pytest.raises(TypeError, match=r"constraint takes a second moment with a value per element.*Spectrum"):
        train(optimizer, 1, start=1)
    same(contents(optimizer), before, "the refused step has changed something")


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite(bad: float, mode: dict[str, Any]) -> None:
    """It spoils its own parameter, as in every optimizer, and no step ends half-way for it."""
    params = plain([(3, 4), (4, 3), (2, 2)])
    optimizer = pa.PartialMuon(params, **mode)
    train(optimizer, 1)
    for i, param in enumerate(params):
        param.grad = gradient(param, 1, i)
    assert params[1].grad is not None
    params[1].grad[0, 0] = bad
    optimizer.step()
    assert [bool(param.isfinite().all()) for param in params] == [True, False, True]
    assert [int(state["step"]) for state in optimizer.state.values()] == [2, 2, 2]


def test_complex_vectors() -> None:
    """A complex vector counts as a matrix of two columns, so that it is not refused where a real one is."""
    g = torch.complex(conditioned((4, 2), 10.0)[:, 0], conditioned((4, 2), 10.0)[:, 1])
    pairs = torch.view_as_real(direction(g, 0.5)) / stretch((4, 2))
    assert error(pairs, powered(torch.view_as_real(g), 0.5)) < 1e-10


def test_complex_numbers_are_pairs() -> None:
    """A complex matrix is the real one of its real and imaginary parts side by side, as everywhere in the library."""
    g = torch.complex(conditioned((4, 3), 10.0), conditioned((4, 3), 10.0, 1))
    pairs = torch.view_as_real(g).reshape(4, 6)
    step = torch.view_as_real(direction(g, 0.5)).reshape(4, 6) * stretch((4, 3)) / stretch((4, 6))
    assert error(step, powered(pairs, 0.5)) < 1e-10
