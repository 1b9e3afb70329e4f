"""What a hostile user of feasible sets and schedules found: each was wrong once."""

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import (
    ELEMENT,
    TENSOR,
    Box,
    Constraint,
    HalfSpace,
    Inverse,
    L1Ball,
    L2Ball,
    Padam,
    Schedule,
    Simplex,
    Slot,
)
from partial_adaptive.testing.harness import contents, parameters, same, train, values

COUPLED = [Simplex(), L1Ball(1.0), L2Ball(0.5), HalfSpace(1.0, 0.5)]


@dataclass(frozen=True)
class Both(Constraint):
    """Sets one after the other."""

    sets: tuple[Constraint, ...]

    def project(self, x: Tensor, weights: Tensor) -> Tensor:
        for one in self.sets:
            x = one.project(x, weights)
        return x


@pytest.mark.parametrize("p", [1 / 8, 1 / 2])
@pytest.mark.parametrize("constraint", COUPLED, ids=str)
def test_a_gradient_whose_square_overflows(constraint: Constraint, p: float) -> None:
    """An element that is infinitely heavy stays where it is; nothing becomes NaN."""
    weight = Parameter(torch.tensor([0.2, 0.3, 0.5]))
    optimizer = Padam([weight], lr=0.1, partial=p, constraint=constraint)
    for gradient in ([1.0, -1.0, -1.0], [1e21, -1.0, -1.0]):
        before = weight[0].item()
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    assert bool(weight.isfinite().all())
    assert weight[0].item() == pytest.approx(before, rel=1e-5)


def test_bounds_beyond_the_arithmetic() -> None:
    """A bound that float32 does not have is refused where the box is made, not in the middle of a step."""
    for bounds in ((0, sys.float_info.max), (-1e39, 0)):
        with pytest.raises(ValueError, match=r"Box: (low|high) must be a number within ±3\.4e\+38"):
            Box(*bounds)


def test_weights_far_apart_in_float32() -> None:
    """Weights that differ by more than the square of the dtype's precision still count."""
    x = HalfSpace(1.0, 0.0).project(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1e10, 1e-5, 1e-9]))
    torch.testing.assert_close(x, torch.tensor([0.0, 1.0, -1.0]), rtol=1e-3, atol=1e-6)


def test_the_edge_of_a_half_space_is_sharp() -> None:
    """A large parameter is outside by little before it is projected: rounding grows as the root of its size."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 1000, generator=generator)
    x += (0.1 - x.double().sum().item()) / x.numel()
    assert HalfSpace(1.0, 0.0).project(x, torch.ones(())).double().sum() < 0.05


def test_sets_of_sets_in_checkpoints(tmp_path: Path) -> None:
    """A set that holds sets is saved as plain data and loaded as it was."""
    constraint = Both((Box(0, 1), L2Ball(1.0)))
    optimizer = Padam([Parameter(torch.ones(3))], constraint=constraint)
    torch.save(optimizer.state_dict(), tmp_path / "checkpoint.pt")
    twin = Padam([Parameter(torch.ones(3))])
    twin.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert twin.param_groups[0]["constraint"] == constraint


def test_sets_that_no_checkpoint_could_hold() -> None:
    """They are refused when they are set: no frozen dataclass, a field that is not plain, a field named set."""

    @dataclass(frozen=True)
    class Function(Both):
        then: Any = min

    @dataclass(frozen=True)
    class Named(Both):
        set: str = "mine"

    mutable = type("Mutable", (Constraint,), {"project": lambda self, x, weights: x})()
    for bad in (mutable, Function(()), Named(())):
        with pytest.raises(ValueError, match=r"constraint must be .* a frozen dataclass of plain values"):
            Padam([Parameter(torch.ones(3))], constraint=bad)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"needs": "TENSOR"}, "needs must be ELEMENT or TENSOR"),
        ({"slots": {"a": Slot()}}, "a set keeps and reads nothing"),
    ],
)
def test_what_a_set_may_not_declare(attributes: dict[str, Any], words: str) -> None:
    """A set's declarations are checked as any stage's, and there is one only."""
    bad = dataclass(frozen=True)(type("Bad", (Both,), attributes))(())
    with pytest.raises(TypeError, match=words):
        Padam([Parameter(torch.ones(3))], constraint=bad)


def test_wrong_dtypes_are_refused() -> None:
    """A set that returns another dtype would lose digits in silence."""

    @dataclass(frozen=True)
    class Half(Both):
        def project(self, x: Tensor, weights: Tensor) -> Tensor:
            return x.half()

    weight = Parameter(torch.ones(3))
    optimizer = Padam([weight], constraint=Half(()))
    weight.grad = torch.ones(3)
    with pytest.raises(TypeError, match=r"Half.project must return the shape and dtype of x"):
        optimizer.step()
    assert torch.equal(weight, torch.ones(3))


def test_sets_of_the_past_are_forgotten() -> None:
    """A set that is new at every step does not stay for ever."""
    weight = Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    optimizer = Padam([weight])
    seen = []
    for _ in range(200):
        constraint = HalfSpace(torch.rand(4), 1.0)
        seen.append(weakref.ref(constraint))
        optimizer.param_groups[0]["constraint"] = constraint
        optimizer.step()
    del constraint
    gc.collect()
    assert sum(ref() is not None for ref in seen) <= 40


@pytest.mark.parametrize("functional", [True, False], ids=["torch.clamp", "item"])
def test_any_torch_in_a_differentiable_set(functional: bool) -> None:
    """Functions of torch and items work in a set that sees whole tensors, in differentiable mode too."""

    @dataclass(frozen=True)
    class Mine(Both):
        functional: bool = False

        def project(self, x: Tensor, weights: Tensor) -> Tensor:
            if self.functional:
                return torch.clamp(x, min=0.0)
            y = x.clone()
            y[0] = 0.0
            return y

    weight = torch.ones(3, requires_grad=True).clone()
    optimizer = Padam([weight], lr=2.0, constraint=Mine((), functional), differentiable=True)
    weight.grad = torch.ones(3)
    optimizer.step()
    assert weight[0] == 0


def test_copies_of_a_schedule_follow_the_copy() -> None:
    """Copied or pickled together with its optimizer, a schedule moves the copy."""
    optimizer = Padam([Parameter(torch.ones(1))], lr=0.1)
    schedule = Schedule(optimizer, lr=Inverse())
    for twin, moved in (copy.deepcopy((optimizer, schedule)), pickle.loads(pickle.dumps((optimizer, schedule)))):
        moved.step()
        assert (optimizer.param_groups[0]["lr"], twin.param_groups[0]["lr"]) == (0.1, 0.05)


def test_a_schedule_whose_group_is_gone() -> None:
    """It says so, before anything has changed."""
    optimizer = Padam([{"params": [Parameter(torch.ones(1))]} for _ in range(3)], lr=0.1)
    schedule = Schedule(optimizer, lr=Inverse())
    optimizer.param_groups.pop()
    with pytest.raises(ValueError, match="3 groups were scheduled and 2 are left"):
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert schedule.t == 1


@pytest.mark.parametrize("t", [None, 0, -3, 1.0, True])
def test_schedules_of_no_step(t: Any) -> None:
    """A state without a step, or with one that there is not, is a ValueError."""
    schedule = Schedule(Padam([Parameter(torch.ones(1))]), lr=Inverse())
    with pytest.raises(ValueError, match="whole number t ≥ 1"):
        schedule.load_state_dict({"t": t, "starts": [{"lr": 0.1}]})


def test_schedules_of_tensors_that_require_grad() -> None:
    """A learning rate that is learned itself can be scheduled."""
    lr = torch.tensor(0.1, requires_grad=True)
    optimizer = Padam([torch.ones(1, requires_grad=True).clone()], lr=lr, differentiable=True)
    Schedule(optimizer, lr=Inverse()).step()
    assert lr.item() == pytest.approx(0.05)


# -- what `project` may return

MODES: list[dict[str, Any]] = [
    *({"foreach": False}, {"foreach": True}, {"fused": True}, {"differentiable": True}),
    {"capturable": True, "foreach": True},
]


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Parameters that every mode takes."""
    return values(parameters(shapes or ((3, 4),)))


frozen = dataclass(frozen=True)


class Mine(Constraint):
    """To be made from: the user's own."""

    result: Any = None

    def project(self, x: Any, weights: Any) -> Any:
        return type(self).result(x)


# What `project` returns, and what the error says for single elements and for whole tensors.
RETURNED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nothing": (lambda x: None, "Mine must return a tensor, got None"),
    "another shape": (
        lambda x: x.flatten()[:1],
        r"Mine.*( must return the shape and dtype of x, \(3, 4\) and torch.float64, got \(1,\)|Tensor\.flatten)",
    ),
    "one number": (
        lambda x: x.mean(),
        r"Mine.*( must return the shape and dtype of x, \(3, 4\) and torch.float64, got \(\)|Tensor\.mean)",
    ),
    "a number of Python's": (lambda x: 0.5, "Mine.* must return"),
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("needs", [ELEMENT, TENSOR], ids=str)
@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_set_may_not_return(kind: str, needs: Any, mode: dict[str, Any]) -> None:
    """It is a TypeError that names the set, before anything has moved, in every mode."""
    result, message = RETURNED[kind]
    optimizer = Padam(leaves(), constraint=frozen(type("Mine", (Mine,), {"needs": needs, "result": result}))(), **mode)
    before = contents(optimizer)
    refused = RuntimeError if needs is TENSOR and mode.get("fused") else TypeError
    with pytest.raises(refused, match="Mine must see whole TENSORs" if refused is RuntimeError else message):
        train(optimizer, 1)
    same(contents(optimizer), before, "a refused step has changed something")
    assert not optimizer.state


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("needs", [ELEMENT, TENSOR], ids=str)
def test_sets_that_write_in_place(needs: Any, mode: dict[str, Any]) -> None:
    """A set that changes x itself and returns it is what one that makes a new tensor is, in every mode."""
    if needs is TENSOR and mode.get("fused"):
        return
    results = []
    for result in (lambda x: x.clamp(min=0.3), lambda x: x.clamp_(min=0.3)):
        mine = frozen(type("Mine", (Mine,), {"needs": needs, "result": result}))()
        optimizer = Padam(leaves((3, 4), (5,)), lr=0.1, constraint=mine, **mode)
        train(optimizer)
        results.append(contents(optimizer))
    same(results[1], results[0], "a set that writes in place ends elsewhere")
