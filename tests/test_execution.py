"""The stand-ins for a tensor, staging, and what is updated together: the arithmetic of one tensor, in other ways."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive import TENSOR, Estimator, Hyper, Padam, PartialAdaptiveOptimizer, Slot, Tensors, Transform
from partial_adaptive.execution.compiled.launch import PreparedLaunches
from partial_adaptive.execution.compiled.program import Node, Symbol
from partial_adaptive.execution.eager import PreparedForeach, PreparedLoop
from partial_adaptive.execution.functional import Functional
from partial_adaptive.execution.lifted import Lifted
from partial_adaptive.execution.staging import LIMITS, Row, pieces, portions
from partial_adaptive.execution.tensor_list import TensorList
from partial_adaptive.rules.numerators import ExpAvg
from partial_adaptive.rules.second_moments import ExpAvgSq
from partial_adaptive.testing.harness import MODES, default_dtype, gradient, parameters, params_of, same, train, values

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
    lambda x, y: x.where(x.gt(y), y),
    lambda x, y: abs(x - y),
    lambda x, y: x.where(x > y, y),
    lambda x, y: x.where(x >= y, y).where(x <= 0.9, y),
    lambda x, y: Hyper.when(x < y, x, y),
    lambda x, y: Hyper.when(x < y, 1.0, y),
    lambda x, y: Hyper.when(x == x, x, 2.0),
    lambda x, y: Hyper.when(x != x, x, 2.0 * y),
    lambda x, y: augmented(x.clone(), y),
    lambda x, y: x.exp2().log2().expm1(),
    lambda x, y: (3 * x).floor().add(y.ceil()),
    lambda x, y: x.rsqrt().minimum(y),
    lambda x, y: x.clone().mul_(0.9).add_(y, alpha=0.1).sqrt_(),
    lambda x, y: x.clone().clamp_(min=y).sub_(y).neg_(),
    lambda x, y: x.clone().lerp_(y, 0.5).addcmul_(y, x).addcdiv_(y, x),
    lambda x, y: x.clone().clamp_(0.5, 1.0),
    lambda x, y: x.clone().copy_(y),
    lambda x, y: x.clone().zero_().add_(y),
    lambda x, y: x.clone().fill_(2.0).mul_(y),
]
WHOLE: list[Callable[[Any, Any], Any]] = [  # what looks at more than an element
    lambda x, y: x.cumsum(0),
    lambda x, y: x.mul(x.norm()),
    lambda x, y: x.div(y.mean()),
    lambda x, y: x.clone().cumsum_(0),
    lambda x, y: x.flatten() @ y.flatten() * x,
    lambda x, y: x[:1] * y,
    lambda x, y: x.mul(len(y)),
    lambda x, y: x.mul(y.shape[0]),
    lambda x, y: x.mul(y.ndim),
]


def augmented(x: Any, y: Any) -> Any:
    """Augmented assignment changes the tensor itself."""
    original = x
    x += y
    x -= 0.5 * y
    x *= 2
    x /= y
    x **= 2
    return original


@pytest.fixture
def _wide_counts() -> Iterator[None]:
    """Step counts in float64, so that those of `capturable` are as exact as Python's."""
    with default_dtype(torch.float64):
        yield


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


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *WHOLE], ids=range(len(EXPRESSIONS) + len(WHOLE)))
def test_functional_does_what_a_tensor_does(expression: Callable[[Any, Any], Any]) -> None:
    """So do they differentiably, on whole tensors too, without overwriting the tensor that was lifted."""
    (x, *_), (y, *_) = tensors(), tensors()
    expected = expression(x, y)
    before = x.clone()
    result = expression(Functional(x), Functional(y))
    assert isinstance(result, Functional)
    torch.testing.assert_close(result.value, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def symbol(name: str) -> Symbol:
    return Symbol(Node("element", (name,), elementwise=True))


@pytest.mark.parametrize("make", [lambda: TensorList(tensors()), lambda: symbol("x")], ids=["list", "symbol"])
@pytest.mark.parametrize("expression", WHOLE, ids=range(len(WHOLE)))
def test_whole_tensors_are_refused(expression: Callable[[Any, Any], Any], make: Callable[[], Lifted]) -> None:
    """What stands for several tensors, or a part of one, refuses whatever looks at more than an element."""
    with pytest.raises(TypeError, match="declare needs = TENSOR"):
        expression(make(), make())


@pytest.mark.parametrize("make", [lambda: TensorList(tensors()), lambda: symbol("x")], ids=["list", "symbol"])
@pytest.mark.parametrize("question", [bool, float, int, lambda x: [1, 2][x], lambda x: 1 if x > 0 else 2])
def test_values_are_refused(question: Callable[[Any], Any], make: Callable[[], Lifted]) -> None:
    """Nothing can be decided in Python by a value: the message has what to write instead."""
    with pytest.raises(TypeError, match=r"declares needs = ELEMENT uses .*(hyper\.when|calculate with the tensor)"):
        question(make())


@pytest.mark.parametrize("method", ["mul_", "add_", "clamp_max_", "eq_"])
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
    for result in (TensorList(xs).mul(2), TensorList(xs).clamp(max=0.5), TensorList(xs).floor()):
        result.mul_(0)
    torch.testing.assert_close(xs, before, rtol=0, atol=0)


def test_one_tensor_is_not_wrapped() -> None:
    """A bucket of one runs on the tensor itself."""
    (x, *_) = tensors()
    assert TensorList.lift([x]) is x


def test_functional_lift_copies() -> None:
    """What autograd has to remember is a copy: the original will be overwritten."""
    (x, *_) = tensors()
    lifted = Functional.lift(x)
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


def staged(param: Tensor, grad: Tensor, slot: Tensor) -> tuple[Row, Callable[[], object] | None]:
    """A row in one piece, and what brings it home."""
    ((row, land),) = pieces(Row(param, grad, {"slot": slot}), split=False)
    return row, land


def test_staging_dense_shares_memory() -> None:
    """A dense real parameter is staged as it is."""
    param, grad, slot = tensors()
    row, land = staged(param, grad, slot)
    assert row.param is param
    assert row.grad is grad
    assert row.slots["slot"] is slot
    assert land is None


def test_staging_complex_is_a_view() -> None:
    """Complex tensors are staged as real pairs in the same memory."""
    param, grad, slot = (torch.randn(3, dtype=torch.complex128) for _ in range(3))
    row, land = staged(param, grad, slot)
    row.param.zero_()
    row.slots["slot"].zero_()
    assert land is None
    assert row.grad.shape == (3, 2)
    assert param.abs().sum() == slot.abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("complex_", [False, True])
def test_staging_sparse_lands_rows(complex_: bool, dtype: torch.dtype) -> None:
    """A sparse gradient stages the rows that it touches, summed where named twice, and lands them and no others."""
    kind = torch.complex128 if complex_ else torch.float64
    narrow = dtype.to_complex() if complex_ else dtype
    param, slot = torch.ones(4, 2, dtype=narrow), torch.ones(4, 2, dtype=kind)
    indices, rows = torch.tensor([[3, 1, 3]]), torch.ones(3, 2, dtype=narrow)
    grad = torch.sparse_coo_tensor(indices, rows, (4, 2), check_invariants=False)
    row, land = staged(param, grad, slot)
    assert row.param.shape[0] == row.grad.shape[0] == 2
    assert row.param.dtype == row.grad.dtype == torch.float64
    assert row.grad.flatten()[0] == 1
    assert row.grad[1].flatten()[0] == 2
    row.param.mul_(5)
    row.slots["slot"].mul_(7)
    assert land is not None
    land()
    assert param[:, 0].tolist() == [1, 5, 1, 5]
    assert slot[:, 0].tolist() == [1, 7, 1, 7]


def test_staging_in_another_dtype_lands() -> None:
    """A parameter narrower than its state is worked on in the state's dtype and rounded once."""
    param, grad = torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16)
    row, land = staged(param, grad, torch.zeros(3))
    assert row.param.dtype == row.grad.dtype == torch.float32
    row.param.add_(0.25)
    assert land is not None
    land()
    assert param.tolist() == [1.25] * 3


def test_staging_lazy_tensors() -> None:
    """A gradient that is a pending negation or conjugation is staged with its values; itself it stays as it is."""
    numbers = torch.randn(3, dtype=torch.complex128)
    for grad in (numbers.conj(), numbers.conj().imag, torch._efficientzerotensor((3,), dtype=torch.float64)):
        param, slot = torch.zeros(3, dtype=grad.dtype), torch.zeros(3, dtype=grad.dtype)
        expected, lazy = grad.clone(), (grad.is_neg(), grad.is_conj(), grad._is_zerotensor())
        assert any(lazy)
        row, _ = staged(param, grad, slot)
        assert not any((row.grad.is_neg(), row.grad.is_conj(), row.grad._is_zerotensor()))
        right = torch.view_as_real(expected.resolve_conj()) if expected.is_complex() else expected
        torch.testing.assert_close(row.grad, right.resolve_neg() + 0, rtol=0, atol=0)
        assert (grad.is_neg(), grad.is_conj(), grad._is_zerotensor()) == lazy


@pytest.mark.usefixtures("_wide_counts")
@pytest.mark.parametrize("mode", [*MODES, {"foreach": True, "capturable": True}, {"differentiable": True}], ids=str)
def test_small_parameters_are_joined_for_the_step_alone(mode: dict[str, Any]) -> None:
    """Each tensor of state owns its memory; replaced, shared or loaded state and missing gradients are taken in."""
    shapes = [(3, 4), (5,), (), (80, 80), (2, 0)]
    make = functools.partial(Padam, weight_decay=0.1, partial=1 / 8)
    optimizers = []
    for options in (mode, {"foreach": False}):
        params = parameters(shapes)
        leaves = [param.detach() if mode.get("differentiable") else param for param in params]
        optimizers.append((make(leaves, **options), leaves))

    def compare() -> None:
        (_, ours), (_, right) = optimizers
        same(values(ours), values(right), f"{mode} is not what a loop does", 1e-12)

    def check(change: Callable[[Padam], None]) -> None:
        for optimizer, _ in optimizers:
            change(optimizer)
            train(optimizer, 2)
        compare()
        for optimizer, params in optimizers:
            entries = [entry for param in params for entry in (*optimizer.state[param].values(), param)]
            storages = [entry.untyped_storage() for entry in entries if entry.numel()]
            assert len({storage.data_ptr() for storage in storages}) == len(storages), "two entries share memory"
            for entry in entries:
                size = entry.numel() * entry.element_size()
                assert entry.untyped_storage().nbytes() == size, "an entry is a view of something larger"

    def replace(optimizer: Padam) -> None:
        for state in optimizer.state.values():
            state["exp_avg"] = torch.ones_like(state["exp_avg"])

    def clear(optimizer: Padam) -> None:
        optimizer.state.clear()

    def move(optimizer: Padam) -> None:
        for param in params_of(optimizer):
            param.data = param.data.clone()

    for change in (
        lambda _: None,
        lambda _: None,
        replace,
        lambda optimizer: optimizer.load_state_dict(optimizer.state_dict()),
        clear,
        move,
    ):
        check(change)
    for step in (4, 5):
        for optimizer, _ in optimizers:
            for i, param in enumerate(params_of(optimizer)):
                param.grad = None if i == 1 else gradient(param, step, i)
            optimizer.step()
            optimizer.step()
        compare()


def test_portions_bound_temporary_memory() -> None:
    """Rows come in lists of at most 2 MiB on the CPU, long ones in parts that share their memory."""
    rows = [Row(torch.zeros(n), torch.zeros(n), {"slot": torch.zeros(n)}) for n in (2**20, 5, 2**18, 2**19)]
    staged = (piece for row in rows for piece in pieces(row, split=True))
    lists = list(portions(staged, lambda piece: piece[0].param))
    assert LIMITS["cpu"] == 2**21
    assert max(sum(row.param.nbytes for row, _ in batch) for batch in lists) <= 2**21
    for row, land in (piece for batch in lists for piece in batch):
        assert land is None
        for i, tensor in enumerate(row.tensors):
            tensor.fill_(i + 1)
    for row in rows:
        assert [tensor.unique().tolist() for tensor in row.tensors] == [[1], [2], [3]]


class ByTheNorm(Estimator):
    """One scale for the whole tensor, which does not say so."""

    hyperparameters = ()

    def scale(self, grad: Tensor, hyper: Hyper) -> Tensor:
        return grad.mul(0).add_(grad.norm())


class ByTheWhole(ByTheNorm):
    """One that says so."""

    needs = TENSOR


class Rows(Estimator):
    """A scale for each row, with state of its shape."""

    needs = TENSOR
    slots = {"rows": Slot(shape=lambda shape: (*shape[:1], *(1 for _ in shape[1:])))}

    def scale(self, grad: Tensor, hyper: Hyper, rows: Tensor) -> Tensor:
        square = grad.square()
        rows += square.mean(dim=tuple(range(1, grad.ndim)), keepdim=True) if grad.ndim > 1 else square
        return rows.sqrt() + hyper.eps


class Clipped(Transform):
    """Directions no longer than 1."""

    needs = TENSOR

    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors) -> Tensor:
        return x / x.norm().clamp(min=1)


ALL_MODES: list[dict[str, Any]] = [*MODES, {"differentiable": True}, {"foreach": True, "capturable": True}, {}]
UNFUSED = [mode for mode in ALL_MODES if not mode.get("fused")]


def with_gradients(mode: dict[str, Any], shapes: Any, **stages: Any) -> PartialAdaptiveOptimizer:
    """An optimizer with these stages whose parameters are 0 and have gradients of 1."""
    params = [torch.zeros(shape) for shape in shapes]
    optimizer = PartialAdaptiveOptimizer(params, {"lr": 1.0, "partial": 0.5, **mode}, **stages)
    for param in params:
        param.grad = torch.ones_like(param)
    return optimizer


@pytest.mark.parametrize("mode", UNFUSED, ids=str)
def test_whole_tensors_for_rules_that_need_them(mode: dict[str, Any]) -> None:
    """A rule that declares TENSOR gets whole parameters, never joined or split: a norm is that of the parameter."""
    optimizer = with_gradients(mode, [3, 5, 2**20], estimator=ByTheWhole())
    optimizer.step()
    for param in params_of(optimizer):
        torch.testing.assert_close(param.detach(), torch.full_like(param, -(param.numel() ** -0.5)), rtol=1e-5, atol=0)


@pytest.mark.usefixtures("_wide_counts")
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", UNFUSED, ids=str)
def test_every_mode_runs_rules_for_whole_tensors(mode: dict[str, Any], dtype: torch.dtype) -> None:
    """State of another shape and a stage on the direction do the same in every mode that takes them."""
    results = []
    for options in ({"foreach": False}, mode):
        params = [param.detach() for param in parameters(dtype=dtype)]
        optimizer = PartialAdaptiveOptimizer(
            params, {"lr": 0.1, "weight_decay": 0.1, **options}, estimator=Rows(), momentum=ExpAvg(), after=[Clipped()]
        )
        train(optimizer)
        results.append(values(params))
    same(results[1], results[0], f"{mode} is not what a loop does", 1e-12)


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("shapes", [[3], [3, 5]], ids=len)
def test_undeclared_rules_are_refused_in_every_mode(mode: dict[str, Any], shapes: list[int]) -> None:
    """A rule that looks at more than an element and does not say so never works by chance: it is refused by name."""
    optimizer = with_gradients(mode, shapes, estimator=ByTheNorm())
    for _ in range(2):
        with pytest.raises(TypeError, match=r"needs = ELEMENT uses Tensor\.norm, .* declare needs = TENSOR"):
            optimizer.step()
        assert all(not param.any() for param in params_of(optimizer))
        assert not optimizer.state


@pytest.mark.parametrize("stage", [ByTheWhole(), Rows()], ids=lambda stage: type(stage).__name__)
def test_fused_refuses_whole_tensors(stage: Estimator) -> None:
    """fused=True says which stage it cannot compile, before anything has changed."""
    optimizer = with_gradients({"fused": True}, [3, 5], estimator=stage)
    with pytest.raises(RuntimeError, match=rf"fused=True .*{type(stage).__name__} must see whole TENSORs; use foreach"):
        optimizer.step()
    assert all(not param.any() for param in params_of(optimizer))
    assert not optimizer.state


class WritesTheGradient(ExpAvgSq):
    """Overwrites what belongs to the user."""

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
        return super().scale(grad.abs_(), hyper, exp_avg_sq)


class WritesTheWholeGradient(WritesTheGradient):
    needs = TENSOR


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("estimator", [WritesTheGradient(), WritesTheWholeGradient()], ids=["element", "tensor"])
def test_gradients_are_not_to_be_changed(estimator: Estimator, mode: dict[str, Any]) -> None:
    """A rule that writes to the gradient is refused before it has done so."""
    optimizer = with_gradients(mode, [3, 5], estimator=estimator)
    for param in params_of(optimizer):
        param.grad = -torch.ones_like(param)
    with pytest.raises((TypeError, RuntimeError), match=r"changes the gradient in place|fused=True .*WritesTheWhole"):
        optimizer.step()
    assert all(bool((param.grad == -1).all()) and not param.any() for param in params_of(optimizer))


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters each update of a step is for."""
    found: list[int] = []
    for prepared in (PreparedLoop, PreparedForeach, PreparedLaunches):
        ready = prepared.ready

        def noted(self: Any, unit: Any, ready: Any = ready) -> Any:
            found.append(len(unit))
            return ready(self, unit)

        monkeypatch.setattr(prepared, "ready", noted)
    return found


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_equal_groups_are_updated_together(updates: list[int], mode: dict[str, Any]) -> None:
    """Param groups that agree in all hyperparameters are one update, others their own; each keeps its own numbers."""
    params = [Parameter(torch.ones(3)) for _ in range(4)]
    groups = [{"params": [param], "lr": lr} for param, lr in zip(params, (0.1, 0.2, 0.1, 0.2), strict=True)]
    optimizer = Padam(groups, **mode)
    for param in params:
        param.grad = torch.ones(3)
    optimizer.step()
    assert updates == [2, 2]
    for param, lr in zip(params, (0.1, 0.2, 0.1, 0.2), strict=True):
        torch.testing.assert_close(param.detach(), torch.full((3,), 1 - lr))
    optimizer.param_groups[0]["lr"] = 0.3
    updates.clear()
    optimizer.step()
    assert sorted(updates) == [1, 1, 2]


# -- parameters that share memory
