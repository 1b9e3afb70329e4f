"""Bad input: the error names the argument, its value and what is allowed, before anything changes."""

import math
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import partial_adaptive as pa
from partial_adaptive import Padam, PartialAdaptiveOptimizer
from partial_adaptive.estimators import ExpAvgSq
from partial_adaptive.hyperparameters import HYPERPARAMETERS
from partial_adaptive.testing.harness import contents, gradient, parameters, same, train

NAN, INF = math.nan, math.inf
BAD: dict[str, list[Any]] = {
    "lr": [-0.1, NAN, INF, torch.tensor(-0.1), torch.tensor(NAN), torch.ones(2), torch.tensor(1j), None],
    "partial": [-0.1, 0.51, 1, NAN, -INF, torch.tensor(0.7), torch.tensor(NAN), None],
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
    ],
    "alpha": [-0.1, 1.1, NAN],
    "rho": [-0.1, 1.1, NAN],
    "eps": [-1e-8, NAN, INF],
    "weight_decay": [-0.1, NAN, INF],
    "momentum": [-0.1, NAN, INF],
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
    "capturable": [None, 1],
    "differentiable": [None, 1],
    "state_dtype": [torch.int64, "float32", float],
}
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
        assert HYPERPARAMETERS[name].allowed in message
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
    assert BAD.keys() >= HYPERPARAMETERS.keys() - {"fused"}


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
    with pytest.raises(
        RuntimeError, match=r"Padam does not support sparse gradients with momentum ExpAvg.*PartialAdagrad"
    ):
        optimizer.step()
    same(contents(optimizer), before, "the refused step has changed something")


def test_boundaries_are_allowed() -> None:
    """The ends of the ranges are in them."""
    train(Padam(parameters(), lr=0, betas=(0, 0), eps=0, partial=0))
    train(Padam([Parameter(torch.ones(2))], betas=[0.5, 0.9], partial=0.5))
    train(pa.PartialRMSprop(parameters(), alpha=1.0))
    train(Padam(parameters(), betas=(0, 0), capturable=True))


@pytest.mark.parametrize("mode", [{}, {"fused": True}], ids=str)
def test_capture_needs_capturable(monkeypatch: pytest.MonkeyPatch, mode: dict[str, bool]) -> None:
    """In the capture of a CUDA graph a step that is not capturable is refused, every time, and changes nothing."""
    param = Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = pa.Padam([param], **mode)
    for _ in range(2):
        before = param.detach().clone()
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            with pytest.raises(RuntimeError, match="only with capturable=True"):
                optimizer.step()
        assert torch.equal(param, before)
        optimizer.step()
