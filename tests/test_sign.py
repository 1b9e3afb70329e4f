"""PartialSign: at its ends, and along the way, what is published as Lion, Signum and LPSGDM."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from partial_adaptive import PartialSign
from partial_adaptive.testing.harness import MODES, gradient, parameters

Array = NDArray[np.float64]
Rule = Callable[[Array, Array, Array, int], tuple[Array, Array]]  # from θ, m, g and t the next θ and m
STEPS, LR, DECAY = 30, 0.01, 0.1


def lion(theta: Array, m: Array, g: Array, t: int) -> tuple[Array, Array]:
    """Algorithm 2 of the Lion paper, β = (0.9, 0.99)."""
    update = np.sign(0.9 * m + 0.1 * g)
    return theta - LR * (update + DECAY * theta), 0.99 * m + 0.01 * g


def signum(theta: Array, m: Array, g: Array, t: int) -> tuple[Array, Array]:
    """SignSGD with momentum 0.9, as its paper has it, with Lion's decay."""
    m = 0.9 * m + 0.1 * g
    return theta - LR * (np.sign(m) + DECAY * theta), m


def annealed(theta: Array, m: Array, g: Array, t: int) -> tuple[Array, Array]:
    """A power of |m| that goes from 0, the sign, to 1, SGD with momentum."""
    m = 0.9 * m + 0.1 * g
    power = 1 - 2 * exponent(t)
    return theta - LR * (np.sign(m) * np.abs(m) ** power + DECAY * theta), m


def exponent(t: int) -> float:
    """The p of step t = 1, 2, …: from 1/2 to 0."""
    return 0.5 * (1 - (t - 1) / (STEPS - 1))


def half(t: int) -> float:
    """The p of the classical methods."""
    return 0.5


CASES: dict[str, tuple[Rule, tuple[float, float], Callable[[int], float]]] = {
    "Lion": (lion, (0.9, 0.99), half),
    "Signum": (signum, (0.9, 0.9), half),
    "LPSGDM": (annealed, (0.9, 0.9), exponent),
}


@pytest.mark.parametrize("mode", [*MODES, {"capturable": True}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_is_what_is_published(name: str, mode: dict[str, Any]) -> None:
    """In every mode it goes where a transcription in NumPy goes; zeros of the gradient stay where they are."""
    rule, betas, schedule = CASES[name]
    (param,) = params = parameters([(7, 5)])
    optimizer = PartialSign(params, lr=LR, betas=betas, weight_decay=DECAY, bias_correction="none", **mode)
    theta, m = param.detach().numpy().copy(), np.zeros((7, 5))
    for t in range(1, STEPS + 1):
        param.grad = gradient(param, t).index_fill_(0, torch.tensor([3]), 0.0)
        optimizer.param_groups[0]["partial"] = schedule(t)
        theta, m = rule(theta, m, param.grad.numpy(), t)
        optimizer.step()
    np.testing.assert_allclose(param.detach().numpy(), theta, rtol=0, atol=1e-12)


def test_bias_correction_is_exact_for_a_constant_gradient() -> None:
    """With the correction n is g itself where the gradient is constant, for different rates too."""
    (param,) = params = parameters([(4,)])
    optimizer = PartialSign(params, lr=1.0, betas=(0.9, 0.99), partial=1 / 8)
    for _ in range(5):
        before = param.detach().clone()
        param.grad = torch.tensor([-2.0, 0.5, 0.0, 1e-3], dtype=torch.float64)
        optimizer.step()
        expected = param.grad.sign() * param.grad.abs() ** 0.75
        torch.testing.assert_close(before - param.detach(), expected, rtol=1e-12, atol=1e-15)
