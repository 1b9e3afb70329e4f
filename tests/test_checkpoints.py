"""Checkpoints from torch.optim and of other dtypes; a change of optimizer; distributed checkpoints."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from family import maker, takes_complex, with_modes
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive.testing.harness import MODES, contents, parameters, params_of, same, train, values

COUNTERPARTS = [
    *((m.name, m.counterpart, dict(m.counterpart_options)) for m in pa.MEMBERS.values() if m.counterpart),
    ("padam", torch.optim.Adam, {"amsgrad": False}),
    ("padam", torch.optim.AdamW, {"amsgrad": True}),
    ("partial_adam", torch.optim.AdamW, {}),
    ("partial_rmsprop", torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
]


ALL_MODES: list[dict[str, Any]] = [*MODES, {"differentiable": True}]


def cases() -> Iterator[Any]:
    """(member, counterpart, options, dtype), complex numbers where torch takes them."""
    for name, counterpart, options in COUNTERPARTS:
        for dtype in (torch.float64, torch.complex128) if takes_complex(counterpart) else (torch.float64,):
            label = f"{name}-{counterpart.__name__}-{options}-{dtype}"
            yield pytest.param(name, counterpart, options, dtype, id=label)


@pytest.mark.parametrize(("name", "counterpart", "options", "dtype", "mode"), with_modes(cases()))
def test_torch_checkpoint_goes_on(
    name: str, counterpart: Any, options: dict[str, Any], dtype: torch.dtype, mode: dict[str, Any]
) -> None:
    """A torch.optim checkpoint loads into the member, hyperparameters and all, and at p = 1/2 goes on exactly."""
    theirs = parameters(dtype=dtype)
    reference = counterpart(theirs, lr=0.01, weight_decay=0.1, foreach=False, **options)
    train(reference, 10)
    ours = copy.deepcopy(theirs)
    decoupled = {"decoupled_weight_decay": True} if counterpart is torch.optim.AdamW else {}  # older ones do not say so
    optimizer = pa.create(name, ours, partial=0.5, **decoupled)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    optimizer.param_groups[0].update(mode)
    assert optimizer.param_groups[0]["lr"] == 0.01
    train(reference, 10, start=10)
    train(optimizer, 10, start=10)
    same(values(ours), values(theirs), f"{name} does not go on where {counterpart.__name__} was", 1e-12)


@pytest.mark.parametrize(("name", "counterpart", "options"), COUNTERPARTS, ids=str)
def test_warm_start_takes_over(name: str, counterpart: Any, options: dict[str, Any]) -> None:
    """warm_start takes the running optimizer's moments, not its hyperparameters; at p = 1/2 it goes on exactly."""
    params = parameters()
    running = counterpart(params, lr=0.01, foreach=False, **options)
    train(running, 10)
    ours = copy.deepcopy(params)
    twins = dict(zip(params, ours, strict=True))
    before = copy.deepcopy(running.state_dict())
    running_on_twins = counterpart(ours, **options)
    running_on_twins.state.update({twins[param]: state for param, state in running.state.items()})
    decoupled = {"decoupled_weight_decay": True, "weight_decay": 0.01} if counterpart is torch.optim.AdamW else {}
    eps = running.defaults["eps"]
    optimizer = pa.create(name, ours, lr=0.02, eps=eps, partial=0.5, **options, **decoupled)
    optimizer.warm_start(running_on_twins)
    assert optimizer.param_groups[0]["lr"] == 0.02
    train(optimizer, 5, start=10)
    after = running.state_dict()
    for index, state in before["state"].items():
        same(list(after["state"][index].values()), list(state.values()), "warm_start has changed the source")
    for group in running.param_groups:
        group["lr"] = 0.02
    train(running, 5, start=10)
    same(values(ours), values(params), f"{name} does not take over from {counterpart.__name__}", 1e-12)


def test_adam_to_padam() -> None:
    """Switching Adam → Padam in mid-training keeps both averages and the count; the maximum starts from there."""
    params = parameters()
    adam = torch.optim.Adam(params)
    train(adam, 10)
    padam = pa.Padam(params, lr=0.1)
    padam.warm_start(adam)
    for param in params:
        same([padam.state[param]["exp_avg_sq"]], [adam.state[param]["exp_avg_sq"]], "the average was not taken over")
        assert padam.state[param]["step"] == 10
    train(padam, 1, start=10)
    for param in params:
        state = padam.state[param]
        same([state["max_exp_avg_sq"]], [state["exp_avg_sq"]], "the maximum must start with the average")


def test_sgd_endpoint_to_padam() -> None:
    """From p = 0 the first moment is taken over and the estimator starts at its own step 1."""
    params = parameters()
    sgd = pa.Padam(params, partial=0.0)
    train(sgd, 3)
    padam = pa.Padam(params)
    padam.warm_start(sgd)
    train(padam, 1, start=3)
    state = padam.state[params[0]]
    assert (state["step"], state["estimator_step"]) == (4, 1)


def test_unrelated_source_starts_afresh() -> None:
    """What the source has under other names is not guessed: only parameters with usable state are taken."""
    params = parameters()
    rmsprop = torch.optim.RMSprop(params)
    train(rmsprop, 2)
    with pytest.raises(ValueError, match="source must hold state"):
        pa.Padam(params).warm_start(rmsprop)


def test_older_checkpoint_has_plain_steps() -> None:
    """Checkpoints from before torch 1.12 hold the step as a number."""
    params = parameters()
    adam = torch.optim.Adam(params, amsgrad=True)
    train(adam, 3)
    checkpoint = copy.deepcopy(adam.state_dict())
    for state in checkpoint["state"].values():
        state["step"] = int(state["step"])
    optimizer = pa.Padam(params)
    optimizer.load_state_dict(checkpoint)
    train(optimizer, 1, start=3)
    assert optimizer.state[params[0]]["step"] == 4


def test_load_runs_the_users_hooks() -> None:
    """Hooks that change a checkpoint on its way in are heard, and loading leaves none of its own behind."""
    params = parameters()
    source = pa.Padam(params, lr=0.3)
    train(source, 1)
    optimizer = pa.Padam(params)

    def halve(_: Any, checkpoint: dict[str, Any]) -> dict[str, Any]:
        groups = [{**group, "lr": group["lr"] / 2} for group in checkpoint["param_groups"]]
        return {**checkpoint, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(halve)
    optimizer.load_state_dict(source.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.15
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


def test_post_hooks_have_the_last_word() -> None:
    """A hook after loading finds the state as it will be used, and what it changes stands, wherever it is in line."""
    source = pa.Padam(parameters(dtype=torch.bfloat16), lr=0.3)
    train(source, 2)
    optimizer = pa.Padam(parameters(dtype=torch.bfloat16))
    seen: list[Any] = []

    def note(it: Any) -> None:
        seen.append([(state["exp_avg"].dtype, state["step"].item()) for state in it.state.values()])

    def change(it: Any) -> None:
        it.param_groups[0]["lr"] = 0.7
        it.param_groups[0]["partial"] = 0.25
        for state in it.state.values():
            state["step"].fill_(40.0)
            state["exp_avg"] = torch.zeros_like(state["exp_avg"])

    optimizer.register_load_state_dict_post_hook(note, prepend=True)
    optimizer.register_load_state_dict_post_hook(change)
    for _ in range(2):
        optimizer.load_state_dict(source.state_dict())
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["partial"]) == (0.7, 0.25)
        assert all(state["step"] == 40 and not state["exp_avg"].any() for state in optimizer.state.values())
    assert seen == [[(torch.float32, 2.0)] * 4] * 2
    train(optimizer, 1)
    assert all(state["step"] == 41 for state in optimizer.state.values())


def checkpoint_of(optimizer: torch.optim.Optimizer, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The optimizer's checkpoint with the state of its second parameter changed."""
    checkpoint = copy.deepcopy(optimizer.state_dict())
    change(checkpoint["state"][1])
    return checkpoint


def entire(optimizer: pa.PartialAdaptiveOptimizer) -> Any:
    """What a refused checkpoint must leave as it was."""
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return contents(optimizer), copy.deepcopy(groups), [set(optimizer.state[param]) for param in params_of(optimizer)]


def setting(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets an entry of the state."""
    return lambda state: state.update({name: value})


UNFIT: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "shape": (setting("exp_avg", torch.zeros(4)), r"'exp_avg' must have the shape \(5,\).* got \(4,\)"),
    "shape that broadcasts": (setting("exp_avg_sq", torch.zeros(1)), r"'exp_avg_sq' must have the shape \(5,\)"),
    "number of dimensions": (setting("exp_avg", torch.zeros(5, 1)), r"'exp_avg' must have the shape \(5,\)"),
    "steps": (setting("step", torch.zeros(5)), r"'step' must have the shape \(\).* got \(5,\)"),
    "text": (setting("max_exp_avg_sq", "mean"), r"'max_exp_avg_sq' must be a tensor or a number, got 'mean'"),
    "complex": (setting("exp_avg", torch.zeros(5, dtype=torch.complex64)), "'exp_avg'"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_state_that_does_not_fit(kind: str) -> None:
    """A checkpoint with an entry that does not fit is a ValueError with its name, and nothing has changed."""
    change, message = UNFIT[kind]
    source, optimizer = pa.Padam(parameters(), lr=0.3, partial=0.25), pa.Padam(parameters())
    train(source, 2)
    train(optimizer, 1)
    contents_before, *before = entire(optimizer)
    with pytest.raises(ValueError, match=message) as error:
        optimizer.load_state_dict(checkpoint_of(source, change))
    assert "Padam" in str(error.value)
    contents_after, *after = entire(optimizer)
    same(contents_after, contents_before, "a refused checkpoint has changed a tensor")
    assert after == before
    optimizer.load_state_dict(source.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", -1.0), ("partial", 0.7), ("betas", (0.9, 1.0)), ("betas", 0.9), ("eps", "1e-8"), ("amsgrad", None)],
    ids=str,
)
def test_hyperparameters_that_are_not_allowed(name: str, value: Any) -> None:
    """A checkpoint with a hyperparameter out of its range is refused by name, and nothing has changed."""
    source, optimizer = pa.Padam(parameters()), pa.Padam(parameters())
    train(source, 2)
    train(optimizer, 1)
    contents_before, *before = entire(optimizer)
    checkpoint = source.state_dict()
    checkpoint["param_groups"][0][name] = value
    with pytest.raises((ValueError, TypeError), match=f"Padam: {name} must be"):
        optimizer.load_state_dict(checkpoint)
    contents_after, *after = entire(optimizer)
    same(contents_after, contents_before, "a refused checkpoint has changed a tensor")
    assert after == before


STEPS = [3, 3.0, torch.tensor(3), torch.tensor([3.0]), torch.tensor([[3]]), torch.tensor(3.0, dtype=torch.float64)]


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("step", STEPS, ids=str)
def test_steps_of_any_kind(step: Any, mode: dict[str, Any]) -> None:
    """Whatever a checkpoint counts in becomes a 0-dim floating-point tensor, and training goes on exactly."""
    source = pa.Padam(parameters())
    train(source, 3)
    checkpoint = checkpoint_of(source, setting("step", step))
    params = [param.detach().clone() for param in params_of(source)]
    optimizer = pa.Padam(params)
    optimizer.load_state_dict(checkpoint)
    optimizer.param_groups[0].update(mode)
    loaded = optimizer.state[params[1]]["step"]
    assert loaded.shape == ()
    assert loaded.is_floating_point()
    assert loaded == 3
    train(optimizer, 2, start=3)
    train(source, 2, start=3)
    same(values(params), values(params_of(source)), "training does not go on", 1e-12)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("step", [3, torch.tensor(3), torch.tensor([3.0]), torch.tensor([3])], ids=str)
def test_loading_repairs_steps(step: Any, mode: dict[str, Any]) -> None:
    """Counts of another kind that have got into the state are refused by name, and loading one's own state heals."""
    ours = [param.detach() for param in parameters()]
    optimizer, reference = pa.Padam(ours, **mode), pa.Padam(parameters())
    train(optimizer, 3)
    train(reference, 3)
    for param in ours:
        optimizer.state[param]["step"] = copy.deepcopy(step)
    with pytest.raises(RuntimeError, match=r"Padam: parameter number 0 .*state\['step'\] that must be a 0-dim"):
        train(optimizer, 1, start=3)
    optimizer.load_state_dict(optimizer.state_dict())
    train(optimizer, 2, start=3)
    train(reference, 2, start=3)
    same(values(ours), values(params_of(reference)), "training does not go on", 1e-12)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("names", [("step",), ("exp_avg",), ("exp_avg_sq", "max_exp_avg_sq")], ids=str)
def test_none_is_what_is_not_there(names: tuple[str, ...], mode: dict[str, Any]) -> None:
    """An entry that is None in a checkpoint, as some of torch's were, counts as missing."""
    source = pa.Padam(parameters())
    train(source, 3)
    results = []
    changes: tuple[Callable[[dict[str, Any]], Any], ...] = (
        lambda state: state.update(dict.fromkeys(names)),
        lambda state: [state.pop(name) for name in names],
    )
    for change in changes:
        params = [param.detach().clone() for param in params_of(source)]
        optimizer = pa.Padam(params)
        optimizer.load_state_dict(checkpoint_of(source, change))
        optimizer.param_groups[0].update(mode)
        assert not set(names) & optimizer.state[params[1]].keys()
        train(optimizer, 2, start=3)
        results.append(contents(optimizer))
    same(results[0], results[1], "None is not what is missing")
    assert all(bool(tensor.isfinite().all()) for tensor in results[0])


FLAGS: list[dict[str, Any]] = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}, {"differentiable": True}]


@pytest.mark.parametrize("theirs", FLAGS, ids=str)
@pytest.mark.parametrize("ours", FLAGS, ids=str)
@pytest.mark.parametrize("missing", [(), ("fused",), ("foreach",), ("foreach", "fused", "differentiable")], ids=str)
def test_modes_that_clash(ours: dict[str, Any], theirs: dict[str, Any], missing: tuple[str, ...]) -> None:
    """Modes come from the checkpoint unless they exclude what it leaves as it is here; either way training goes on."""
    source = pa.Padam([param.detach() for param in parameters()], **theirs)
    train(source, 2)
    params = [param.detach().clone() for param in params_of(source)]
    optimizer = pa.Padam(params, **ours)
    checkpoint = source.state_dict()
    for name in missing:
        del checkpoint["param_groups"][0][name]
    optimizer.load_state_dict(checkpoint)
    group = optimizer.param_groups[0]
    modes = {name: group[name] for name in ("foreach", "fused", "differentiable")}
    merged = {"foreach": None, "fused": None, "differentiable": False, **ours, **checkpoint["param_groups"][0]}
    merged = {name: merged[name] for name in modes}
    clash = sum(map(bool, merged.values())) > 1
    assert modes == ({"foreach": None, "fused": None, "differentiable": False, **ours} if clash else merged)
    train(optimizer, 2, start=2)
    train(source, 2, start=2)
    same(values(params), values(params_of(source)), "training does not go on", 1e-12)


def test_own_entries_of_groups() -> None:
    """Names of parameters and keys of the user's own stay where the checkpoint has none."""
    source = pa.Padam(parameters())
    train(source, 1)
    names = [f"layer.{i}" for i in range(4)]
    groups = [{"params": list(zip(names, parameters(), strict=True)), "tag": "mine", "theme": [1]}]
    optimizer = pa.Padam(groups)
    checkpoint = source.state_dict()
    checkpoint["param_groups"][0]["theme"] = [2]
    optimizer.load_state_dict(checkpoint)
    group = optimizer.param_groups[0]
    assert (group["param_names"], group["tag"], group["theme"]) == (names, "mine", [2])


@pytest.mark.parametrize("shapes", [[(2,)], [(2,)] * 9], ids=len)
def test_wrong_checkpoint(shapes: list[tuple[int, ...]]) -> None:
    """A checkpoint of another model is refused by torch's own error, and the optimizer stays as it was."""
    optimizer = pa.Padam(parameters())
    train(optimizer, 1)
    before = contents(optimizer)
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(pa.Padam(parameters(shapes)).state_dict())
    same(contents(optimizer), before, "a refused checkpoint has changed something")


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_distributed_checkpoint(name: str) -> None:
    """torch.distributed.checkpoint makes state by a step with zero gradients and lr 0; training goes on exactly."""

    def setup() -> tuple[nn.Module, pa.PartialAdaptiveOptimizer]:
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
        with torch.no_grad():
            for param, value in zip(model.parameters(), parameters([(4, 3), (4,), (2, 4), (2,)]), strict=True):
                param.copy_(value)
        return model, maker(name)(model.parameters(), weight_decay=0.1)

    model, optimizer = setup()
    train(optimizer, 3)
    checkpoint = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    twin, resumed = setup()
    twin.load_state_dict(model.state_dict())
    set_optimizer_state_dict(twin, resumed, checkpoint)
    same(values(twin.parameters()), values(model.parameters()), "making state has moved a parameter")
    train(optimizer, 3, start=3)
    train(resumed, 3, start=3)
    same(contents(resumed), contents(optimizer), "training resumed from a distributed checkpoint differs")


HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize(
    ("saved", "param", "state_dtype", "expected"),
    [
        (SINGLE, HALF, None, SINGLE),  # a float32 run goes on in bfloat16
        (SINGLE, HALF, SINGLE, SINGLE),
        (SINGLE, HALF, HALF, HALF),
        (HALF, HALF, None, SINGLE),  # torch keeps such state in bfloat16, which is less than it starts with here
        (HALF, SINGLE, None, SINGLE),
        (HALF, SINGLE, HALF, HALF),
        (torch.float16, HALF, None, SINGLE),
        (SINGLE, DOUBLE, None, DOUBLE),
        (DOUBLE, SINGLE, None, DOUBLE),
        (DOUBLE, SINGLE, SINGLE, SINGLE),
        (DOUBLE, HALF, None, DOUBLE),
        (torch.complex64, torch.complex128, None, torch.complex128),
        (torch.complex128, torch.complex64, None, torch.complex128),
        (torch.complex128, torch.complex64, SINGLE, torch.complex64),
    ],
    ids=str,
)
def test_state_dtypes(
    saved: torch.dtype,
    param: torch.dtype,
    state_dtype: torch.dtype | None,
    expected: torch.dtype,
    mode: dict[str, Any],
) -> None:
    """State keeps its dtype, or gets this optimizer's where that is wider; `state_dtype` has its way. It is not lost.

    Training then goes on in every mode as a loop does.
    """
    theirs = parameters(dtype=saved)
    adam = torch.optim.Adam(theirs, amsgrad=True, foreach=False)
    train(adam, 2)
    checkpoint = copy.deepcopy(adam.state_dict())
    results = []
    for options in ({"foreach": False}, mode):
        ours = [it.detach().clone().to(param) for it in theirs]
        optimizer = pa.Padam(ours, state_dtype=state_dtype)
        optimizer.load_state_dict(checkpoint)
        optimizer.param_groups[0].update(options)
        for twin, it in zip(theirs, ours, strict=True):
            for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
                right = adam.state[twin][name].to(expected)
                same([optimizer.state[it][name]], [right], f"{name} is not {saved} state in {expected}")
        train(optimizer, 2, start=2)
        assert {optimizer.state[it]["exp_avg"].dtype for it in ours} == {expected}
        results.append(values(ours))
    tolerance = {HALF: 1e-2, SINGLE: 2e-6, torch.complex64: 2e-6}.get(param, 1e-12)
    same(results[1], results[0], f"{mode} is not what a loop does", tolerance)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_state_comes_in_the_order_of_its_parameter(mode: dict[str, Any]) -> None:
    """State of contiguous parameters is laid out as those of the model are that it is loaded into."""
    shapes = [(2, 3, 4, 4), (3, 5)]
    source = pa.Padam(parameters(shapes))
    train(source, 2)
    images, matrix = (param.detach().clone() for param in params_of(source))
    ours = [images.to(memory_format=torch.channels_last), matrix.t().contiguous().t()]
    optimizer = pa.Padam(ours)
    optimizer.load_state_dict(source.state_dict())
    optimizer.param_groups[0].update(mode)
    for param in ours:
        assert optimizer.state[param]["exp_avg"].stride() == param.stride()
    train(optimizer, 2, start=2)
    train(source, 2, start=2)
    same(values(ours), values(params_of(source)), "training does not go on", 1e-12)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_warm_start_refuses_what_does_not_fit(name: str) -> None:
    """State of another shape is refused by name, and nothing has been taken."""
    params = parameters()
    adam = torch.optim.Adam(params)
    train(adam, 2)
    adam.state[params[1]][name] = torch.zeros(7)
    padam = pa.Padam(params)
    with pytest.raises(ValueError, match=rf"Padam: .*'{name}' must have the shape \(5,\).* got \(7,\)"):
        padam.warm_start(adam)
    assert not padam.state


def test_state_dtype_in_a_torch_checkpoint() -> None:
    """float32 moments from a float32 run are kept where the model goes on in bfloat16 with state_dtype=float32."""
    wide = parameters(dtype=torch.float32)
    adam = torch.optim.Adam(wide, amsgrad=True)
    train(adam, 2)
    low = [Parameter(param.detach().bfloat16()) for param in wide]
    optimizer = pa.Padam(low, state_dtype=torch.float32)
    optimizer.load_state_dict(adam.state_dict())
    for param, twin in zip(wide, low, strict=True):
        same([optimizer.state[twin]["exp_avg"]], [adam.state[param]["exp_avg"]], "float32 state was rounded")
