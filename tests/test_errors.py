"""Bad input: the error names the argument, its value and what is allowed, before anything changes."""

import copy
import math
from collections import UserList
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive import Padam, PartialAdaptiveOptimizer
from partial_adaptive.execution import plan
from partial_adaptive.rules.hyperparameters import HYPERPARAMETERS
from partial_adaptive.rules.numerators import ExpAvg
from partial_adaptive.rules.options import OWN
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.testing.harness import MODES, contents, gradient, parameters, params_of, same, train, values

NAN, INF = math.nan, math.inf
BAD: dict[str, list[Any]] = {
    "lr": [-0.1, NAN, INF, torch.tensor(-0.1), torch.tensor(NAN), torch.ones(2), torch.tensor(1j), None, True, 0.1j],
    "partial": [-0.1, 0.51, 1, NAN, -INF, torch.tensor(0.7), torch.tensor(NAN), None, False, np.float32(0.7), [0.1]],
    "betas": [
        (1.0, 0.9),
        (0.9, 1.0),
        (-0.1, 0.9),
        (0.9, NAN),
        (0.9,),
        (0.9, 0.99, 0.999),
        0.9,
        torch.ones(2) / 2,
        None,
        (True, 0.9),
        (0.9, False),
        "ab",
        {0.8, 0.9},
        np.array(0.9),
        [0.9, np.float64(1.0)],
    ],
    "alpha": [-0.1, 1.1, NAN],
    "rho": [-0.1, 1.1, NAN],
    "eps": [-1e-8, NAN, INF, True, np.float64(-1e-8)],
    "weight_decay": [-0.1, NAN, INF, True, np.bool_(True)],
    "momentum": [-0.1, NAN, INF, True],
    "momentum_decay": [-0.1, NAN],
    "lr_decay": [-0.1, NAN],
    "initial_accumulator_value": [-0.1, NAN, INF],
    "amsgrad": [None, 1, 0.5],
    "centered": [None, 1],
    "mean": [None, 1],
    "bias_correction": ["Adam", "", None, True],
    "decoupled_weight_decay": [None, 1],
    "maximize": [None, 1],
    "foreach": [1, "auto"],
    "fused": [1, "auto"],
    "beyond_half": [None, 1],
    "capturable": [None, 1],
    "differentiable": [None, 1],
    "peak_lr": [0.0, -0.1, NAN, INF, True],
    "cautious_weight_decay": [None, 1],
    "normalize_gradient": [None, 1],
    "agc": [-0.1, NAN, True],
    "clip_rms": [-0.1, INF, True],
    "trust_ratio": [-0.1, NAN, True],
    "momentum_after": [-0.1, 1.0, NAN, None],
    "nesterov_after": [None, 1],
    "cautious": [None, 1],
    "state_dtype": [torch.int64, "float32", float, {"exp_avg": "4bit"}, {0: None}, [["exp_avg"]], ("8bit",)],
    "rounding": ["up", None, True],
    "rounding_seed": [-1, 2**32, 0.5, True, None],
}
TABLE = {**HYPERPARAMETERS, **OWN}
NUMBERS = ("lr", "partial", "eps", "weight_decay", "alpha", "rho", "momentum", "momentum_decay", "lr_decay")


def member_with(name: str) -> str:
    """The first member that takes a hyperparameter."""
    return next(m for m in pa.MEMBERS if name in pa.create(m, parameters()).defaults)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, bad in BAD.items() for value in bad], ids=str)
def test_out_of_range(name: str, value: Any) -> None:
    """The constructor refuses it as a default, and add_param_group in a group, without adding the group."""
    member = member_with(name)
    for attempt in (lambda: pa.create(member, parameters(), **{name: value}), lambda: grow(member, {name: value})):
        with pytest.raises((ValueError, TypeError)) as error:
            attempt()
        message = str(error.value)
        assert name in message
        assert TABLE[name].allowed in message
        assert repr(value) in message
        assert pa.MEMBERS[member].cls.__name__ in message


def grow(member: str, group: dict[str, Any]) -> None:
    """Add a group that is out of range, and see that it was not added."""
    optimizer = pa.create(member, parameters())
    try:
        optimizer.add_param_group({"params": parameters(), **group})
    finally:
        assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", NUMBERS)
def test_strings_are_type_errors(name: str) -> None:
    """A number from a configuration file that is still a string is a TypeError."""
    with pytest.raises(TypeError, match=f"{name} must be .*got '0.1'"):
        pa.create(member_with(name), parameters(), **{name: "0.1"})


@pytest.mark.parametrize("name", BAD)
def test_in_mid_training(name: str) -> None:
    """Set in a param group during training it is refused by the next step, which changes nothing."""
    for value in BAD[name]:
        optimizer = pa.create(member_with(name), parameters())
        train(optimizer, 1)
        before = contents(optimizer)
        optimizer.param_groups[0][name] = value
        with pytest.raises((ValueError, TypeError), match=name):
            train(optimizer, 1, start=1)
        same(contents(optimizer), before, "the refused step has changed something")


def test_every_hyperparameter_is_tested() -> None:
    """Whatever the table has is here with bad values."""
    assert BAD.keys() >= TABLE.keys()


@pytest.mark.parametrize("member", pa.MEMBERS)
@pytest.mark.parametrize(
    ("params", "error"), [([], ValueError), (torch.ones(2), TypeError), ([1.0], TypeError), (None, TypeError)], ids=str
)
def test_parameters(member: str, params: Any, error: type[Exception]) -> None:
    """An empty list, a single tensor and what are no tensors are refused as by torch.optim."""
    with pytest.raises(error):
        pa.create(member, params)


def test_duplicate_and_non_leaf_parameters() -> None:
    """So are a parameter in two groups and a tensor that was computed."""
    (param, other) = parameters([(2,), (2,)])
    with pytest.raises(ValueError, match="more than one parameter group"):
        Padam([{"params": [param]}, {"params": [param, other]}])
    with pytest.raises(ValueError, match="non-leaf"):
        Padam([param * 2])


def test_foreach_with_differentiable() -> None:
    """Modes that exclude each other are refused, naming both."""
    with pytest.raises(ValueError, match="foreach=True excludes differentiable=True"):
        Padam(parameters(), foreach=True, differentiable=True)


@pytest.mark.parametrize(
    ("typo", "meant"), [("padm", "padam"), ("adamax", "partial_adamax"), ("adam", "partial_adam"), ("PADAM", None)]
)
def test_unknown_member(typo: str, meant: str | None) -> None:
    """An unknown name lists the known ones, the nearest first."""
    with pytest.raises(ValueError, match=repr(typo)) as error:
        pa.create(typo, parameters())
    assert "partial_adagrad" in str(error.value)
    assert meant is None or f"did you mean {meant!r}" in str(error.value)


def test_unknown_hyperparameter() -> None:
    """The base class, too, knows what it takes and suggests what was meant."""
    with pytest.raises(TypeError, match=r"'weight_decoy' \(did you mean 'weight_decay'\?\)"):
        PartialAdaptiveOptimizer(parameters(), {"lr": 0.1, "weight_decoy": 0.1}, estimator=ExpAvgSq())
    with pytest.raises(TypeError, match="needs the hyperparameter 'lr'"):
        PartialAdaptiveOptimizer(parameters(), {}, estimator=ExpAvgSq())


def test_unknown_attribute_of_hyper() -> None:
    """An estimator that reads what is not in the group is told what is."""
    (param,) = parameters([(2,)])

    class Reads(ExpAvgSq):
        def scale(self, grad: Any, hyper: Any, exp_avg_sq: Any) -> Any:
            return super().scale(grad, hyper, exp_avg_sq).add_(hyper.epsilon)

    optimizer = PartialAdaptiveOptimizer([param], {"lr": 0.1}, estimator=Reads())
    param.grad = gradient(param, 0)
    with pytest.raises(AttributeError, match=r"no hyperparameter 'epsilon' in the param group; it has .*eps"):
        optimizer.step()


def test_scale_of_a_stranger() -> None:
    """`scale_of` is for the optimizer's own parameters."""
    with pytest.raises(
        ValueError, match=r"param must be one of the optimizer's parameters, got a tensor of shape \(7,\)"
    ):
        Padam(parameters()).scale_of(torch.ones(7))


def test_warm_start_from_nothing() -> None:
    """A source without usable state is a mistake, and says so."""
    optimizer = Padam(parameters())
    with pytest.raises(ValueError, match=r"source must hold state that Padam can use .* got SGD with 0"):
        optimizer.warm_start(torch.optim.SGD(parameters()))


def test_sparse_among_dense() -> None:
    """A sparse gradient among dense ones is refused, with the way out, before the dense ones have moved."""
    dense, sparse = parameters([(3,), (4, 2)])
    optimizer = Padam([dense, sparse])
    dense.grad, sparse.grad = gradient(dense, 0), gradient(sparse, 0).to_sparse(1)
    before = contents(optimizer)
    with pytest.raises(RuntimeError, match=r"Padam does not support sparse gradients with ExpAvg.*PartialAdagrad"):
        optimizer.step()
    same(contents(optimizer), before, "the refused step has changed something")


def test_boundaries_are_allowed() -> None:
    """The ends of the ranges are in them."""
    train(Padam(parameters(), lr=0, betas=(0, 0), eps=0, partial=0))
    train(Padam([Parameter(torch.ones(2))], betas=[0.5, 0.9], partial=0.5))  # type: ignore[arg-type]
    train(pa.PartialRMSprop(parameters(), alpha=1.0))
    train(Padam(parameters(), betas=(0, 0), capturable=True))


@pytest.mark.parametrize("mode", [{}, {"fused": True}], ids=str)
def test_capture_needs_capturable(monkeypatch: pytest.MonkeyPatch, mode: dict[str, Any]) -> None:
    """In the capture of a CUDA graph a step that is not capturable is refused, every time, and changes nothing."""
    param = Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = pa.Padam([param], **mode)
    for _ in range(2):
        before = param.detach().clone()
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(plan, "is_capturing", lambda device: True)
            with pytest.raises(RuntimeError, match="only with capturable=True"):
                optimizer.step()
        assert torch.equal(param, before)
        optimizer.step()


# -- whatever kind of number a configuration holds

NUMBERS_OF_ALL_KINDS: dict[str, list[Any]] = {
    "lr": [np.float32(0.5), np.float64(0.5), np.array(0.5), 1, np.int64(1), torch.tensor(0.5), torch.tensor([0.5])],
    "partial": [np.float32(0.25), np.array(0.25), 0, np.int64(0), torch.tensor(0.25)],
    "eps": [np.float32(0.5), np.array(0.5), 1],
    "weight_decay": [np.float64(0.5), np.int32(0)],
    "betas": [[0.5, 0.75], np.array([0.5, 0.75]), (np.float32(0.5), np.float64(0.75)), UserList([0.5, 0.75])],
    "amsgrad": [np.bool_(False), np.array(True)],
    "maximize": [np.bool_(True)],
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, kinds in NUMBERS_OF_ALL_KINDS.items() for value in kinds], ids=str
)
def test_numbers_of_all_kinds(name: str, value: Any, mode: dict[str, Any]) -> None:
    """NumPy scalars and arrays, whole numbers and lists are taken at every door, stored plainly, and mean the same."""
    kind = type(Padam([torch.ones(1)]).defaults[name])
    item = value.item() if getattr(value, "size", 0) == 1 or isinstance(value, Tensor) else value
    plain: Any = tuple(map(float, value)) if name == "betas" else kind(item)
    expected = parameters()
    train(Padam(expected, **{name: plain, **mode}))

    def through_constructor() -> Padam:
        return Padam(parameters(), **{name: value}, **mode)

    def through_group() -> Padam:
        return Padam([{"params": parameters(), name: value}], **mode)

    def in_mid_training() -> Padam:
        optimizer = Padam(parameters(), **mode)
        optimizer.param_groups[0][name] = value
        return optimizer

    for make in (through_constructor, through_group, in_mid_training):
        optimizer = make()
        train(optimizer)
        same(
            values(params_of(optimizer)),
            values(expected),
            f"{name}={value!r} is not {plain!r} ({make.__name__})",
            1e-12,
        )
        stored = optimizer.param_groups[0][name]
        if not isinstance(value, Tensor):
            assert stored == plain
            kinds = {type(item) for item in (stored if isinstance(stored, tuple) else (stored,))}
            assert kinds <= {float, bool}, f"{name} is stored as {kinds}, which weights_only=True does not load"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_own_keys_in_groups(mode: dict[str, Any]) -> None:
    """Keys of a param group that the optimizer does not know are the user's own: they may hold anything, and stay."""
    marker = object()
    own = {"tag": "head", "initial": NAN, "limit": torch.ones(2, 2), "mask": [None], "any": marker, "beta1": -3}
    optimizer = Padam([{"params": parameters(), **own}], **mode)
    expected = parameters()
    train(optimizer)
    train(Padam(expected, **mode))
    same(values(params_of(optimizer)), values(expected), "keys of the user's own have changed the training")
    group = optimizer.param_groups[0]
    assert all(group[key] is value for key, value in own.items())
    optimizer.param_groups[0]["later"] = np.ones(3)
    train(optimizer)


# -- parameters, gradients and state that do not fit

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


@pytest.mark.parametrize("mode", [*MODES, {"capturable": True}], ids=str)
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


@pytest.mark.parametrize("mode", [*MODES, {"capturable": True}], ids=str)
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
