"""State in a code: what of a value is kept, which slots are coded, and that every member trains, saves and resumes."""

import copy
import math
from typing import Any

import pytest
import torch
from family import ELEMENTWISE, WHOLE, maker
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.rules.codecs import Block8
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.rules.stage import Slot, average_
from partial_adaptive.testing.harness import contents, gradient, parameters, raises, same, train, values
from partial_adaptive.testing.persistence import saved

LOOPS: list[dict[str, Any]] = [{"foreach": False}, {"foreach": True}, {"capturable": True}]
SHAPES = [(3, 4), (300,), (), (0,), (20, 30)]
STEP = 2 ** (1 / 8)  # from a level of the code to the next


def spread(count: int = 3000, octaves: float = 30.0) -> Tensor:
    """Positive values of which those of a block are within so many octaves."""
    return torch.exp2(torch.rand(count, generator=torch.Generator().manual_seed(0)) * octaves - octaves)


@pytest.mark.parametrize("signed", [False, True])
def test_values_come_back_to_a_level(signed: bool) -> None:
    """Within its reach a value comes back as one of its two neighbours, which are 2^(1/8) apart, with its sign."""
    code, value = Block8(signed=signed), spread(octaves=14.0 if signed else 30.0)
    if signed:
        value[::2].neg_()
    decoded = code.decode(code.encode(value), value.shape)
    ratio = decoded / value
    assert ratio.min() > 1 / STEP
    assert ratio.max() < STEP


def test_nothing_but_zero_becomes_zero() -> None:
    """A second moment that is lost would be divided by: without signs what is too small becomes the smallest."""
    value = torch.tensor([1.0, 1e-8, 1e-12, 1e-30, 1e-45, 0.0])
    code = Block8(signed=False)
    for part in (value, value[3:], value[4:]):
        decoded = code.decode(code.encode(part), part.shape)
        assert ((decoded == 0) == (part == 0)).all()
        assert (decoded >= part / STEP).all()


@pytest.mark.parametrize("signed", [False, True])
def test_what_is_coded_stays_itself(signed: bool) -> None:
    """Coded again, at whatever step, and beside a larger value, a decoded value is the same, bit for bit."""
    code = Block8(signed=signed)
    value = spread() * (torch.arange(3000) % 2 * 2 - 1 if signed else 1)
    decoded = code.decode(code.encode(value), value.shape)
    for step in (1, 2):
        same([code.decode(code.encode(decoded, step), value.shape)], [decoded], "a coded value drifts")
    decoded[0] = 8 * decoded.abs()[:256].max()
    again = code.decode(code.encode(decoded, 3), value.shape)
    reached = decoded.abs()[1:256] > decoded[0] * 2.0 ** (-14 if signed else -30)
    assert torch.equal(again[1:256][reached], decoded[1:256][reached]), "another value's growth has moved a value"


@pytest.mark.parametrize("signed", [False, True])
def test_rounding_is_unbiased(signed: bool) -> None:
    """The mean over 4,000 steps is the value: within five standard errors, of the most that a level's width allows."""
    code, value, steps = Block8(signed=signed), spread(256, 10.0), 4000
    mean = torch.zeros(256)
    for step in range(steps):
        mean += code.decode(code.encode(value, step), value.shape) / steps
    assert ((mean / value - 1).abs() < 5 * (STEP - 1) / 2 / math.sqrt(steps)).all()


@pytest.mark.parametrize("signed", [False, True])
def test_tensors_are_rounded_independently(signed: bool) -> None:
    """At one step errors of two tensors have nothing to do with each other: a correlation of 4096 pairs below 0.06."""
    code = Block8(signed=signed)
    tensors = [torch.rand(4096, generator=torch.Generator().manual_seed(seed)) / 16 + 0.93 for seed in (0, 1)]
    errors = torch.stack([code.decode(code.encode(x, 3), x.shape) - x for x in tensors])
    same_way = (errors > 0).double()
    assert abs(torch.corrcoef(same_way)[0, 1].item()) < 0.06


@pytest.mark.parametrize(("start", "target"), [(1.0, 0.25), (0.25, 1.0), (1.0, 0.0)])
def test_a_slow_average_follows(start: float, target: float) -> None:
    """An average with β = 0.999 moves by less than half a level at a step: to the nearest it would never move.

    The mean of 4,096 averages after 1,000 steps is 1/e on the way from its target, to 2 %.
    """
    code, shape = Block8(signed=False), torch.Size([4096])
    parts = code.encode(torch.full(shape, start))
    goal = torch.full(shape, target)
    for step in range(1000):
        average = code.decode(parts, shape)
        average_(average, goal, 0.999)
        parts = code.encode(average, step)
    expected = target + (start - target) * 0.999**1000
    assert code.decode(parts, shape).mean().item() == pytest.approx(expected, rel=0.02)


def test_steps_by_coded_moments() -> None:
    """Where gradients of a block spread over half a decade, coded v is right on average, and the steps nearly so.

    After 2,000 steps at β₂ = 0.999 the mean of v over its exact value is 1, to 2 %; 1/√v is off by less than 14 % (the
    root of the mean square), s^(−2p) at p = 1/8 by less than 4 %.
    """
    code, generator = Block8(signed=False), torch.Generator().manual_seed(0)
    sizes = 10 ** (torch.randn(4096, generator=generator) / 2)
    exact = torch.zeros(4096)
    parts = code.encode(exact)
    for step in range(2000):
        square = (torch.randn(4096, generator=generator) * sizes * (1.0 if step < 1000 else 0.5)).square()
        average_(exact, square, 0.999)
        average = code.decode(parts, exact.shape)
        parts = code.encode(average_(average, square, 0.999), step)
    ratio = code.decode(parts, exact.shape) / exact
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.02)
    assert (ratio**-0.5 - 1).square().mean().sqrt() < 0.14
    assert (ratio**-0.125 - 1).square().mean().sqrt() < 0.04


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_not_finite_is_seen(signed: bool, bad: float) -> None:
    """A block with something that is not finite is NaN; the others are as they would be."""
    value = torch.ones(600)
    value[300] = bad
    code = Block8(signed=signed)
    decoded = code.decode(code.encode(value), value.shape)
    assert decoded[256:512].isnan().all()
    assert (decoded[:256] == 1).all()
    assert (decoded[512:] == 1).all()


def test_bytes() -> None:
    """An element takes a byte, and a block of 256 four more."""
    weight = Parameter(torch.ones(64, 64))
    optimizer = pa.PartialAdam([weight], state_dtype="8bit")
    train(optimizer, 1)
    kept = sum(x.nbytes for x in optimizer.state[weight].values() if x.ndim)
    assert kept == 2 * (4096 + 4 * 4096 // 256)


@pytest.mark.parametrize("block", [0, 2.5])
def test_bad_blocks(block: Any) -> None:
    """A block has elements."""
    with pytest.raises(ValueError, match=f"block must be a whole number ≥ 1, got {block}"):
        Block8(block=block)


# -- members


@pytest.mark.parametrize("mode", LOOPS, ids=str)
@pytest.mark.parametrize("name", pa.MEMBERS)
@pytest.mark.parametrize("partial", [0.0, 0.5])
def test_resume(name: str, mode: dict[str, Any], partial: float) -> None:
    """Every member trains on from a checkpoint of coded state, read by weights_only, bit for bit, whatever the loop."""
    params = parameters(SHAPES, torch.float32)
    make = maker(name, state_dtype="8bit", partial=partial, **mode)
    optimizer = make(params)
    train(optimizer, 2)
    copies = copy.deepcopy(params)
    resumed = make(copies)
    resumed.load_state_dict(saved(optimizer))
    same(contents(resumed), contents(optimizer), "coded state does not come back as it was stored")
    train(optimizer, 2, start=2)
    train(resumed, 2, start=2)
    same(contents(resumed), contents(optimizer), "training resumed from coded state differs")
    assert all(param.isfinite().all() for param in params)


@pytest.mark.parametrize("mode", LOOPS[1:], ids=str)
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_loops_agree(name: str, mode: dict[str, Any]) -> None:
    """One step with coded state, from the same coded state, is the same in every loop, to 1e-6."""
    results = []
    for options in (LOOPS[0], mode):
        params = parameters(SHAPES, torch.float32)
        optimizer = maker(name, state_dtype="8bit")(params)
        train(optimizer, 2)
        optimizer.param_groups[0].update(options)
        train(optimizer, 1, start=2)
        results.append(values(params))
    same(results[1], results[0], f"{mode} moves otherwise", 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("name", pa.MEMBERS)
def test_rests(name: str, dtype: torch.dtype) -> None:
    """Zero gradients with lr 0 leave parameters as they are; what `scale_of` says is finite, of a parameter's size."""
    params = parameters(SHAPES[:3], dtype)
    optimizer = maker(name, state_dtype="8bit", lr=0.0)(params)
    before = values(params)
    for _ in range(3):
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
    same(values(params), before, "a step of nothing has moved a parameter")
    for i, param in enumerate(params):
        param.grad = gradient(param, 0, i)
        scale = optimizer.scale_of(param)
        assert scale is None or (scale.isfinite().all() and scale.numel() == param.numel() * (1 + param.is_complex()))


@pytest.mark.parametrize("mode", [{"fused": True}, {"differentiable": True}], ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_compiled_modes_refuse(name: str, mode: dict[str, Any]) -> None:
    """What compiles, or differentiates, says which slot it does not take, and nothing has moved."""
    params = values(parameters(SHAPES[:2]))
    optimizer = maker(name, state_dtype="8bit", **mode)(params)
    if not optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).slots:
        pytest.skip("without slots there is no code")
    before = contents(optimizer)
    message = raises(RuntimeError, lambda: train(optimizer, 1), "coded slots must be refused")
    assert "takes no coded slots, as '" in message
    same(contents(optimizer), before, "a refused step has changed something")


def test_sparse() -> None:
    """Sparse gradients leave what dense ones leave, bit for bit: the code too."""
    dense, sparse = parameters([(40, 20)], torch.float32), parameters([(40, 20)], torch.float32)
    make = maker("partial_adagrad", state_dtype="8bit")
    optimizers = make(dense), make(sparse)
    for step in range(3):
        rows = torch.tensor([[step, 7, 9]])
        grad = torch.sparse_coo_tensor(rows, gradient(dense[0], step)[:3], (40, 20), check_invariants=False)
        dense[0].grad, sparse[0].grad = grad.to_dense(), grad
        for optimizer in optimizers:
            optimizer.step()
    same(contents(optimizers[1]), contents(optimizers[0]), "sparse gradients differ from dense ones")


@pytest.mark.parametrize("name", [*ELEMENTWISE[:2], *WHOLE])
def test_distributed_checkpoint(name: str) -> None:
    """Distributed checkpointing makes coded state on a fresh optimizer and fills it; training goes on bit for bit."""

    def setup() -> tuple[nn.Module, pa.PartialAdaptiveOptimizer]:
        model = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 2))
        with torch.no_grad():
            for i, param in enumerate(model.parameters()):
                param.copy_(gradient(param, 5, i))
        return model, maker(name, state_dtype="8bit")(model.parameters())

    model, optimizer = setup()
    train(optimizer, 3)
    checkpoint = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    twin, resumed = setup()
    twin.load_state_dict(model.state_dict())
    set_optimizer_state_dict(twin, resumed, checkpoint)
    train(optimizer, 2, start=3)
    train(resumed, 2, start=3)
    same(contents(resumed), contents(optimizer), "training resumed from a distributed checkpoint differs")


# -- which slot is stored how


def dtypes(optimizer: pa.PartialAdaptiveOptimizer) -> dict[str, torch.dtype]:
    """Those of the state of the first parameter."""
    state = optimizer.state[optimizer.param_groups[0]["params"][0]]
    return {name: value.dtype for name, value in state.items() if name not in ("step", "estimator_step")}


CODED = {"exp_avg_sq": torch.uint8, "exp_avg_sq_scale": torch.float32}


@pytest.mark.parametrize(
    ("state_dtype", "expected"),
    [
        (None, {"exp_avg": torch.float32, "exp_avg_sq": torch.float32}),
        (torch.float64, {"exp_avg": torch.float64, "exp_avg_sq": torch.float64}),
        ({"exp_avg_sq": "8bit"}, {"exp_avg": torch.float32, **CODED}),
        ({"exp_avg_sq": "8bit", "exp_avg": torch.bfloat16}, {"exp_avg": torch.bfloat16, **CODED}),
        ([["exp_avg_sq", "8bit"], ["*", torch.bfloat16]], {"exp_avg": torch.bfloat16, **CODED}),
        ("8bit", {"exp_avg": torch.uint8, "exp_avg_scale": torch.float32, **CODED}),
        ({"max_exp_avg_sq": "8bit"}, {"exp_avg": torch.float32, "exp_avg_sq": torch.float32}),
    ],
    ids=str,
)
def test_slots(state_dtype: Any, expected: dict[str, torch.dtype]) -> None:
    """A slot is stored as its name, or "*", says; the group holds that as plain data, for checkpoints."""
    optimizer = pa.Padam(parameters([(3,)], torch.float32), state_dtype=state_dtype, amsgrad=False)
    train(optimizer, 1)
    assert dtypes(optimizer) == expected
    (group,) = saved(optimizer)["param_groups"]
    assert group["state_dtype"] == optimizer.param_groups[0]["state_dtype"]
    hash(group["state_dtype"])


def test_a_dict_in_the_group() -> None:
    """A dict that is set in mid-training counts wherever the rule is asked for, before a step has looked at it."""
    params = parameters([(3,)], torch.float32)
    train(source := pa.Padam(params), 1)
    optimizer = pa.Padam(params)
    optimizer.param_groups[0]["state_dtype"] = {"exp_avg_sq": "8bit"}
    optimizer.warm_start(source)
    assert dtypes(optimizer)["exp_avg_sq"] == torch.uint8
    scale = optimizer.scale_of(params[0])
    assert scale is not None
    assert scale.isfinite().all()


def test_the_order_of_names_does_not_matter() -> None:
    """Two groups that say the same in another order are updated as one."""
    one, other = ({"exp_avg": torch.bfloat16, "*": None}, {"*": None, "exp_avg": torch.bfloat16})
    params = parameters([(3,), (3,)])
    groups = [{"params": [param], "state_dtype": choice} for param, choice in zip(params, (one, other), strict=True)]
    optimizer = pa.Padam(groups)
    assert optimizer.param_groups[0]["state_dtype"] == optimizer.param_groups[1]["state_dtype"]


def test_a_code_for_all_is_for_slots_like_the_parameter() -> None:
    """Rows and columns are small: "8bit" leaves them; by name they can be coded, too."""
    params = parameters([(64, 32)], torch.float32)
    train(general := pa.PartialAdafactor(params, state_dtype="8bit"), 1)
    train(named := pa.PartialAdafactor(params, state_dtype={"row_var": "8bit"}), 1)
    assert set(dtypes(general).values()) == {torch.float32}
    assert dtypes(named)["row_var"] == torch.uint8


def test_a_variance_is_not_coded() -> None:
    """The difference v − ḡ² of coarse values would be noise: a code for all leaves both, and by name it is refused."""
    params = parameters([(3,)], torch.float32)
    train(optimizer := pa.PartialRMSprop(params, centered=True, state_dtype="8bit"), 1)
    assert set(dtypes(optimizer).values()) == {torch.float32}
    with pytest.raises(ValueError, match="stores 'grad_avg' as '8bit', which keeps too few digits"):
        pa.PartialRMSprop(params, centered=True, state_dtype={"grad_avg": "8bit"})


@pytest.mark.parametrize("in_group", [False, True])
def test_unknown_slots(in_group: bool) -> None:
    """A name that no slot has is an error that names those there are, before a group is added or anything is moved."""
    choice = {"exp_avg_sqr": "8bit"}
    expected = r"'exp_avg_sqr', .*did you mean 'exp_avg_sq'\?.* exp_avg, exp_avg_sq, max_exp_avg_sq, .*and '\*'"
    params: Any = [{"params": parameters(), "state_dtype": choice}] if in_group else parameters()
    with pytest.raises(ValueError, match=expected):
        pa.Padam(params, **({} if in_group else {"state_dtype": choice}))
    optimizer = pa.Padam(parameters())
    train(optimizer, 1)
    before = contents(optimizer)
    optimizer.param_groups[0]["state_dtype"] = choice
    raises(ValueError, lambda: train(optimizer, 1), "an unknown slot must be refused in mid-training")
    same(contents(optimizer), before, "a refused step has changed something")


class Root:
    """A code whose only part does not have the name of the slot."""

    def encode(self, value: Tensor, step: Any = 0) -> dict[str, Tensor]:
        return {"_root": value.sqrt()}

    def decode(self, parts: Any, shape: torch.Size) -> Tensor:
        root: Tensor = parts["_root"].float()
        return root.square()


class Rooted(ExpAvgSq):
    """Adam's, stored as its root."""

    slots = {"exp_avg_sq": Slot(codec=Root(), nonnegative=True)}


def test_age_of_coded_state() -> None:
    """Coded state counts its gradients by whatever names it has: from a checkpoint on, and over a pause at p = 0."""
    (param,) = parameters([(3,)], torch.float32)

    def make() -> pa.PartialAdaptiveOptimizer:
        return pa.PartialAdaptiveOptimizer([param], {"lr": 0.1}, estimator=Rooted())

    train(first := make(), 2)
    second = make()
    second.load_state_dict(first.state_dict())
    train(second, 1, start=2)
    assert second.state[param].keys() == {"step", "estimator_step", "exp_avg_sq_root"}
    second.param_groups[0]["partial"] = 0.0
    train(second, 2, start=3)
    assert second.state[param]["estimator_step"] == 3


# -- from a dtype to a code and back


def real(value: Tensor) -> Tensor:
    """Complex numbers as pairs."""
    return torch.view_as_real(value) if value.is_complex() else value


def changed(
    way: str, source: torch.optim.Optimizer, params: list[Parameter], state_dtype: str | None
) -> pa.PartialAdaptiveOptimizer:
    """A PartialAdam with the state of a source, in the way that state comes from elsewhere."""
    optimizer = pa.PartialAdam(params, state_dtype=state_dtype)
    if way == "warm start":
        optimizer.warm_start(source)
    elif way == "load":
        checkpoint = source.state_dict()
        checkpoint["param_groups"][0].pop("state_dtype", None)
        optimizer.load_state_dict(checkpoint)
    else:  # the group of an optimizer that trains, which sees it at the next step; nothing else happens at this one
        optimizer.warm_start(source)
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.param_groups[0].update(state_dtype=state_dtype, lr=0.0, betas=(1 - 2**-50, 1 - 2**-50))
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("way", ["load", "warm start", "group"])
def test_from_values_to_codes_and_back(way: str, dtype: torch.dtype) -> None:
    """Values that come to a coded slot are coded, and codes that come to a plain one decoded, however they come."""
    params = parameters([(20, 30), (5,)], dtype)
    source = pa.PartialAdam(params)
    train(source, 3)
    coded = changed(way, source, params, "8bit")
    plain = changed(way, coded, params, None)
    for param in params:
        before, between, after = source.state[param], coded.state[param], plain.state[param]
        assert between.keys() == {*before, "exp_avg_scale", "exp_avg_sq_scale"}
        assert after.keys() == before.keys()
        for name, code in (("exp_avg", Block8()), ("exp_avg_sq", Block8(signed=False))):
            value = real(before[name])
            decoded = code.decode({"": between[name], "_scale": between[f"{name}_scale"]}, value.shape)
            far = (decoded - value).abs() > (STEP - 1) * value.abs() + 2.0**-15 * value.abs().max()
            assert not far.any(), f"{name} is not what has been coded"
            assert after[name].dtype == before[name].dtype
            same([real(after[name])], [decoded.to(value.dtype)], f"{name} is not what the code says", 1e-14)
