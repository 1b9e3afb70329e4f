"""The curves of a schedule by themselves, and what they make of p in training."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from family import CAPTURABLE

import partial_adaptive as pa
from partial_adaptive import LPSGDM, Cosine, DynMuon, Linear, Logistic, Schedule, Steps
from partial_adaptive.testing.harness import gradient, parameters, train


@pytest.mark.parametrize("curve", [Linear(0.1, 7), Cosine(0.1, 7), Logistic(0.1, 7), Logistic(0.1, 7, steepness=0.01)])
def test_passages(curve: Any) -> None:
    """Each begins at the start, ends at its end at its last step and stays; it moves one way, and half-way is half."""
    values = [curve(0.5, t) for t in range(1, 11)]
    assert values[0] == 0.5
    assert values[6:] == [0.1] * 4
    assert all(a > b for a, b in itertools.pairwise(values[:7]))
    assert math.isclose(values[3], 0.3)


def test_lpsgdm_is_that_of_its_paper() -> None:
    """With ρ = 2p the norm's exponent goes from (2−ρ)/(1−ρ) to 2 along a cosine, and ρ = (q−2)/(q−1)."""
    largest, steps = 10.0, 9
    start = (largest - 2) / (largest - 1) / 2
    for t in range(1, steps + 1):
        q = 2 + (largest - 2) * (1 + math.cos(math.pi * (t - 1) / (steps - 1))) / 2
        assert math.isclose(LPSGDM(steps)(start, t), (q - 2) / (q - 1) / 2, abs_tol=1e-15)


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
def test_lpsgdm(mode: dict[str, Any]) -> None:
    """PartialSign along that curve goes where a transcription of LPSGDM goes, m/(|m|+ε)^ρ with decoupled decay."""
    steps, lr, decay, eps, start = 12, 0.05, 0.1, 1e-8, 4 / 9
    (param,) = params = parameters([(5, 3)])
    optimizer = pa.PartialSign(
        params, lr=lr, betas=(0.9, 0.9), weight_decay=decay, eps=eps, partial=start, bias_correction="none", **mode
    )
    schedule = Schedule(optimizer, partial=LPSGDM(steps))
    theta, m = param.detach().numpy().copy(), np.zeros((5, 3))
    for t in range(1, steps + 1):
        param.grad = gradient(param, t)
        m = 0.9 * m + 0.1 * param.grad.numpy()
        q = 2 + 8 * (1 + math.cos(math.pi * (t - 1) / (steps - 1))) / 2
        theta = (1 - lr * decay) * theta - lr * m / (np.abs(m) + eps) ** ((q - 2) / (q - 1))
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(param.detach().numpy(), theta, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("largest", "smallest", "center", "width"), [(1.0, -0.25, 0.04, 0.04), (0.25, -0.25, 0.02, 0.08)]
)
def test_dynmuon_is_that_of_its_paper(largest: float, smallest: float, center: float, width: float) -> None:
    """The power of the singular values goes from q_max to q_min by 1/(1 + exp((t/T − τ)/w)), and p is (1 − q)/2."""
    steps = 50
    curve = DynMuon(steps, (1 - smallest) / 2, center, width)
    for t in range(1, steps + 5):
        q = smallest + (largest - smallest) / (1 + math.exp((t / steps - center) / width))
        assert math.isclose(curve((1 - largest) / 2, t), (1 - q) / 2, abs_tol=1e-15)
    assert math.isclose(DynMuon(steps)(0.0, 10**9), 5 / 8)


def test_dynmuon_moves_singular_values() -> None:
    """PartialMuon along that curve makes the singular values of each step those of the momentum to the power q."""
    steps = 10
    optimizer = pa.PartialMuon(
        [torch.zeros(4, 4, dtype=torch.float64)],
        lr=1.0,
        momentum=0.0,
        weight_decay=0.0,
        eps=0.0,
        partial=0.0,
        beyond_half=True,
    )
    (param,) = optimizer.param_groups[0]["params"]
    schedule = Schedule(optimizer, partial=DynMuon(steps))
    for t in range(1, steps + 1):
        before = param.clone()
        param.grad = gradient(param, t).detach()
        expected = torch.linalg.svdvals(param.grad) ** (-0.25 + 1.25 / (1 + math.exp((t / steps - 0.04) / 0.04)))
        optimizer.step()
        schedule.step()
        found = torch.linalg.svdvals(before - param)
        torch.testing.assert_close(found, expected.sort(descending=True).values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("partial", [0.45, torch.tensor(0.45)], ids=["number", "tensor"])
def test_no_new_kernel_while_p_moves(partial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fused mode a p that moves, as a number or in a tensor, is compiled once."""
    from partial_adaptive.execution.compiled import cpp

    made: list[object] = []

    class Counted(cpp.Kernel):
        def __init__(self, *args: Any) -> None:
            made.append(args)
            super().__init__(*args)

    monkeypatch.setattr(cpp, "Kernel", Counted)
    optimizer = pa.Padam(parameters(), partial=partial, fused=True)
    schedule = Schedule(optimizer, partial=Linear(0.31, 30))
    for step in range(30):
        train(optimizer, 1, start=step)
        schedule.step()
    if isinstance(partial, torch.Tensor):
        assert optimizer.param_groups[0]["partial"] is partial
    assert len(made) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(0.1, 1), "Linear: steps must be a whole number ≥ 2, got 1"),
        (lambda: Cosine(0.1, 2.0), "Cosine: steps must be a whole number ≥ 2, got 2.0"),
        (lambda: Cosine(math.inf, 2), "Cosine: end must be a finite number, got inf"),
        (lambda: Logistic(0.1, 5, steepness=0), "Logistic: steepness must be a finite number > 0, got 0"),
        (lambda: Steps({1: 0.1}), "Steps: values must have whole numbers ≥ 2 as keys, got 1"),
        (lambda: LPSGDM(True), "LPSGDM: steps must be a whole number ≥ 2, got True"),
        (lambda: LPSGDM(5)(0.5, 1), "LPSGDM: partial must start in"),
        (lambda: DynMuon(1), "DynMuon: steps must be a whole number ≥ 2, got 1"),
        (lambda: DynMuon(5, 1.5), "DynMuon: end must be a number in [0, 1], got 1.5"),
        (lambda: DynMuon(5, center=math.nan), "DynMuon: center must be a finite number, got nan"),
        (lambda: DynMuon(5, width=0), "DynMuon: width must be a finite number > 0, got 0"),
    ],
)
def test_bad_curves(make: Any, words: str) -> None:
    """What cannot be a curve is refused where it is made, by name and value."""
    with pytest.raises(ValueError, match=words.replace("[", r"\[").replace("(", r"\(")):
        make()
