"""Parameters in 16 bits: rounding that is right on average, or that keeps what it loses, alike in every mode."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from family import CAPTURABLE, has, maker
from torch import Tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.execution import staging
from partial_adaptive.rules.rounding import HALVES, noise, stochastically
from partial_adaptive.testing.harness import MODES, contents, gradient, parameters, raises, same, train, values
from partial_adaptive.testing.persistence import saved

KINDS = ("stochastic", "kahan")
CPU = torch.device("cpu")
CASES = [pytest.param(name, mode, id=f"{name}-{mode}") for name in pa.MEMBERS for mode in CAPTURABLE if has(name, mode)]


def rounding(name: str, params: list[Any], kind: str, seed: int = 0, **options: Any) -> pa.PartialAdaptiveOptimizer:
    """A member that rounds in a way of its own."""
    return maker(name)([{"params": params, "rounding": kind, "rounding_seed": seed}], **options)


def halves(dtype: torch.dtype, scale: float = 1.0, count: int = 3) -> list[Parameter]:
    """Parameters in 16 bits, in memory of several kinds."""
    wide = [param.detach() * scale for param in parameters([(300,), (6, 5), ()][:count])]
    wide[1] = wide[1].t().contiguous().t()
    return [Parameter(param.to(dtype)) for param in wide]


# -- what is kept of a value


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_small_steps_arrive(kind: str, dtype: torch.dtype, mode: dict[str, Any]) -> None:
    """200 steps of 0.001 from 1 end at 0.8: to 0.002 in the mean of 1,000 elements, and with Kahan in each."""
    weight = Parameter(torch.ones(1000, dtype=dtype))
    optimizer = rounding("partial_adam", [weight], kind, lr=1e-3, partial=0.5, **mode)
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    result = weight.detach().double()
    assert result.mean().item() == pytest.approx(0.8, abs=0.002)
    if kind == "kahan":
        total = result + optimizer.state[weight]["compensation"].double() / 2**10
        assert (total - 0.8).abs().max() < 1e-3


def samples(dtype: torch.dtype) -> Tensor:
    """Values of every size that a dtype has: normal, subnormal, and less than the least."""
    least = 2.0**-24 if dtype == torch.float16 else 2.0**-133
    near = torch.tensor([1.0, 1.1, 1 + 1e-4, 0.3, 777.77], dtype=torch.float64)
    small = torch.tensor([0.3, 0.999, 1.5, 3.25, 700.1, 2047.6], dtype=torch.float64) * least
    both = torch.cat([near, small])
    return torch.cat([both, -both, torch.zeros(1)]).float()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_stochastic_rounding_is_unbiased(dtype: torch.dtype) -> None:
    """A value becomes one of its two neighbours; the mean of 2¹⁶ is within five standard errors of the value."""
    count = 2**16
    for value in samples(dtype):
        bits = noise(count, 3, 0, CPU)
        rounded = stochastically(value.expand(count).contiguous(), dtype, bits)
        assert torch.equal(rounded, rounded.to(dtype).float()), "not a number of the dtype"
        found = rounded.double().unique()
        assert len(found) <= 2
        width = found.max() - found.min()
        assert found.min() <= value <= found.max()
        assert len(found) == 1 or torch.nextafter(found.min().to(dtype), found.max().to(dtype)) == found.max().to(dtype)
        assert (rounded.double().mean() - value.double()).abs() <= 5 * width / 2 / count**0.5 + 2.0**-13 * width


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_what_needs_no_rounding_is_left(dtype: torch.dtype) -> None:
    """Every number of the dtype, infinities and NaN too, stays what it is, with whatever noise."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    rounded = stochastically(every.float(), dtype, noise(len(every), 1, 0, CPU)).to(dtype)
    assert torch.equal(rounded.nan_to_num(nan=7.0), every.nan_to_num(nan=7.0))
    assert torch.equal(rounded.isnan(), every.isnan())


def test_noise_is_uniform_and_independent() -> None:
    """All 32 bits, and neighbours, steps, seeds and values, are as independent as coins: within five deviations."""
    count, limit = 2**16, 5 * 2**8 / 2
    kinds = {
        "step": [noise(count, step, 0, CPU) for step in range(1, 6)],
        "seed": [noise(count, 1, seed, CPU) for seed in (0, 1, 2, 2**32 - 1)],
        "start": [noise(count, 1, 0, CPU, start=start) for start in (0, 1, count, 2**33 + 5)],
        "salt": [noise(count, 1, 0, CPU, salt=torch.full((count,), salt, dtype=torch.int32)) for salt in range(4)],
    }
    for kind, found in kinds.items():
        coins = [(one >> bit) & 1 for one in found for bit in range(32)]
        for one in coins:
            assert (one.sum() - count / 2).abs() < limit, f"{kind}: a bit is not even"
        for one, other in itertools.combinations(found, 2):
            different = ((one ^ other) >> 31) & 1
            assert (different.sum() - count / 2).abs() < limit, f"{kind}: noise of two is not independent"
        assert ((((found[0][1:] ^ found[0][:-1]) >> 31) & 1).sum() - count / 2).abs() < limit


def test_steps_are_independent() -> None:
    """In training, too, an element that was rounded up is as likely as others to be so at the next step."""
    weight = Parameter(torch.ones(2**16, dtype=torch.bfloat16))
    optimizer = rounding("partial_adam", [weight], "stochastic", lr=2.0**-10, partial=0.5, betas=(0.0, 0.9))
    ups = []
    for _ in range(2):
        before = weight.detach().clone()
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        ups.append((weight.detach() == before).double())
        with torch.no_grad():
            weight.fill_(1.0)  # so that both steps have the same chances
    assert 0.4 < ups[0].mean() < 0.9
    assert torch.corrcoef(torch.stack(ups))[0, 1].abs() < 5 * 2.0**-8


# -- modes


@pytest.mark.parametrize("scale", [1.0, 1e-5])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("name", "mode"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_modes_agree(kind: str, name: str, mode: dict[str, Any], dtype: torch.dtype, scale: float) -> None:
    """The noise is the same in every mode: after four steps all but a hundredth of the elements are, bit for bit.

    Those are where the modes' arithmetic differs in its last bit. Other noise would change a third of them.
    """
    results = []
    for options in ({"foreach": False}, mode):
        params = halves(dtype, scale)
        train(rounding(name, params, kind, lr=1e-3 * scale, **options), 4)
        results.append(torch.cat([param.detach().ravel() for param in params]))
    assert (results[0] != results[1]).double().mean() <= 0.01


@pytest.mark.parametrize(("name", "mode"), CASES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partial", [0.0, 0.3])
def test_resume(kind: str, partial: float, name: str, mode: dict[str, Any]) -> None:
    """Training goes on from a checkpoint bit for bit: the noise has no state, and compensation is in it."""
    params = halves(torch.bfloat16)
    optimizer = rounding(name, params, kind, partial=partial, **mode)
    train(optimizer, 2)
    copies = copy.deepcopy(params)
    resumed = maker(name)(copies, **mode)
    resumed.load_state_dict(saved(optimizer))
    train(optimizer, 2, start=2)
    train(resumed, 2, start=2)
    same(contents(resumed), contents(optimizer), "training resumed from a checkpoint differs")
    kept = {"compensation"} & optimizer.state[params[0]].keys()
    assert kept == ({"compensation"} if kind == "kahan" else set())


@pytest.mark.parametrize("foreach", [False, True])
def test_parts_of_a_tensor(foreach: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is updated in parts is rounded as it would be in one."""
    results = []
    for limit in (staging.LIMITS["cpu"], 64):
        monkeypatch.setitem(staging.LIMITS, "cpu", limit)
        params = halves(torch.bfloat16)
        train(rounding("padam", params, "stochastic", foreach=foreach), 3)
        results.append(values(params))
    same(results[1], results[0], "parts are rounded otherwise")


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
def test_seeds(mode: dict[str, Any]) -> None:
    """The same seed gives the same bits, another one others."""
    results = []
    for seed in (5, 5, 6):
        params = halves(torch.bfloat16)
        train(rounding("padam", params, "stochastic", seed, lr=1e-3, **mode), 3)
        results.append(torch.cat([param.detach().ravel() for param in params]))
    assert torch.equal(results[0], results[1])
    assert (results[0] != results[2]).double().mean() > 0.1


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_other_parameters_are_left_alone(kind: str, mode: dict[str, Any]) -> None:
    """Parameters of other dtypes in the group move as without, bit for bit, and keep nothing for it."""
    wide = [*parameters([(7,), (2, 3)]), *parameters([(5,)], torch.float32), *parameters([(5,)], torch.complex64)]
    twins = copy.deepcopy(wide)
    mixed = [wide[0], *halves(torch.bfloat16, count=2), *wide[1:]]
    optimizer = rounding("padam", mixed, kind, **mode)
    reference = pa.Padam(twins, **mode)
    for step in range(3):
        for i, (theirs, ours) in enumerate(zip(twins, wide, strict=True)):
            theirs.grad = gradient(theirs, step, i)
            ours.grad = theirs.grad.clone()
        for param in mixed[1:3]:
            param.grad = gradient(param, step)
        optimizer.step()
        reference.step()
    same(values(wide), values(twins), "rounding is not for these parameters")
    assert all("compensation" not in optimizer.state[param] for param in wide)


def totals(optimizer: pa.PartialAdaptiveOptimizer) -> list[Tensor]:
    """Parameters with their compensation, in float32."""
    zero = torch.zeros(())
    return [
        param.detach().float() + state.get("compensation", zero).float() / 2**10
        for param, state in optimizer.state.items()
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_rests(kind: str, name: str, mode: dict[str, Any]) -> None:
    """Zero gradients with lr 0 leave parameters as they are; with compensation that a run has left, the sum of both.

    Compensation is rounded, too: where it is just half of the parameter's spacing, an even neighbour may be chosen.
    """
    params = halves(torch.bfloat16)
    optimizer = rounding(name, params, kind, **mode)
    for steps in (0, 2):
        optimizer.param_groups[0]["lr"] = 1e-3
        train(optimizer, steps)
        optimizer.param_groups[0]["lr"] = 0.0
        before = totals(optimizer) if steps else values(params)
        for _ in range(2):
            for param in params:
                param.grad = torch.zeros_like(param)
            optimizer.step()
        same(totals(optimizer) if steps else values(params), before, "a step of nothing has changed something")


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"partial": 0.0}, {"weight_decay": 0.1, "decoupled_weight_decay": True}], ids=str
)
def test_kahan_has_the_digits_of_both(mode: dict[str, Any], options: dict[str, Any]) -> None:
    """With compensation parameters follow float32 ones to 2⁻¹⁴ over 50 steps; without they stray by 2⁻⁸ and more."""
    wide = [Parameter(param.detach().float()) for param in halves(torch.bfloat16)]
    low = halves(torch.bfloat16)
    optimizers = (
        pa.PartialAdam(wide, **options, lr=1e-3),
        rounding("partial_adam", low, "kahan", **options, lr=1e-3, **mode),
    )
    for step in range(50):
        for i, (theirs, ours) in enumerate(zip(wide, low, strict=True)):
            ours.grad = gradient(ours, step, i)
            theirs.grad = ours.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    same(totals(optimizers[1]), values(wide), "compensation has lost something", 2.0**-14)


def test_sparse_gradients() -> None:
    """Rows that a sparse gradient touches are rounded like others, and no others are."""
    for kind in KINDS:
        (weight,) = parameters([(50, 20)], torch.bfloat16)
        optimizer = rounding("partial_adagrad", [weight], kind, lr=1e-3)
        before = weight.detach().clone()
        for _ in range(3):
            weight.grad = torch.sparse_coo_tensor(
                torch.tensor([[3, 9]]), torch.ones(2, 20, dtype=weight.dtype), (50, 20), check_invariants=False
            )
            optimizer.step()
        moved = (weight.detach() != before).any(1).nonzero().ravel().tolist()
        assert moved == [3, 9]


@pytest.mark.parametrize("kind", KINDS)
def test_differentiable_refuses(kind: str) -> None:
    """Rounding has no derivative: it is refused by name, and nothing has moved."""
    params = values(halves(torch.bfloat16))
    optimizer = rounding("padam", params, kind, differentiable=True)
    before = contents(optimizer)
    message = raises(RuntimeError, lambda: train(optimizer, 1), "rounding must be refused")
    assert f"rounding={kind!r}" in message
    same(contents(optimizer), before, "a refused step has changed something")


def test_turned_on_in_mid_training() -> None:
    """A group that changes its rounding goes on: compensation starts at 0, and is dropped with the rounding."""
    params = halves(torch.bfloat16)
    optimizer = pa.Padam(params)
    for step, kind in enumerate(("nearest", "kahan", "stochastic", "kahan")):
        optimizer.param_groups[0]["rounding"] = kind
        train(optimizer, 1, start=step)
        assert ("compensation" in optimizer.state[params[0]]) == (kind == "kahan")


def test_compensation_stays_with_its_dtype() -> None:
    """A run in bfloat16 that goes on in float32 leaves its compensation behind."""
    low = halves(torch.bfloat16)
    optimizer = rounding("padam", low, "kahan")
    train(optimizer, 2)
    wide = [Parameter(param.detach().float()) for param in low]
    resumed = pa.Padam(wide)
    resumed.load_state_dict(saved(optimizer))
    assert all("compensation" not in resumed.state[param] for param in wide)
    train(resumed, 1)


@pytest.mark.parametrize("mode", [mode for mode in MODES if not mode.get("differentiable")], ids=str)
@pytest.mark.parametrize("start", [1.0, 1e-3, 1e-4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_kahan_at_every_size(dtype: torch.dtype, start: float, mode: dict[str, Any]) -> None:
    """200 steps of a thousandth end at .80, also of float16 weights whose spacing is below the dtype's range."""
    param = torch.full((64,), start, dtype=dtype)
    first = param.double()
    optimizer = pa.PartialAdagrad([param], lr=start / 1000, partial=0.0, rounding="kahan", **mode)
    for _ in range(200):
        param.grad = torch.ones_like(param)
        optimizer.step()
    assert ((param.double() - (first - 0.2 * start)).abs() / start < 4e-3).all()


def test_compensation_of_an_overwritten_value() -> None:
    """What was lost of a value that is not there any more does not come back: of a zeroed or repaired weight."""
    for before, after in ((1000.0, 0.0), (math.inf, 1.0), (1000.0, 1.0)):
        param = torch.full((8,), before, dtype=torch.bfloat16)
        optimizer = pa.PartialAdagrad([param], lr=0.3, partial=0.0, rounding="kahan")
        for lr in (0.3, 0.0):
            param.grad = torch.ones_like(param)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
            param.fill_(after)
        optimizer.step()
        assert torch.equal(param, torch.full_like(param, after))
