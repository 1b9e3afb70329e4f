"""Bad input: the error names the argument, its value and what is allowed, before anything changes."""

import math
from collections import UserList
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
    "skip_nonfinite": [None, 1],
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
    train(Padam([Parameter(torch.ones(2))], betas=[0.5, 0.9], partial=0.5))
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
