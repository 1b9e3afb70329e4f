"""What a hostile user found: each a kind of tensor or list that looked harmless, in every mode that takes it."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import (
    TENSOR,
    Estimator,
    Hyper,
    Padam,
    PartialAdagrad,
    PartialAdam,
    PartialAdaptiveOptimizer,
    Slot,
)
from partial_adaptive.testing.harness import MODES, same, values

LAZY: dict[str, Callable[[], Tensor]] = {
    "negated": lambda: torch._neg_view(torch.ones(3, dtype=torch.float64)),
    "imaginary part of a conjugate": lambda: torch.full((4,), 1 + 2j, dtype=torch.complex128).conj().imag,
    "conjugate": lambda: torch.full((2, 3), 1 + 2j, dtype=torch.complex128).mH,
}


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("kind", LAZY)
def test_parameters_with_pending_operations(kind: str, mode: dict[str, bool]) -> None:
    """A parameter and state whose memory is negated or conjugated are updated by their values, beside a plain one."""
    odd, plain = LAZY[kind](), LAZY[kind]().clone().resolve_conj().resolve_neg()
    ours, theirs = [odd, torch.ones(2)], [plain, torch.ones(2)]
    optimizer, reference = Padam(ours, lr=0.1, **mode), Padam(theirs, lr=0.1)
    for step in range(4):
        for param in (*ours, *theirs):
            param.grad = torch.full(param.shape, 1.0 + step, dtype=param.dtype)
        optimizer.step()
        reference.step()
        if step == 1 and not odd.is_complex():
            state = optimizer.state[odd]
            state["exp_avg"] = torch._neg_view(state["exp_avg"].neg())
    same([param.resolve_conj().resolve_neg() for param in values(ours)], values(theirs), f"{kind} goes astray", 1e-6)


def sparse_step(optimizer: Padam, param: Tensor) -> None:
    optimizer.state[param]["step"] = torch.tensor(3.0).to_sparse()


def negated_step(optimizer: Padam, param: Tensor) -> None:
    optimizer.state[param]["step"] = torch._neg_view(torch.tensor(-3.0))


def no_dict(optimizer: Padam, param: Tensor) -> None:
    optimizer.state[param] = None


def inference_state(optimizer: Padam, param: Tensor) -> None:
    with torch.inference_mode():
        optimizer.state[param]["exp_avg"] = torch.zeros(4)


def whole_gradient(optimizer: Padam, param: Tensor) -> None:
    optimizer.param_groups[0]["params"].append(param)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("meddle", [sparse_step, negated_step, no_dict, inference_state, whole_gradient])
def test_refused_by_name_and_nothing_has_changed(meddle: Callable[..., None], mode: dict[str, bool]) -> None:
    """Each ended the process, or failed after other parameters had moved."""
    first, second = torch.ones(2), torch.ones(4)
    optimizer = Padam([first, second], **mode)
    for _ in range(2):
        first.grad, second.grad = torch.ones(2), torch.ones(4)
        optimizer.step()
    meddle(optimizer, second)
    before = values([first, second, optimizer.state[first]["step"]])
    with pytest.raises(RuntimeError, match="Padam: parameter number 1"):
        optimizer.step()
    same(values([first, second, optimizer.state[first]["step"]]), before, "a refused step has changed something")


def test_fused_reads_what_it_knows() -> None:
    """A dtype that the kernels cannot read is a named error, not a KeyError."""
    param = torch.ones(4)
    param.grad = torch.ones(4)
    with pytest.raises(RuntimeError, match=r"fused=True cannot read 'exp_avg' in torch\.float8_e5m2; use foreach=True"):
        Padam([param], fused=True, state_dtype=torch.float8_e5m2).step()


def test_views_of_leaves_are_refused_by_differentiable() -> None:
    """Autograd would refuse to overwrite them after state had been made."""
    base = torch.ones(4, requires_grad=True)
    param = base[:3]
    param.grad = torch.ones(3)
    optimizer = Padam([param], differentiable=True)
    with pytest.raises(RuntimeError, match=r"a leaf of shape .* or a view of one"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_sparse_gradients_at_the_edge(mode: dict[str, bool]) -> None:
    """A sparse gradient without sparse dimensions is a dense one; an index that is out of bounds is named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it does not check
        whole = torch.sparse_coo_tensor(torch.zeros(0, 1, dtype=torch.long), torch.ones(1, 4, 2), (4, 2))
        beyond = torch.sparse_coo_tensor(torch.tensor([[9]]), torch.ones(1, 2), (4, 2), check_invariants=False)
    param = torch.ones(4, 2)
    optimizer = PartialAdagrad([param], lr=0.1, **mode)
    param.grad = whole
    optimizer.step()
    torch.testing.assert_close(param, torch.full((4, 2), 0.9))
    param.grad = beyond
    with pytest.raises(RuntimeError, match="an index that is out of its bounds"):
        optimizer.step()
    assert optimizer.state[param]["step"] == 1


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_gradients_whose_square_is_not_in_float32(mode: dict[str, bool]) -> None:
    """(1 − β₂)·g comes before ·g, as in torch: 1e20² is too large, a thousandth of it is not."""
    param = torch.ones(3)
    param.grad = torch.full((3,), 1e20)
    PartialAdam([param], partial=0.5, lr=0.1, **mode).step()
    torch.testing.assert_close(param, torch.full((3,), 0.9))


class RowView(Estimator):
    """Returns a view of its slot, as row state invites one to."""

    needs = TENSOR
    slots = {"row": Slot(shape=lambda shape: shape[:1])}

    def scale(self, grad: Tensor, hyper: Hyper, row: Tensor) -> Tensor:
        return row.add_(grad.square().sum(1)).unsqueeze(1)


def test_a_view_of_a_slot_is_not_overwritten() -> None:
    """The power is taken of a copy where the scale may be somebody's state."""
    param = torch.ones(3, 4)
    optimizer = PartialAdaptiveOptimizer([param], {"lr": 0.1}, estimator=RowView())
    for _ in range(3):
        param.grad = torch.ones(3, 4)
        optimizer.step()
    assert optimizer.state[param]["row"].tolist() == [12.0] * 3


def test_one_gradient_for_two_parameters() -> None:
    """It is read twice, and the plan is kept: the same tensor twice in a list is no reason to plan anew."""
    params: list[Any] = [torch.ones(20) for _ in range(2)]
    optimizer = Padam(params, fused=True)
    params[0].grad = params[1].grad = torch.ones(20)
    for _ in range(3):
        optimizer.step()
    torch.testing.assert_close(params[0], params[1])
    torch.testing.assert_close(params[0], torch.full((20,), 0.7))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("what", ["memory", "gradient", "state['exp_avg']"])
def test_freed_storage(what: str, mode: dict[str, bool]) -> None:
    """A tensor whose storage was freed, as sharding does between uses, is named; reading it would end the process."""
    first, second = (Parameter(torch.ones(size)) for size in (3, 5000))
    optimizer = Padam([first, second], **mode)
    first.grad, second.grad = torch.ones(3), torch.ones(5000)
    optimizer.step()
    before = first.detach().clone()
    freed = {"memory": second, "gradient": second.grad, "state['exp_avg']": optimizer.state[second]["exp_avg"]}[what]
    freed.untyped_storage().resize_(0)
    with pytest.raises(
        RuntimeError,
        match=re.escape(f"number 1 of its group, of shape (5000,), cannot be updated: its {what} was freed"),
    ):
        optimizer.step()
    torch.testing.assert_close(first.detach(), before, rtol=0, atol=0)
