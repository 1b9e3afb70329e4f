"""The stand-ins for a tensor, and staging: the arithmetic of one tensor, run in other ways."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import Estimator, Hyper, Padam, PartialAdaptiveOptimizer
from partial_adaptive.execution.functional import Functional
from partial_adaptive.execution.staging import batches, stage
from partial_adaptive.execution.tensor_list import TensorList

EXPRESSIONS: list[Callable[[Any, Any], Any]] = [
    lambda x, y: -x,
    lambda x, y: x + 2,
    lambda x, y: 2 + x,
    lambda x, y: x - y,
    lambda x, y: 1 - x,
    lambda x, y: x * y,
    lambda x, y: 3 * x,
    lambda x, y: x / y,
    lambda x, y: 1 / x,
    lambda x, y: x**2,
    lambda x, y: 0.96**x,
    lambda x, y: torch.tensor(2.0) / x,
    lambda x, y: torch.tensor(2.0) * x,
    lambda x, y: x - torch.tensor(2.0),
    lambda x, y: torch.tensor(2.0) - x,
    lambda x, y: x.add(y, alpha=2),
    lambda x, y: x.sub(y, alpha=2),
    lambda x, y: x.addcmul(y, y, value=-1),
    lambda x, y: x.addcdiv(y, x, value=0.5),
    lambda x, y: x.lerp(y, 0.1),
    lambda x, y: x.clamp(1.0),
    lambda x, y: x.clamp(0.5, 1.0),
    lambda x, y: x.clamp(max=1.0),
    lambda x, y: x.clamp(min=0.5, max=None),
    lambda x, y: x.clamp(min=y),
    lambda x, y: x.clamp_min(0.7),
    lambda x, y: x.maximum(y),
    lambda x, y: x.sqrt().reciprocal().log().exp().abs().sign(),
    lambda x, y: x.square(),
    lambda x, y: x.cumsum(0),
    lambda x, y: x.where(x.gt(y), y),
    lambda x, y: x.mul(x.norm()),
    lambda x, y: x.div(y.mean()),
    lambda x, y: x.clone().mul_(0.9).add_(y, alpha=0.1).sqrt_(),
    lambda x, y: x.clone().clamp_(min=y).sub_(y).neg_(),
    lambda x, y: x.clone().lerp_(y, 0.5).addcmul_(y, x).addcdiv_(y, x),
    lambda x, y: x.clone().clamp_(0.5, 1.0),
    lambda x, y: x.clone().cumsum_(0),
    lambda x, y: x.clone().copy_(y),
]


def tensors() -> list[Tensor]:
    return [torch.rand(shape, dtype=torch.float64) + 0.2 for shape in ((3,), (3, 2), (1,))]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_tensor_list_does_what_a_tensor_does(expression: Callable[[Any, Any], Any]) -> None:
    """Methods and operators on a list give, tensor by tensor, what they give on one, `_foreach_` form or not."""
    xs, ys = tensors(), tensors()
    expected = [expression(x, y) for x, y in zip(xs, ys, strict=True)]
    result = expression(TensorList(xs), TensorList(ys))
    assert isinstance(result, TensorList)
    torch.testing.assert_close(list(result.tensors), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_functional_does_what_a_tensor_does(expression: Callable[[Any, Any], Any]) -> None:
    """So do they differentiably, without overwriting the tensor that was lifted."""
    (x, *_), (y, *_) = tensors(), tensors()
    expected = expression(x, y)
    before = x.clone()
    result = expression(Functional(x), Functional(y))
    assert isinstance(result, Functional)
    torch.testing.assert_close(result.value, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["mul_", "add_", "clamp_max_", "fmod_"])
def test_in_place_methods_write_to_the_tensors(method: str) -> None:
    """A trailing underscore changes the tensors themselves and returns the list, also without a `_foreach_` form."""
    xs = tensors()
    expected = [getattr(x.clone(), method)(0.5) for x in xs]
    xlist = TensorList(xs)
    assert getattr(xlist, method)(0.5) is xlist
    torch.testing.assert_close(xs, expected, rtol=0, atol=0)


def test_out_of_place_methods_leave_the_tensors() -> None:
    """Without it they make new ones, clamp without bounds included."""
    xs = tensors()
    before = [x.clone() for x in xs]
    for result in (TensorList(xs).mul(2), TensorList(xs).clamp(max=0.5), TensorList(xs).cumsum(0)):
        result.mul_(0)
    torch.testing.assert_close(xs, before, rtol=0, atol=0)


def test_one_tensor_is_not_wrapped() -> None:
    """A bucket of one runs on the tensor itself."""
    (x, *_) = tensors()
    assert TensorList.lift([x]) is x


def test_functional_lift_copies() -> None:
    """What autograd has to remember is a copy: the original will be overwritten."""
    (x, *_) = tensors()
    lifted = Functional.lift([x])
    x.zero_()
    assert lifted.value.ne(0).all()


@pytest.mark.parametrize("lifted", [TensorList([torch.tensor(3.0)] * 2), Functional(torch.tensor(3.0))])
def test_item(lifted: Any) -> None:
    """The value of step counts, which a bucket shares."""
    assert lifted.item() == 3.0


def test_special_methods_are_not_invented() -> None:
    """copy, pickle and numpy probe for special methods, which must be absent."""
    with pytest.raises(AttributeError):
        _ = TensorList([]).__array__


def test_staging_dense_shares_memory() -> None:
    """A dense real parameter is staged as it is."""
    param, grad, buffer = tensors()
    staged = stage(param, grad, [buffer], None)
    assert staged.param is param
    assert staged.grad is grad
    assert staged.buffers[0] is buffer
    assert staged.land is None


def test_staging_complex_is_a_view() -> None:
    """Complex tensors are staged as real pairs in the same memory."""
    param, grad, buffer = (torch.randn(3, dtype=torch.complex128) for _ in range(3))
    staged = stage(param, grad, [buffer], None)
    staged.param.zero_()
    staged.buffers[0].zero_()
    assert staged.grad.shape == (3, 2)
    assert param.abs().sum() == buffer.abs().sum() == 0


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("complex_", [False, True])
def test_staging_sparse_lands_rows(complex_: bool, dtype: torch.dtype | None) -> None:
    """A sparse gradient stages the rows that it touches, summed where named twice, and lands them and no others."""
    kind = torch.complex128 if complex_ else torch.float64
    param, buffer = torch.ones(4, 2, dtype=kind), torch.ones(4, 2, dtype=kind)
    indices, rows = torch.tensor([[3, 1, 3]]), torch.ones(3, 2, dtype=kind)
    grad = torch.sparse_coo_tensor(indices, rows, (4, 2), check_invariants=False)
    staged = stage(param, grad, [buffer], dtype)
    assert staged.param.shape[0] == staged.grad.shape[0] == 2
    assert staged.grad.flatten()[0] == 1
    assert staged.grad[1].flatten()[0] == 2
    staged.param.mul_(5)
    staged.buffers[0].mul_(7)
    assert staged.land is not None
    staged.land()
    assert param[:, 0].tolist() == [1, 5, 1, 5]
    assert buffer[:, 0].tolist() == [1, 7, 1, 7]


def test_staging_in_another_dtype_lands() -> None:
    """A parameter narrower than its state is worked on in the state's dtype and rounded once."""
    param, grad = torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16)
    buffer = torch.zeros(3)
    staged = stage(param, grad, [buffer], torch.float32)
    assert staged.param.dtype == staged.grad.dtype == torch.float32
    staged.param.add_(0.25)
    assert staged.land is not None
    staged.land()
    assert param.tolist() == [1.25] * 3


def test_small_parameters_share_memory() -> None:
    """With foreach the state of small parameters is views of one tensor each; replaced or loaded state is taken in."""
    shapes = [(3, 4), (5,), (), (80, 80)]
    make = functools.partial(Padam, weight_decay=0.1, partial=1 / 8)
    optimizers = []
    for foreach in (True, False):
        torch.manual_seed(0)
        params = [Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
        optimizers.append((make(params, foreach=foreach), params))

    def train(change: Callable[[Padam], None]) -> list[int]:
        for optimizer, params in optimizers:
            torch.manual_seed(1)
            change(optimizer)
            for _ in range(2):
                for param in params:
                    param.grad = torch.randn_like(param)
                optimizer.step()
        (flat, ours), (_, right) = optimizers
        for param, expected in zip(ours, right, strict=True):
            torch.testing.assert_close(param, expected, rtol=1e-12, atol=0)
        storages = [flat.state[param]["exp_avg"].untyped_storage().data_ptr() for param in ours]
        assert len({*storages[:3]}) == 1
        assert storages[3] != storages[0]
        return storages

    def replace(optimizer: Padam) -> None:
        for state in optimizer.state.values():
            state["exp_avg"] = torch.ones_like(state["exp_avg"])

    def skip_one(optimizer: Padam) -> None:
        optimizer.param_groups[0]["params"][1].grad = None
        optimizer.step()

    first = train(lambda _: None)
    assert train(lambda _: None) == first
    assert train(replace) != first
    train(lambda optimizer: optimizer.load_state_dict(optimizer.state_dict()))
    for optimizer, _ in optimizers:
        skip_one(optimizer)
        optimizer.step()
    for param, expected in zip(optimizers[0][1], optimizers[1][1], strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-12, atol=0)


def test_batches_bound_temporary_memory() -> None:
    """Rows come in lists of at most 2 MiB on the CPU, long ones in parts that share their memory."""
    rows = [stage(torch.zeros(n), torch.zeros(n), [torch.zeros(n)], None) for n in (2**20, 5, 2**18, 2**19)]
    lists = list(batches(rows))
    assert max(sum(row.param.nbytes for row in batch) for batch in lists) <= 2**21
    for row in (row for batch in lists for row in batch):
        for i, tensor in enumerate((row.param, row.grad, *row.buffers)):
            tensor.fill_(i + 1)
    for row in rows:
        assert [tensor.unique().tolist() for tensor in (row.param, row.grad, *row.buffers)] == [[1], [2], [3]]


class ByTheNorm(Estimator):
    """One scale for the whole tensor: not elementwise."""

    def scale(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad.mul(0).add_(grad.norm())


@pytest.mark.parametrize("foreach", [False, True])
def test_whole_tensors_for_rules_that_need_them(foreach: bool) -> None:
    """Parameters are joined and split only if the rule is elementwise: a norm is that of the parameter."""
    params = [Parameter(torch.zeros(n)) for n in (3, 5, 2**20)]
    optimizer = PartialAdaptiveOptimizer(params, {"lr": 1.0, "partial": 0.5, "foreach": foreach}, estimator=ByTheNorm())
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    for param in params:
        torch.testing.assert_close(param.detach(), torch.full_like(param, -(param.numel() ** -0.5)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("mode", [{"foreach": True}, {"fused": True}], ids=str)
def test_equal_groups_are_updated_together(monkeypatch: pytest.MonkeyPatch, mode: dict[str, bool]) -> None:
    """Param groups that agree in all hyperparameters are one update, others their own; each keeps its own numbers."""
    params = [Parameter(torch.ones(3)) for _ in range(4)]
    groups = [{"params": [param], "lr": lr} for param, lr in zip(params, (0.1, 0.2, 0.1, 0.2), strict=True)]
    optimizer = Padam(groups, **mode)
    updates = []
    prepare = optimizer._updates
    monkeypatch.setattr(optimizer, "_updates", lambda *args: updates.extend(found := prepare(*args)) or found)
    for param in params:
        param.grad = torch.ones(3)
    optimizer.step()
    assert len(updates) == 2
    for param, lr in zip(params, (0.1, 0.2, 0.1, 0.2), strict=True):
        torch.testing.assert_close(param.detach(), torch.full((3,), 1 - lr))
    optimizer.param_groups[0]["lr"] = 0.3
    updates.clear()
    optimizer.step()
    assert len(updates) == 3
