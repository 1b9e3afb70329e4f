"""Parameters, gradients and state that do not fit: a step refuses them by name, and nothing has changed."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from family import CAPTURABLE, METRIC, maker, shaped
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor

import partial_adaptive as pa
from partial_adaptive import Padam, PartialAdaptiveOptimizer
from partial_adaptive.rules.numerators import ExpAvg
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.testing.harness import MODES, gradient, parameters, params_of, same, values

ALL_MODES = [*MODES, {"differentiable": True}, {"capturable": True}]


def kept(optimizer: PartialAdaptiveOptimizer) -> Any:
    """What a refused step must leave as it was, bit for bit."""
    return copy.deepcopy(([param.detach() for param in params_of(optimizer)], list(optimizer.state.values())))


def alike(ours: Any, theirs: Any) -> bool:
    """Whether two nests of tensors and other things are the same."""
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
        if ours.device.type == "meta" or ours.layout is not torch.strided:
            return ours.shape == theirs.shape
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(alike(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(alike, ours, theirs))
    return type(ours) is type(theirs) and repr(ours) == repr(theirs)


def refused(optimizer: PartialAdaptiveOptimizer, *parts: str) -> None:
    """The step must raise RuntimeError with these parts in its message, and change nothing, twice."""
    before = kept(optimizer)
    for _ in range(2):
        with pytest.raises(RuntimeError) as error:
            optimizer.step()
        for part in ("Padam", *parts):
            assert part in str(error.value)
        assert alike(kept(optimizer), before), "the refused step has changed something"


def trained(mode: dict[str, Any], dtype: torch.dtype = torch.float32, steps: int = 1) -> Padam:
    """An optimizer of three parameters, with gradients for the next step."""
    params = parameters([(3,), (2, 3), (3,)], dtype=dtype)
    leaves = [param.detach() if mode.get("differentiable") else param for param in params]
    optimizer = Padam(list(zip(("first", "second", "third"), leaves, strict=True)), **mode)
    for step in range(steps + 1):
        for i, param in enumerate(params_of(optimizer)):
            param.grad = gradient(param, step, i)
        if step < steps:
            optimizer.step()
    return optimizer


ENTRIES: dict[str, tuple[str, Any]] = {
    "no step": ("step", None),
    "step as a number": ("step", 1.0),
    "int64 step": ("step", torch.tensor(1)),
    "step of one dimension": ("step", torch.ones(1)),
    "complex step": ("step", torch.tensor(1j)),
    "no tensor": ("exp_avg", None),
    "array": ("exp_avg", np.ones((2, 3))),
    "shape": ("exp_avg", torch.zeros(3, 2)),
    "shape that broadcasts": ("exp_avg_sq", torch.zeros(3)),
    "int64": ("max_exp_avg_sq", torch.zeros(2, 3, dtype=torch.int64)),
    "bool": ("exp_avg", torch.zeros(2, 3, dtype=torch.bool)),
    "elsewhere": ("exp_avg", torch.zeros(2, 3, device="meta")),
    "sparse": ("exp_avg", torch.ones(2, 3).to_sparse()),
    "expanded": ("exp_avg_sq", torch.ones(1).expand(2, 3)),
    "complex": ("exp_avg", torch.zeros(2, 3, dtype=torch.complex64)),
}


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("entry", ENTRIES)
def test_state_that_does_not_fit(entry: str, mode: dict[str, Any]) -> None:
    """State replaced by what does not fit is a RuntimeError that names the parameter and the entry."""
    optimizer = trained(mode)
    name, value = ENTRIES[entry]
    optimizer.state[params_of(optimizer)[1]][name] = value
    refused(optimizer, "'second'", "(2, 3)", f"state['{name}']")


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"])
def test_real_state_of_a_complex_parameter(name: str, mode: dict[str, Any]) -> None:
    """Half the memory that a kernel would write to: refused like any other entry that does not fit."""
    optimizer = trained(mode, torch.complex64)
    param = params_of(optimizer)[1]
    optimizer.state[param][name] = torch.zeros(12)[:6].view(2, 3)  # memory enough for a kernel that errs
    refused(optimizer, "'second'", "(2, 3)", f"state['{name}']")


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_two_entries_in_one_memory(name: str, mode: dict[str, Any]) -> None:
    """One tensor as the state of two parameters, or of one twice, is refused in every mode; so is a parameter."""
    for owner, other in ((0, name), (2, "max_exp_avg_sq"), (0, None)):
        optimizer = trained(mode)
        params = params_of(optimizer)
        state, theirs = optimizer.state[params[2]], optimizer.state[params[owner]]
        right = state[name]
        state[name] = params[owner].detach() if other is None else theirs[other]
        refused(optimizer, "(3,)", "state['", "memory")  # either of the two may be named
        state[name] = right
        optimizer.step()


@pytest.mark.parametrize("mode", CAPTURABLE, ids=str)
def test_one_count_for_two_parameters(mode: dict[str, Any]) -> None:
    """Two parameters with one tensor as `step`: every mode does what a loop does, or refuses before any change.

    Parameters that have nothing to do with it are updated as if it were not so.
    """
    optimizer, loop, plain = trained(mode), trained({"foreach": False}), trained(mode)
    for each in (optimizer, loop):
        first, _, third = params_of(each)
        each.state[third]["step"] = each.state[first]["step"]
    before, refusal = kept(optimizer), ""
    try:
        optimizer.step()
    except RuntimeError as error:
        refusal = str(error)
    if refusal:
        assert "step" in refusal
        assert alike(kept(optimizer), before), "the refused step has changed something"
    else:
        loop.step()
        plain.step()
        same(values(params_of(optimizer)), values(params_of(loop)), f"{mode} is not what a loop does", 1e-6)
        same(values(params_of(optimizer))[1:2], values(params_of(plain))[1:2], "another parameter has suffered", 1e-6)


def with_grad(value: Tensor) -> Callable[[Tensor], None]:
    """Set a gradient that torch's own checks would refuse."""

    def set_(param: Tensor) -> None:
        original = param.data
        param.grad = None
        param.data = torch.empty(value.shape, dtype=value.dtype, device=value.device)
        param.grad = value
        param.data = original

    return set_


GRADIENTS: dict[str, tuple[Callable[[Tensor], None], str]] = {
    "shape": (with_grad(torch.ones(3, 2)), "gradient of shape (3, 2)"),
    "shape that broadcasts": (with_grad(torch.ones(3)), "gradient of shape (3,)"),
    "complex": (with_grad(torch.ones(2, 3, dtype=torch.complex64)), "gradient of torch.complex64"),
}


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize("steps", [0, 1])
def test_gradients_that_do_not_fit(kind: str, mode: dict[str, Any], steps: int) -> None:
    """A gradient that is not one of its parameter is a RuntimeError that names the parameter and what is wrong."""
    optimizer = trained(mode, steps=steps)
    change, message = GRADIENTS[kind]
    change(params_of(optimizer)[1])
    refused(optimizer, "'second'", "(2, 3)", message)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_parameters_that_do_not_fit(mode: dict[str, Any]) -> None:
    """Whole numbers and expanded tensors cannot be trained, and the message says which parameter and why."""
    plain = torch.ones(3)
    whole = torch.ones(2, 3, dtype=torch.int64)
    expanded = torch.ones(1).expand(2, 3)
    for param, message in ((whole, "torch.int64"), (expanded, "is expanded")):
        optimizer = Padam([("plain", plain), ("second", param)], **mode)
        plain.grad, param.grad = torch.ones(3), torch.ones_like(param)
        refused(optimizer, "'second'", "(2, 3)", message)
        assert not optimizer.state


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
def test_unnamed_parameters_are_numbered(mode: dict[str, Any]) -> None:
    """Where parameters have no names the message has the number in the group."""
    params = [torch.ones(3) for _ in range(3)]
    optimizer = Padam(params, **mode)
    for param in params:
        param.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[params[2]]["exp_avg"] = torch.ones(2)
    refused(optimizer, "number 2 of its group", "state['exp_avg']")


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("argument", ["estimator", "momentum", "before", "after"])
def test_a_missing_return(argument: str, mode: dict[str, Any]) -> None:
    """A stage that returns nothing is named, in every mode, before anything has changed."""
    kinds: dict[str, tuple[type, str]] = {
        "estimator": (ExpAvgSq, "scale"),
        "momentum": (ExpAvg, "numerator"),
        "before": (pa.Transform, "apply"),
        "after": (pa.Transform, "apply"),
    }
    base, method = kinds[argument]
    forgetful = type("Forgetful", (base,), {method: lambda *args: None})()
    stages: dict[str, Any] = {"estimator": ExpAvgSq(), argument: (forgetful,) if base is pa.Transform else forgetful}
    params = [param.detach() for param in parameters()]
    optimizer = PartialAdaptiveOptimizer(params, {"lr": 0.1, **mode}, **stages)
    for param in params:
        param.grad = torch.ones_like(param)
    before = kept(optimizer)
    with pytest.raises(TypeError, match=r"Forgetful.* must return .*got None"):
        optimizer.step()
    assert alike(kept(optimizer), before)


def shaped_state(name: str) -> dict[str, Any]:
    """Options under which a member must see the whole tensor, and cannot of what is not plain."""
    return {} if shaped(maker(name)([torch.ones(4, 3)])) else {"constraint": pa.L2Ball(1.0)}


@pytest.mark.parametrize("name", [name for name in pa.MEMBERS if name in METRIC or shaped_state(name) == {}])
def test_wrappers_that_cannot_be_gathered(name: str) -> None:
    """Nobody knows the whole of a subclass that stands for other tensors: state or sets of such are refused by name."""
    param: Any = torch.nn.Parameter(TwoTensor(torch.ones(4, 3), torch.ones(4, 3)))
    param.grad = TwoTensor(torch.ones(4, 3), torch.ones(4, 3))
    optimizer = maker(name, **shaped_state(name))([param])
    with pytest.raises(RuntimeError, match=r"number 0 .* a TwoTensor, (for which '.*' cannot be kept|which has to be)"):
        optimizer.step()
    assert not optimizer.state
