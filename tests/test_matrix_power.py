"""Powers of matrices by products, beside eigenvectors and the singular value decomposition."""

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from family import WHOLE_MODES, maker, plain
from spectral import by_eigh, conditioned, direction, powered
from torch import Tensor
from torch.optim.optimizer import ParamsT

import partial_adaptive as pa
from partial_adaptive.rules.matrix_power import by_products, divided_by_products, polar, steps
from partial_adaptive.rules.power import is_dyadic
from partial_adaptive.testing.harness import CHECKS, Check, contents, default_dtype, same, train, values

EXPONENTS = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 7 / 16, 1 / 2)
WAYS = ("newton_schulz", "newton_schulz_bfloat16")


def definite(size: int, condition: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symmetric matrix with eigenvalues from 3 down to 3/condition."""
    basis, _ = torch.linalg.qr(conditioned((size, size), 1.0, seed))
    return 3 * (basis * torch.logspace(0, -1, size, base=condition, dtype=torch.float64) @ basis.mT).to(dtype)


def error(ours: Tensor, right: Tensor) -> float:
    """The spectral norm of the difference as a part of that of what is right."""
    size, off = (torch.linalg.matrix_norm(x, 2) for x in (right.double(), ours.double() - right.double()))
    return float(off / size)


# -- the polynomials


@pytest.mark.parametrize("precision", [2.0**-52, 2.0**-23, 2.0**-7])
@pytest.mark.parametrize("low", [0.3, 1e-2, 1e-5])
def test_steps_bring_an_interval_to_one(low: float, precision: float) -> None:
    """All of [low, 1] ends within a few epsilons of 1, in (0, 2) all the way, and what is below low grows."""
    x = torch.cat((torch.logspace(0, -1, 5001, base=1 / low, dtype=torch.float64), torch.tensor([low / 100.0])))
    start = x.clone()
    for a, b, c in steps(low, precision):
        x = a * x + b * x**3 + c * x**5
        assert float(x.min()) > 0
        assert float(x.max()) < 2
    assert float((x[:-1] - 1).abs().max()) < 8 * precision
    assert float(x[-1]) > float(start[-1])


@pytest.mark.parametrize("share", [0.02, 0.2, 0.9])
@pytest.mark.parametrize("large", [1, 16, 63])
def test_polar_factor_in_bfloat16(large: int, share: float) -> None:
    """Singular values from 2 % of (Σs⁴)^(1/4) on become 1 to within 1.5 %, as the documentation states."""
    right, left = (torch.linalg.qr(conditioned((64, 64), 1.0, seed))[0] for seed in (0, 1))
    s = torch.ones(64, dtype=torch.float64)
    for _ in range(8):  # the small ones count in the sum, too
        s[large:] = share * s.pow(4).sum() ** 0.25 if share < 0.5 else share
    found = torch.linalg.svdvals(polar((left * s @ right.mT).float(), torch.bfloat16).double())
    assert float((found - 1).abs().max()) < 0.015


# -- powers of A


@pytest.mark.parametrize("exponent", [sign * p for p in (*EXPONENTS, 3 / 4, 1.0) for sign in (1, -1)])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_products_equal_eigenvectors(exponent: float, condition: float) -> None:
    """In float64 both ways agree to the rounding of a condition: that of A itself, or of what is squared of it."""
    a = definite(24, condition)
    tolerance = 1e-13 if exponent > 0 else 1e-13 * condition
    assert error(by_products(a, exponent), by_eigh(a, exponent)) < tolerance


@pytest.mark.parametrize("way", [by_eigh, by_products])
def test_stacks(way: Any) -> None:
    """A stack gives the powers of its matrices, in any number of dimensions, each with a scale of its own."""
    stack = torch.stack([definite(6, 10.0**k, k) * 1000.0**k for k in range(4)]).reshape(2, 2, 6, 6)
    for one, found in zip(stack.flatten(0, 1), way(stack, -3 / 8).flatten(0, 1), strict=True):
        assert error(found, way(one, -3 / 8)) < 1e-12


def test_eps_of_the_roots() -> None:
    """ε is added to the root of A: (A^(1/2) + ε)^(2·exponent), so 1/ε at -1/2 where A is 0."""
    a = torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64))
    expected = torch.diag(torch.tensor([1 / 2.5, 1 / 1.5, 2.0], dtype=torch.float64))
    torch.testing.assert_close(by_eigh(a, -1 / 2, 0.5), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("exponent", [0.3, 1 / 128, 1.5, -2.0])
def test_exponents_that_are_no_ladder(exponent: float) -> None:
    """The error names the exponent and what is allowed."""
    with pytest.raises(ValueError, match=rf"exponent must be k/2ⁿ in \[-1, 1\] with n ≤ 6, got {exponent}"):
        by_products(torch.eye(2), exponent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("rank", [1, 5, 40])
def test_no_rank_blows_up(rank: int, p: float, dtype: torch.dtype) -> None:
    """What rounding makes of eigenvalues that are 0 stays below the step, in every dtype and over 20 matrices."""
    generator = torch.Generator().manual_seed(rank)
    for _ in range(20):
        n = torch.randn(48, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
        found = divided_by_products(n, p, dtype)
        assert float(torch.linalg.matrix_norm(found, 2) / torch.linalg.matrix_norm(n, 2) ** (1 - 2 * p)) < 1.1


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_units(scale: float) -> None:
    """Squares of the gradient may leave the range of float32; its powers do not."""
    n = conditioned((12, 16), 30.0, dtype=torch.float32) * scale
    for p in (1 / 8, 1 / 2):
        assert error(divided_by_products(n, p), powered(n, p)) < 1e-5
    assert torch.equal(polar(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("p", [1 / 8, 1 / 2])
def test_derivative_where_singular_values_are_equal(p: float) -> None:
    """Autograd runs through the products, and gives central differences where singular values are equal, too."""
    basis, _ = torch.linalg.qr(conditioned((4, 4), 1.0))
    n = (2 * basis).requires_grad_()
    along, weights = conditioned((4, 4), 3.0, 1), conditioned((4, 4), 3.0, 2)
    (slope,) = torch.autograd.grad((divided_by_products(n, p) * weights).sum(), n)
    with torch.no_grad():
        ends = [(powered(n + h * along, p) * weights).sum() for h in (1e-5, -1e-5)]
    torch.testing.assert_close((slope * along).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-7)


# -- accuracy: the table in docs/mathematics.md is the only home of the figures

PAGE = (Path(__file__).parent.parent / "docs" / "mathematics.md").read_text()
ROW = re.compile(r"^\| (eigh|newton_schulz\w*) \| (float\d\d) \| (1/2|\d+/\d+) \| (.*) \|$", re.MULTILINE)
CONDITIONS = (1.0, 1e2, 1e4, 1e6, 1e8)
TABLE = [
    pytest.param(way, getattr(torch, dtype), float(Fraction(p)), cells, id=f"{way}-{dtype}-{p}")
    for way, dtype, p, cells in ROW.findall(PAGE)
]


def worst(way: str, dtype: torch.dtype, p: float, condition: float) -> float:
    """The largest error of a step beside the SVD of the same gradient in float64, over shapes and seeds."""
    found = []
    for shape, seed in itertools.product([(64, 32), (32, 64), (48, 48)], range(3)):
        n = conditioned(shape, condition, seed, dtype)
        found.append(error(direction(n, p, matrix_power=way), powered(n, p)))
    return max(found)


@pytest.mark.parametrize(("way", "dtype", "p", "stated"), TABLE)
def test_accuracy(way: str, dtype: torch.dtype, p: float, stated: str) -> None:
    """At conditions of 1 to 1e8 the error is within three times what the documentation states, and no better by ten."""
    measured = [worst(way, dtype, p, condition) for condition in CONDITIONS]
    fits = [s / 10 < m < 3 * s for m, s in zip(measured, map(float, stated.split(" | ")), strict=True)]
    assert all(fits), " | ".join(f"{m:.1e}" for m in measured)


def test_the_table_is_whole() -> None:
    """Every way, dtype and exponent that the documentation promises has its row."""
    assert len(TABLE) == 3 * len(EXPONENTS) + 4


# -- PartialMuon


# These move p to where it has no digits, which is refused; the last compares gradients of rank 1 to 1e-12, whose other
# singular values are rounding.
LEFT_OUT = ("continuity", "tensors_changed_in_place", "loading_hyperparameters", "lazy_gradients")
CHECKED = {name: check for name, check in CHECKS.items() if name.removeprefix("check_") not in LEFT_OUT}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("check", CHECKED.values(), ids=CHECKED)
def test_conformance(check: Check, way: str) -> None:
    """Both ways go through the suite, by eigenvectors where a check is made with a p that has no digits."""

    def make(params: ParamsT, /, partial: Any = 1 / 8, **options: Any) -> pa.PartialAdaptiveOptimizer:
        dyadic = isinstance(partial, float) and is_dyadic(2 * partial)
        return maker("partial_muon", matrix_power=way if dyadic else "eigh")(params, partial=partial, **options)

    check(make)


@pytest.mark.parametrize("mode", WHOLE_MODES, ids=str)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (6, 6), (5, 3, 2, 2), (1, 4)], ids=str)
def test_direction(shape: tuple[int, ...], p: float, mode: dict[str, Any]) -> None:
    """The step by products is U S^(1−2p) Vᵀ in every mode, to the rounding of float64."""
    n = conditioned(shape, 1e3)
    right = powered(n, p)
    assert (
        float((direction(n, p, matrix_power="newton_schulz", **mode) - right).abs().max() / right.abs().max()) < 1e-11
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("p", [0.3, 1 / 256, 0.1])
def test_other_exponents_are_refused(p: float, way: str) -> None:
    """A p that no ladder reaches is refused by name, when the optimizer is made and later, and nothing has moved."""
    said = (
        rf"matrix_power='{way}' takes a partial of which 2·partial has at most 6 binary digits.*got {p}; use .*'eigh'"
    )
    with pytest.raises(ValueError, match=said):
        pa.PartialMuon(plain([(4, 3)]), partial=p, matrix_power=way)
    params = plain([(4, 3), (4, 3)])
    optimizer = pa.PartialMuon(params, matrix_power=way)
    train(optimizer, 1)
    before, state = values(params), contents(optimizer)
    for value in (p, torch.tensor(p, dtype=torch.float64)):
        optimizer.param_groups[0]["partial"] = value
        with pytest.raises(ValueError, match=said):
            train(optimizer, 1, start=1)
    optimizer.param_groups[0]["partial"] = 1 / 8
    same(values(params), before, "the refused step has moved something")
    same(contents(optimizer), state, "the refused step has changed the state")


@pytest.mark.parametrize("mode", [{"capturable": True}, {"differentiable": True}], ids=str)
def test_a_tensor_that_must_not_be_fetched_is_refused(mode: dict[str, Any]) -> None:
    """Where nothing may wait for the value of p its digits are unknown; a tensor elsewhere is its number."""
    partial = torch.tensor(0.25, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"takes partial as a number.*must not be fetched; use matrix_power='eigh'"):
        pa.PartialMuon(plain([(4, 3)]), partial=partial, matrix_power="newton_schulz", **mode)
    runs = []
    for p in (partial, 0.25):
        params = plain([(4, 3)])
        with default_dtype(torch.float64):
            train(pa.PartialMuon(params, partial=p, matrix_power="newton_schulz"), 3)
        runs.append(values(params))
    same(*runs, "a tensor is not its number", 0.0)


def test_both_ways_in_one_optimizer() -> None:
    """Groups choose for themselves, and a way changed in mid-training keeps the state."""
    params, expected = plain([(4, 3), (4, 3)]), plain([(4, 3), (4, 3)])
    groups = [{"params": params[:1], "matrix_power": "newton_schulz"}, {"params": params[1:]}]
    with default_dtype(torch.float64):
        optimizer = pa.PartialMuon(groups, lr=0.1, eps=0.0)
        train(optimizer, 3)
        optimizer.param_groups[0]["matrix_power"] = "eigh"
        train(optimizer, 3, start=3)
        train(pa.PartialMuon([{"params": expected[:1]}, {"params": expected[1:]}], lr=0.1, eps=0.0), 6)
    same(values(params), values(expected), "the ways differ by more than rounding", 1e-12)
