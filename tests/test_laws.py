"""The laws of every P that needs the whole tensor: P⁰n = n, P^(−a)P^(−b)n = P^(−(a+b))n, and c^(1−2p) of the units."""

from typing import Any

import pytest
import torch
from family import WHOLE, maker
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.rules.hyperparameters import Hyper
from partial_adaptive.rules.second_moments import Estimator, Quotient
from partial_adaptive.testing.harness import broken, same

SHAPES = st.one_of(
    st.tuples(st.integers(1, 6)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)
EXPONENTS = st.one_of(st.floats(0.0, 0.5), st.sampled_from([0.0, 1 / 16, 1 / 8, 1 / 4, 7 / 16, 1 / 2]))
HALVES = st.one_of(st.floats(0.01, 0.25), st.sampled_from([1 / 64, 1 / 16, 1 / 8, 1 / 4]))
SEEDS = st.integers(0, 10_000)


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers none of which is near 0, so that with ε = 0 nothing is divided by it; of matrices full rank."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    return x + 0.1 * torch.where(x < 0, -1.0, 1.0)


def pure(name: str) -> dict[str, Any]:
    """The options that leave the law alone: no ε, no decay, nothing clipped."""
    defaults = maker(name)([torch.ones(1)]).defaults
    eps = (0.0, 1e-3) if isinstance(defaults["eps"], tuple) else 0.0
    return {"eps": eps, "weight_decay": 0.0, "lr": 1e-3} | ({"d": 1e300} if "d" in defaults else {})


def divided(name: str, p: float, n: Tensor, g: Tensor) -> Tensor:
    """P^(−p) n with the P that a first gradient g leads to; where P is made from the numerator, with that of n."""
    optimizer = maker(name, **pure(name))([torch.zeros_like(n)], partial=p)
    (group,) = optimizer.param_groups
    rule = optimizer.recipe.rule(group, scaled=p != 0)
    hyper = Hyper(group, 1.0, 1.0, (None, rule.second_moment.decay))
    slots = [torch.zeros(tuple(slot.shape(n.shape)), dtype=n.dtype) for slot in rule.second_moment.slots.values()]
    result = rule.second_moment.divide(n, g, hyper, *slots)
    return result.divided() if isinstance(result, Quotient) else result


def alone(name: str) -> bool:
    """Whether P has a value per element, and not a matrix in its place."""
    optimizer = maker(name)([torch.ones(1)])
    return isinstance(optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment, Estimator)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=SEEDS)
def test_zero_leaves_the_numerator(name: str, shape: tuple[int, ...], seed: int) -> None:
    """P⁰n is n, bit for bit, and what p tends to as it vanishes."""
    n, g = normal(shape, seed), normal(shape, seed + 1)
    assert torch.equal(divided(name, 0.0, n, g), n)
    torch.testing.assert_close(divided(name, 1e-12, n, g), n, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in WHOLE if alone(name)])
@settings(max_examples=50, deadline=None)
@given(shape=SHAPES, seed=SEEDS, a=HALVES, b=HALVES)
def test_semigroup(name: str, shape: tuple[int, ...], seed: int, a: float, b: float) -> None:
    """P^(−a) of P^(−b)n is P^(−(a+b))n, for a P of broadcast values."""
    n, g = normal(shape, seed), normal(shape, seed + 1)
    twice, once = divided(name, a, divided(name, b, n, g), g), divided(name, a + b, n, g)
    torch.testing.assert_close(twice, once, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in WHOLE if not alone(name)])
@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=SEEDS, a=HALVES, b=HALVES)
def test_semigroup_of_matrices(name: str, rows: int, columns: int, seed: int, a: float, b: float) -> None:
    """So it is where P is a matrix: P^(−a), read off from what it does to n, and P^(−b) multiply to P^(−(a+b))."""
    n = normal((min(rows, columns), max(rows, columns)), seed)  # of full rank, so that P = nnᵀ is regular
    if torch.linalg.cond(n) > 1e3:
        return
    first, second = (divided(name, p, n, n) @ torch.linalg.pinv(n) for p in (a, b))
    for m, turned in ((n, lambda x: x), (n.mT.contiguous(), lambda x: x.mT)):
        once = turned(divided(name, a + b, m, m))
        torch.testing.assert_close(first @ second @ n, once, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=50, deadline=None)
@given(shape=SHAPES, seed=SEEDS, p=EXPONENTS, c=st.sampled_from([1e-3, 0.3, 7.0, 1e4]))
def test_units(name: str, shape: tuple[int, ...], seed: int, p: float, c: float) -> None:
    """Gradients c times larger make every step c^(1−2p) times larger."""
    start = normal(shape, seed)
    ends = []
    for factor in (1.0, c):
        param = start.clone()
        optimizer = maker(name, **pure(name))([param], partial=p)
        for step in range(1 if "position" in broken(maker(name)) else 3):
            param.grad = factor * normal(shape, seed + 1 + step)
            optimizer.step()
        ends.append(param.detach() - start)
    same([ends[1]], [ends[0] * c ** (1 - 2 * p)], f"{name} has other units", 1e-8)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_differentiable_on_matrices(name: str, shape: tuple[int, ...]) -> None:
    """Gradients flow through two steps of a matrix to θ, g, lr and p, as finite differences confirm."""

    def after(start: Tensor, grad: Tensor, lr: Tensor, partial: Tensor) -> Tensor:
        param = start.clone()
        optimizer = maker(name)([param], lr=lr, partial=partial, differentiable=True)
        for factor in (1.0, -2.0):
            param.grad = grad * factor
            optimizer.step()
        return param

    numbers = (torch.tensor(value, dtype=torch.float64) for value in (0.1, 0.3))
    inputs = tuple(x.requires_grad_() for x in (normal(shape, 0), normal(shape, 1), *numbers))
    assert torch.autograd.gradcheck(after, inputs)


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_laws_are_declared(name: str) -> None:
    """What a member breaks it declares: the step of Adafactor is clipped, and as large as its parameter."""
    breaks = broken(maker(name))
    assert ("linear" in breaks) == ("d" in maker(name)([torch.ones(1)]).defaults)
