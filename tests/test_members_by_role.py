"""A param group that names its member: one optimizer does, bit for bit, what two side by side would."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from family import maker
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import ExponentialLR

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, gradient, parameters, params_of, train, values

HOST = "partial_adam"
OTHERS = [name for name in pa.MEMBERS if name != HOST]
SHAPES = [(4, 3), (2, 3, 2), (5,), (3,)]  # of which the first two go to another member
ALL_MODES: list[dict[str, Any]] = [*MODES, {"differentiable": True}]
HOSTS = {"lr": 0.05, "partial": 0.25, "weight_decay": 0.01}
OWN = {"lr": 0.02, "partial": 0.125}


def own(name: str) -> dict[str, Any]:
    return {**OWN, **pa.MEMBERS[name].options}


def mixed(name: str, params: list[Any], **mode: Any) -> pa.PartialAdaptiveOptimizer:
    """The host, with a group of another member."""
    groups = [{"params": params[:2], "member": name, **own(name)}, {"params": params[2:]}]
    return pa.create(HOST, groups, **HOSTS, **mode)


def apart(name: str, params: list[Any], **mode: Any) -> list[pa.PartialAdaptiveOptimizer]:
    """Both members, each with an optimizer of its own."""
    return [maker(name)(params[:2], **own(name), **mode), pa.create(HOST, params[2:], **HOSTS, **mode)]


def set_grads(params: list[Any], step: int) -> None:
    for i, param in enumerate(params):
        param.grad = gradient(param, step, i).detach()


def stepped(optimizers: list[Any], params: list[Any], steps: range) -> None:
    for step in steps:
        set_grads(params, step)
        for optimizer in optimizers:
            optimizer.step()


def equal(ours: list[Any], theirs: list[Any]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def cases() -> Iterator[Any]:
    for name in OTHERS:
        for mode in ALL_MODES:
            if not mode.get("fused") or pa.MEMBERS[name].elementwise:
                yield pytest.param(name, mode, id=f"{name}-{mode}")


@pytest.mark.parametrize(("name", "mode"), [*cases()])
def test_equal_to_two_optimizers(name: str, mode: dict[str, Any]) -> None:
    """Parameters and state after some steps are the same bits, in every mode that the member has."""
    ours, theirs = values(parameters(SHAPES)), values(parameters(SHAPES))
    optimizer, two = mixed(name, ours, **mode), apart(name, theirs, **mode)
    stepped([optimizer], ours, range(4))
    stepped(two, theirs, range(4))
    assert equal(ours, theirs)
    for param, twin in zip(ours, theirs, strict=True):
        state, other = optimizer.state[param], next(one for one in two if twin in one.state).state[twin]
        assert state.keys() == other.keys()
        assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoints(name: str) -> None:
    """A checkpoint is plain data with the member in it; a new optimizer goes on from it as two would."""
    ours, theirs = values(parameters(SHAPES)), values(parameters(SHAPES))
    optimizer, two = mixed(name, ours), apart(name, theirs)
    stepped([optimizer], ours, range(3))
    stepped(two, theirs, range(6))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = mixed(name, ours)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    stepped([resumed], ours, range(3, 6))
    assert equal(ours, theirs)
    assert resumed.param_groups[0]["member"] == name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
@pytest.mark.parametrize("name", ["partial_muon", "padam"])
def test_copies(name: str, copied: Any) -> None:
    """A copy knows its members and goes on as the original does."""
    ours = values(parameters(SHAPES))
    optimizer = mixed(name, ours)
    stepped([optimizer], ours, range(2))
    twin = copied(optimizer)
    theirs = params_of(twin)
    stepped([optimizer], ours, range(2, 4))
    stepped([twin], theirs, range(2, 4))
    assert equal(ours, theirs)


class Model(nn.Module):
    """Parameters under names."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.ParameterList(parameters(SHAPES))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_distributed_checkpoints(name: str, flat: bool) -> None:
    """torch.distributed.checkpoint's state dicts, by name and flattened, bring both members back."""
    net, other = Model(), Model()
    ours, theirs = list(net.all), list(other.all)
    optimizer = mixed(name, ours)
    stepped([optimizer], ours, range(3))
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    saved = get_optimizer_state_dict(net, optimizer, options=options)
    for param in theirs:
        param.grad = None
    resumed = mixed(name, theirs)
    set_optimizer_state_dict(other, resumed, saved, options=options)
    with torch.no_grad():
        for param, twin in zip(ours, theirs, strict=True):
            twin.copy_(param)
    stepped([optimizer], ours, range(3, 5))
    stepped([resumed], theirs, range(3, 5))
    assert equal(values(ours), values(theirs))


@pytest.mark.parametrize("name", OTHERS)
def test_schedulers(name: str) -> None:
    """Torch's schedulers and a `Schedule` of p move all groups, as one for each of two optimizers would."""
    ours, theirs = values(parameters(SHAPES)), values(parameters(SHAPES))
    optimizer, two = mixed(name, ours), apart(name, theirs)
    everyone = [optimizer, *two]
    decays = [ExponentialLR(one, 0.5) for one in everyone]
    moves = [pa.Schedule(one, partial=pa.Linear(0.5, 4)) for one in everyone]
    for step in range(5):
        stepped([optimizer], ours, range(step, step + 1))
        stepped(two, theirs, range(step, step + 1))
        for scheduler in (*decays, *moves):
            scheduler.step()
    assert equal(ours, theirs)
    assert {group["partial"] for group in optimizer.param_groups} == {0.5}


def test_a_schedule_of_what_one_member_has() -> None:
    """A hyperparameter that only some groups have is scheduled in these; what no group has is an error."""
    optimizer = mixed("partial_muon", values(parameters(SHAPES)))
    schedule = pa.Schedule(optimizer, momentum=pa.Linear(0.5, 3), beta1=pa.Linear(0.0, 3))
    schedule.step()
    muon, adam = optimizer.param_groups
    assert (muon["momentum"], adam["betas"][0]) == (pytest.approx(0.725), pytest.approx(0.45))
    assert "betas" not in muon
    assert "momentum" not in adam
    resumed = pa.Schedule(optimizer, momentum=pa.Linear(0.5, 3), beta1=pa.Linear(0.0, 3))
    resumed.load_state_dict(schedule.state_dict())
    resumed.step()
    assert (muon["momentum"], adam["betas"][0]) == (0.5, 0.0)
    with pytest.raises(TypeError, match="PartialAdam has no numeric hyperparameter 'rho'"):
        pa.Schedule(optimizer, rho=pa.Linear(0.0, 3))
    with pytest.raises(ValueError, match="agc must be a number in every group to be scheduled, got None"):
        pa.Schedule(optimizer, agc=pa.Linear(0.0, 3))


def test_a_schedule_of_some_groups() -> None:
    """DynMuon's p is for the matrices alone: other groups keep p and lr, also where the learning rate goes along."""
    ours = values(parameters(SHAPES))
    groups = [
        {
            "params": ours[:2],
            "member": "partial_muon",
            "beyond_half": True,
            "partial": 0.0,
            **pa.MEMBERS["partial_muon"].options,
        },
        {"params": ours[2:]},
    ]
    optimizer = pa.create(HOST, groups, **HOSTS)
    known = {0.0: 1.0, 1.0: 0.01}
    schedule = pa.Schedule(optimizer, groups=[0], partial=pa.DynMuon(10), lr=pa.Linear(0.0, 20), rescale_lr=known)
    for step in range(9):
        stepped([optimizer], ours, range(step, step + 1))
        schedule.step()
    muon, adam = optimizer.param_groups
    assert muon["partial"] > 0.6
    assert (adam["partial"], adam["lr"]) == (HOSTS["partial"], HOSTS["lr"])
    before = [dict(group) for group in optimizer.param_groups]
    resumed = pa.Schedule(optimizer, groups=[0], partial=pa.DynMuon(10), lr=pa.Linear(0.0, 20), rescale_lr=known)
    resumed.load_state_dict(schedule.state_dict())
    assert [dict(group) for group in optimizer.param_groups] == before
    for wrong in ([2], [], [0.0], "0"):
        with pytest.raises(ValueError, match="Schedule: groups must be positions of groups, 0 to 1, got"):
            pa.Schedule(optimizer, groups=wrong, lr=pa.Linear(0.0, 3))


def test_a_schedule_of_betas_in_tensors() -> None:
    """Groups that hold tensors start from their own, whether or not the groups before have that number."""
    ours = values(parameters(SHAPES))
    optimizer = mixed("partial_muon", ours, capturable=True)
    optimizer.param_groups[1]["betas"] = (torch.tensor(0.8), torch.tensor(0.9))
    schedule = pa.Schedule(optimizer, beta1=pa.Linear(0.4, 3))
    schedule.step()
    torch.testing.assert_close(optimizer.param_groups[1]["betas"][0], torch.tensor(0.6))


def test_defaults_are_the_members() -> None:
    """A group has its member's defaults and none of the host's, but runs as the optimizer does."""
    given: dict[str, Any] = {"maximize": True, "foreach": False, "rounding": "stochastic", "state_dtype": "8bit"}
    optimizer = pa.PartialAdam([{"params": [torch.ones(2, 2)], "member": "partial_muon"}], lr=0.5, **given)
    (group,) = optimizer.param_groups
    expected = pa.PartialMuon([torch.ones(2, 2)], **given).defaults
    assert {name: value for name, value in group.items() if name not in ("params", "member")} == expected
    assert optimizer.defaults["lr"] == 0.5


def test_one_of_ones_own() -> None:
    """A class that declares a name can be asked for by it, and a class that is defined anew takes its place."""

    def define(factor: float) -> None:
        class Mine(pa.PartialAdaptiveOptimizer, member="a_test's"):
            def __init__(self, params: Any, lr: float = 0.1) -> None:
                super().__init__(params, {"lr": lr * factor}, estimator=pa.PartialAdam(params).recipe.second_moment)

    for factor in (1.0, 2.0):
        define(factor)
        param = torch.zeros(2)
        optimizer = pa.Padam([{"params": [param], "member": "a_test's", "partial": 0.0}])
        param.grad = torch.ones(2)
        optimizer.step()
        torch.testing.assert_close(param, torch.full((2,), -0.1 * factor))


def test_a_member_has_defaults() -> None:
    """A class that needs more than params has no defaults for a group: its name, the member's and what is missing."""

    class Needy(pa.PartialAdaptiveOptimizer, member="a_needy_test's"):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr}, estimator=pa.PartialAdam(params).recipe.second_moment)

    optimizer = pa.create(HOST, [torch.ones(2)])
    with pytest.raises(
        TypeError, match=r"PartialAdam: member \"a_needy_test's\" must .* defaults .*; .*missing .* 'lr'"
    ):
        optimizer.add_param_group({"params": [torch.ones(2)], "member": "a_needy_test's", "lr": 0.1})
    assert len(optimizer.param_groups) == 1


def test_a_name_is_taken_once() -> None:
    """Another class with a member's name is refused where it is defined."""
    with pytest.raises(ValueError, match="member must be a name that is not taken, got 'padam', which is Padam's"):
        type("Another", (pa.PartialAdaptiveOptimizer,), {}, member="padam")


@pytest.mark.parametrize(
    ("entries", "error", "words"),
    [
        ({"member": "partial_mu"}, ValueError, "PartialAdam: member must be one of .*'partial_mu'.*'partial_muon'"),
        ({"member": pa.Padam}, ValueError, "PartialAdam: member must be one of .*Padam"),
        ({"member": "partial_muon", "betas": (0.9, 0.99)}, TypeError, "PartialMuon .*unexpected .*'betas'.*momentum"),
        ({"member": "partial_muon", "momentum": 1.5}, ValueError, "PartialMuon: momentum must be .*1.5"),
        ({"member": "partial_muon", "partial": 0.7}, ValueError, "PartialMuon: partial must be .*0.7"),
    ],
)
def test_bad_groups(entries: dict[str, Any], error: type[Exception], words: str) -> None:
    """An unknown member, or what the member does not take, is refused by name before anything is added."""
    optimizer = pa.create(HOST, [torch.ones(2)])
    with pytest.raises(error, match=words):
        optimizer.add_param_group({"params": [torch.ones(2, 2)], **entries})
    assert len(optimizer.param_groups) == 1


def test_a_vector_without_a_role() -> None:
    """A matrix member's group with a vector in it is refused by the parameter's name, and no group has moved."""
    named = [("matrix", torch.ones(2, 2)), ("vector", torch.ones(2))]
    rest = torch.ones(3)
    optimizer = pa.PartialAdam([{"params": [("rest", rest)]}, {"params": named, "member": "partial_muon"}])
    set_grads([rest, *(param for _, param in named)], 0)
    with pytest.raises(RuntimeError, match=r"PartialMuon: parameter 'vector'.* cannot have a Spectrum: it takes"):
        optimizer.step()
    assert torch.equal(rest, torch.ones(3))
    assert not optimizer.state


def test_checkpoints_of_other_members() -> None:
    """A checkpoint whose groups name other members is refused, with both names, before anything has changed."""
    ours = values(parameters(SHAPES))
    optimizer = mixed("padam", ours)
    train(optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    for other in (mixed("partial_muon", ours), pa.create(HOST, [{"params": ours[:2]}, {"params": ours[2:]}])):
        with pytest.raises(ValueError, match=r"member must be the checkpoint's, .*, got 'padam'"):
            optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert all(torch.equal(after["state"][i][k], v) for i, state in before["state"].items() for k, v in state.items())


def test_scale_and_warm_start() -> None:
    """What looks into a parameter's state asks its own member: `scale_of` and `warm_start`."""
    ours = values(parameters(SHAPES))
    optimizer = mixed("partial_rmsprop", ours)
    stepped([optimizer], ours, range(2))
    twins = [param.clone() for param in ours]
    source = torch.optim.RMSprop(twins[:2], lr=0.0)
    started = mixed("partial_rmsprop", twins)
    for step in range(2):
        set_grads(twins, step)
        source.step()
    started.warm_start(source)
    for param, twin in zip(ours[:2], twins[:2], strict=True):
        scale, other = optimizer.scale_of(param), started.scale_of(twin)
        assert scale is not None
        assert other is not None
        torch.testing.assert_close(scale, other)


def test_a_new_group() -> None:
    """Groups of other members can be added during training."""
    first, second = torch.ones(2, 2), torch.ones(2, 2)
    optimizer = pa.PartialAdam([first], lr=0.1)
    set_grads([first], 0)
    optimizer.step()
    optimizer.add_param_group({"params": [second], "member": "partial_muon", "lr": 0.1})
    set_grads([first, second], 1)
    optimizer.step()
    assert optimizer.state[second].keys() == {"step", "estimator_step", "momentum_buffer"}
    alone = torch.ones(2, 2)
    set_grads([alone], 1)
    alone.grad = second.grad
    pa.PartialMuon([alone], lr=0.1).step()
    assert torch.equal(second, alone)


def test_freed_with_its_last_reference() -> None:
    """An optimizer is in no cycle of references: its state is freed at once, without the garbage collector."""
    gc.disable()
    try:
        optimizer = mixed("padam", values(parameters(SHAPES)))
        stepped([optimizer], params_of(optimizer), range(1))
        state = weakref.ref(next(iter(optimizer.state.values()))["exp_avg"])
        del optimizer
        assert state() is None
    finally:
        gc.enable()


def test_a_member_stays() -> None:
    """A group that is given another member without what that needs is refused by name, and nothing moves."""
    param = torch.ones(2, 2)
    optimizer = pa.PartialAdam([param], lr=0.1)
    set_grads([param], 0)
    optimizer.param_groups[0]["member"] = "partial_muon"
    with pytest.raises(RuntimeError, match=r"PartialMuon: param group 0 must have 'momentum'"):
        optimizer.step()
    assert torch.equal(param, torch.ones(2, 2))


def test_grad_scaler() -> None:
    """A `GradScaler` unscales the gradients of both members, and skips the step of both."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    optimizer, reference = mixed("padam", ours), mixed("padam", theirs)
    for step in range(3):
        set_grads(theirs, step)
        for param, twin in zip(ours, theirs, strict=True):
            assert twin.grad is not None
            param.grad = twin.grad * scaler.scale(torch.ones(()))
        if step == 1:
            ours[0].grad = torch.full_like(ours[0], torch.inf)
        else:
            reference.step()
        scaler.step(optimizer)
        scaler.update()
    same_bits: list[tuple[Tensor, Tensor]] = [*zip(values(ours), values(theirs), strict=True)]
    for one, other in same_bits:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


OPERATIONS = ("lr", "partial", "mode", "freeze", "thaw", "reload", "clear", "copy", "resize", "options")


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(st.sampled_from(list(pa.MEMBERS)), min_size=2, max_size=3),
    life=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 9)), max_size=8),
)
def test_random_lives(names: list[str], life: list[tuple[str, int]]) -> None:
    """Whatever happens to the groups between steps, one optimizer of many members does what one for each would."""
    shapes = [(4, 3), (3, 2)]
    ours, theirs = ([values(parameters(shapes)) for _ in names] for _ in range(2))
    one: pa.PartialAdaptiveOptimizer = pa.Padam(
        [{"params": params, "member": name, **own(name)} for name, params in zip(names, ours, strict=True)]
    )
    many = [maker(name)(params, **own(name)) for name, params in zip(names, theirs, strict=True)]
    frozen: set[int] = set()
    for step, (operation, number) in enumerate([("lr", 0), *life]):
        index = number % len(names)
        for groups in (one.param_groups, [other.param_groups[0] for other in many]):
            group = groups[index]
            match operation:
                case "lr":
                    group["lr"] = 0.01 * (number + 1)
                case "partial":
                    group["partial"] = number / 18
                case "options":
                    group.update(momentum_after=0.5 * (number % 2), clip_rms=(None, 0.1)[number % 2])
                case "mode":
                    group["foreach"] = (None, True, False)[number % 3]
        if operation == "freeze":
            frozen.add(index)
        elif operation == "thaw":
            frozen.discard(index)
        elif operation == "clear":
            for optimizer, params in ((one, ours[index]), (many[index], theirs[index])):
                optimizer.state.pop(params[number % 2], None)
        elif operation == "reload":
            for optimizer in (one, *many):
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        elif operation == "copy":
            one = copy.deepcopy(one)
            ours = [group["params"] for group in one.param_groups]
        elif operation == "resize":
            for optimizer, params in ((one, ours[index]), (many[index], theirs[index])):
                optimizer.state.pop(params[0], None)
                params[0].set_(torch.ones(5, 2, dtype=params[0].dtype))
        for params in (*ours, *theirs):
            set_grads(params, step)
        for i in frozen:
            for param in (*ours[i], *theirs[i]):
                param.grad = None
        for optimizer in (one, *many):
            optimizer.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert equal(mine, other), f"{operation} {number} at step {step}"
