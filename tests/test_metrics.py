"""`metrics()`: what the next step would do, equal to what it then does and to calculations by hand; nothing changes."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from family import METRIC, in_modes, maker, plain
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive.execution import quantiles as module
from partial_adaptive.testing.harness import DECAYS, MODES, SHAPES, contents, gradient, parameters, params_of, same

ALL_MODES: list[dict[str, Any]] = [*MODES, {"capturable": True}, {"differentiable": True}]
NAMES = list(pa.MEMBERS)


def give(optimizer: pa.PartialAdaptiveOptimizer, step: int) -> None:
    for i, param in enumerate(params_of(optimizer)):
        param.grad = gradient(param, step, i)


def joined(tensors: list[Tensor]) -> Tensor:
    """All numbers, complex ones as pairs, in float64."""
    return torch.cat(
        [torch.view_as_real(t).ravel() if t.is_complex() else t.detach().double().ravel() for t in tensors]
    )


def check(optimizer: pa.PartialAdaptiveOptimizer, tolerance: float) -> None:
    """The metrics change nothing, and their norms are those of gradients, parameters and of the step that follows."""
    params = params_of(optimizer)
    grads = [param.grad for param in params if param.grad is not None]
    known = [*params, *grads, *(value for state in optimizer.state.values() for value in state.values())]
    before, versions = contents(optimizer), [tensor._version for tensor in known]
    metrics = optimizer.metrics()
    same(contents(optimizer), before, "metrics() changes something")
    assert versions == [tensor._version for tensor in known]
    old = joined([param.detach().clone() for param in params])
    expected = [old.norm().item(), joined([*map(_dense, grads)]).norm().item()]
    optimizer.step()
    expected.append((joined(params) - old).norm().item())
    param_norm, grad_norm, update_norm = expected
    assert [metrics.param_norm, metrics.grad_norm] == pytest.approx(expected[:2], rel=1e-12)
    assert metrics.update_norm == pytest.approx(update_norm, rel=tolerance)
    assert metrics.grad_ratio == pytest.approx(grad_norm / param_norm, rel=1e-12)
    assert metrics.update_ratio == pytest.approx(update_norm / param_norm, rel=tolerance)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.to_dense() if tensor.is_sparse else tensor


@pytest.mark.parametrize("decay", DECAYS, ids=str)
@pytest.mark.parametrize(("name", "mode"), in_modes(NAMES, ALL_MODES))
def test_norms_are_those_of_the_step(name: str, mode: dict[str, Any], decay: dict[str, Any]) -> None:
    """For every member, mode and decay the norms are those of the step that follows, to 1e-12."""
    optimizer = maker(name)(plain(SHAPES), **mode, **decay)
    for step in range(3):
        give(optimizer, step)
        check(optimizer, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float64, {"partial": 0.0}),
        (torch.float64, {"constraint": pa.L2Ball(1.0)}),
        (torch.float64, {"trust_ratio": 0.1, "momentum_after": 0.9}),
        (torch.float32, {"state_dtype": "8bit"}),
        (torch.complex128, {}),
        (torch.bfloat16, {}),
        (torch.bfloat16, {"rounding": "stochastic"}),
        (torch.float16, {"rounding": "kahan"}),
    ],
    ids=str,
)
def test_kinds_of_steps(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Projection, stages of one's own, codes, complex numbers, and rounding with its noise are in the update."""
    optimizer = maker("padam")(plain([(3, 4), (5,), (0, 2)], dtype), **options)
    for step in range(3):
        give(optimizer, step)
        check(optimizer, 1e-12)


@pytest.mark.parametrize("stored", [(None, "8bit"), ("8bit", None)], ids=str)
@pytest.mark.parametrize("name", METRIC)
def test_state_that_is_to_be_stored_otherwise(name: str, stored: tuple[Any, Any]) -> None:
    """A `state_dtype` that has changed since the last step is heeded as the step heeds it: nothing starts afresh."""
    optimizer = maker(name, state_dtype=stored[0])(plain([(3, 4)], torch.float32), partial=0.25)
    for step in range(3):
        give(optimizer, step)
        optimizer.step()
    give(optimizer, 3)
    (param,) = params_of(optimizer)
    before = optimizer.scale_of(param)
    optimizer.param_groups[0]["state_dtype"] = stored[1]
    after = optimizer.scale_of(param)
    assert before is not None
    assert after is not None
    same([after], [before], "the scale is that of a fresh state", 0.1)  # levels of the code are 9 % apart
    check(optimizer, 0.1)


def test_sparse_gradients() -> None:
    """Entries of one place are summed, and the rows that a gradient does not touch stay where they are."""
    (param,) = plain([(4, 2)])
    optimizer = pa.PartialAdagrad([param], lr=0.5)
    rows = torch.tensor([[1.0, -2.0], [3.0, 0.5], [2.0, 3.0]], dtype=torch.float64)
    for _ in range(2):
        param.grad = torch.sparse_coo_tensor(torch.tensor([[3, 1, 3]]), rows, (4, 2), check_invariants=True)
        check(optimizer, 1e-12)


@pytest.mark.parametrize("partial", [1 / 8, 0.3, 1 / 2])
@pytest.mark.parametrize("bias_correction", ["consistent", "adam", "none"])
def test_by_hand(partial: float, bias_correction: Any) -> None:
    """Adam with one element at the floor of ε, by hand in float64, to 1e-12: each group and all together."""
    beta, eps = 0.99, 1e-3
    params = plain([(6,), (2, 3)])
    groups = [{"params": params[:1], "lr": 0.1, "name": "first"}, {"params": params[1:], "lr": 0.01}]
    optimizer = pa.PartialAdam(groups, betas=(0.9, beta), eps=eps, partial=partial, bias_correction=bias_correction)
    second = [torch.zeros_like(param) for param in params]
    for step in range(1, 4):
        give(optimizer, step)
        for param, v in zip(params, second, strict=True):
            assert param.grad is not None
            param.grad.view(-1)[0] *= 1e-5
            v.mul_(beta).addcmul_(param.grad, param.grad, value=1 - beta)
        correction = 1 - beta**step if bias_correction == "consistent" else 1.0
        roots = [(v / correction).sqrt().ravel() for v in second]
        effective = [lr / (root + eps) ** (2 * partial) for lr, root in zip((0.1, 0.01), roots, strict=True)]
        metrics = optimizer.metrics()
        assert [group.name for group in metrics.groups] == ["first", None]
        for ours, steps, root in zip(
            (*metrics.groups, metrics), (*effective, torch.cat(effective)), (*roots, torch.cat(roots)), strict=True
        ):
            expected = torch.quantile(steps, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
            assert ours.effective_step == pytest.approx(expected, rel=1e-12)
            assert ours.eps_floor == (root < eps).double().mean().item() == 1 / 6
        squares = [group.grad_norm**2 for group in metrics.groups]
        assert metrics.grad_norm == pytest.approx(math.sqrt(sum(squares)), rel=1e-12)
        optimizer.step()


@pytest.mark.parametrize("name", METRIC)
def test_effective_steps_are_those_of_scale_of(name: str) -> None:
    """Where the second moment has a value per element the quantiles are those of 1/s^(2p), s that of `scale_of`."""
    optimizer = maker(name)(plain(SHAPES), lr=1e-3, partial=0.3)  # less than the bounds of any member
    for step in range(3):
        give(optimizer, step)
        metrics = optimizer.metrics()
        scales = [scale for param in params_of(optimizer) if (scale := optimizer.scale_of(param)) is not None]
        steps = 1e-3 / joined(scales) ** 0.6
        expected = torch.quantile(steps, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
        assert metrics.effective_step == pytest.approx(expected, rel=1e-12)
        assert metrics.eps_floor is not None
        optimizer.step()


@pytest.mark.parametrize("partial", [1 / 8, 1 / 2])
def test_the_floor_is_where_epsilon_is_half_of_the_scale(partial: float) -> None:
    """Of roots of v evenly from 0.5 ε to 1.5 ε those below ε count."""
    (param,) = plain([(100,)])
    optimizer = pa.PartialAdam([param], eps=1e-3, partial=partial)
    param.grad = torch.linspace(0.5e-3, 1.5e-3, 100, dtype=torch.float64)
    assert optimizer.metrics().eps_floor == 0.5
    param.grad = torch.linspace(0.905e-3, 1.895e-3, 100, dtype=torch.float64)
    assert optimizer.metrics().eps_floor == 0.1


@pytest.mark.parametrize("name", METRIC)
def test_the_floor(name: str) -> None:
    """Where gradients are far below ε it decides the scale of all elements, where they are far above of none."""
    eps = {} if name == "partial_adafactor" else {"eps": 1e-3}
    (param,) = plain([(3, 4)])
    for factor, share in ((1e-20, 1.0), (1e3, 0.0)):
        optimizer = maker(name)([param], partial=0.5, **eps)
        param.grad = gradient(param, 0) * factor
        found = optimizer.metrics().eps_floor
        if name in ("partial_adadelta", "partial_yogi"):  # s is √ε/√ε there at first, and v starts above 0
            assert found in (0.0, 1.0)
        else:
            assert found == share


@pytest.mark.parametrize("name", [name for name in NAMES if name not in METRIC])
def test_without_a_value_per_element(name: str) -> None:
    """A spectrum has no value per element: the effective step is None, and at p = 0, where it is α, that."""
    optimizer = maker(name)(plain([(3, 4)]), lr=0.05)
    give(optimizer, 0)
    metrics = optimizer.metrics()
    assert metrics.effective_step is metrics.eps_floor is None
    optimizer.param_groups[0]["partial"] = 0.0
    assert optimizer.metrics().effective_step == (0.05, 0.05, 0.05)
    assert optimizer.metrics().eps_floor is None


def test_mixed_members() -> None:
    """Of two members in one optimizer the effective steps are those of the elements that have one."""
    optimizer = pa.Padam([{"params": plain([(3, 4)]), "member": "partial_muon"}, {"params": plain([(5,)])}])
    give(optimizer, 0)
    metrics = optimizer.metrics()
    assert metrics.groups[0].effective_step is None
    assert metrics.effective_step == metrics.groups[1].effective_step is not None


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_bad_gradients(name: str, skips: bool) -> None:
    """Of a group with a bad gradient only the norms of what is there are known; what would be skipped goes nowhere."""
    params = plain([(2, 3), (4,)])
    optimizer = maker(name)([{"params": params[:1]}, {"params": params[1:]}], skip_nonfinite=skips)
    for bad in (math.nan, math.inf):
        give(optimizer, 0)
        assert params[0].grad is not None
        params[0].grad[0, 0] = bad
        metrics = optimizer.metrics()
        first, second = metrics.groups
        assert metrics.grad_norm == pytest.approx(bad, nan_ok=True)
        assert first.grad_norm == pytest.approx(bad, nan_ok=True)
        assert second.grad_norm == pytest.approx(params[1].grad.norm().item())  # type: ignore[union-attr]  # give()
        assert metrics.effective_step is first.effective_step is metrics.eps_floor is first.eps_floor is None
        if skips:
            assert metrics.update_norm == first.update_norm == second.update_norm == 0
        else:
            assert math.isnan(metrics.update_norm)
            assert math.isnan(first.update_norm)
            assert second.update_norm > 0


def test_parameters_without_gradients() -> None:
    """They are in none of the norms; where no parameter has a gradient all of these are 0 and the ratios NaN."""
    params = plain([(3,), (2,)])
    optimizer = pa.Padam([{"params": params[:1]}, {"params": params[1:]}])
    nothing = dataclasses.astuple(optimizer.metrics().groups[1])
    assert nothing[:4] == (None, 0.0, 0.0, 0.0)
    assert all(map(math.isnan, nothing[4:6]))
    assert nothing[6:] == (None, None, ())
    params[0].grad = gradient(params[0], 0)
    metrics = optimizer.metrics()
    assert metrics.param_norm == pytest.approx(params[0].norm().item(), rel=1e-12)
    assert metrics == dataclasses.replace(metrics.groups[0], groups=metrics.groups)
    params[0].zero_()
    assert optimizer.metrics().grad_ratio == math.inf


@pytest.mark.parametrize("size", [1, 2, 3, 19, 20, 21, 1000])
def test_quantiles(size: int) -> None:
    """The quantiles of numbers in several pieces, of all sizes, equal ones among them, are torch's; 0 and inf count."""
    numbers = torch.randn(size, dtype=torch.float64).mul(3).exp()
    numbers[: size // 3] = numbers[0]
    numbers[size // 2 : size // 2 + size // 8] = 0
    fractions = (0.0, 0.05, 0.5, 0.95, 1.0)

    def histograms(prefixes: Any, shift: int) -> Tensor:
        return sum((module.counts(part, prefixes, shift) for part in numbers.split(7)), torch.zeros(()))

    expected = torch.quantile(numbers, torch.tensor(fractions, dtype=torch.float64)).tolist()
    assert module.quantiles(histograms, fractions) == pytest.approx(expected, rel=1e-14)
    numbers[-1] = math.inf
    found = module.quantiles(histograms, (1.0,))
    assert found == (math.inf,)


def test_a_step_that_is_called_bad() -> None:
    """Where `found_inf` says that the step will be skipped, the update is 0."""
    (param,) = parameters([(3,)])
    optimizer = pa.Padam([param])
    param.grad = torch.ones_like(param)
    optimizer.found_inf = torch.ones(())
    assert optimizer.metrics().update_norm == 0.0
    optimizer.found_inf = torch.zeros(())
    assert optimizer.metrics().update_norm > 0.0
