"""How the arithmetic is run: per tensor, foreach, capturable, differentiable, complex, sparse, in another dtype."""

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive.testing.harness import (
    DECAYS,
    Make,
    check,
    contents,
    default_dtype,
    gradient,
    modes_of,
    parameters,
    raises,
    run,
    same,
    train,
    values,
)


@check
def check_foreach(make: Make) -> None:
    """TensorLists compute what the per-tensor loop does: `scale` uses tensor methods alone and fetches no values."""
    for partial, decay in itertools.product((0.0, 0.125, 0.3, 0.5), DECAYS):
        for maximize in (False, True):
            options = {"partial": partial, "maximize": maximize, **decay}
            single, many = (run(make, foreach=foreach, **options) for foreach in (False, True))
            same(many, single, f"foreach=True differs from foreach=False with {options}", 1e-12)


@check
def check_foreach_groups_by_step(make: Make) -> None:
    """Parameters are updated together only where they, and their estimators' state, have taken equally many steps."""
    results = []
    for mode in modes_of(make):
        params = parameters()
        optimizer = make(params, **mode)
        for step in range(5):
            optimizer.param_groups[0]["partial"] = 0.0 if step == 0 else 0.125
            for i, param in enumerate(params):
                param.grad = gradient(param, step, i) if (step + i) % 3 else None
            optimizer.step()
        results.append(values(params))
    same(results[1], results[0], "foreach=True differs where parameters have taken different numbers of steps", 1e-12)


@check
def check_capturable(make: Make) -> None:
    """capturable=True, which keeps step counts as tensors, changes nothing: use `hyper` arithmetically."""
    with default_dtype(torch.float64):
        for mode, partial in itertools.product(modes_of(make), (0.0, 0.125, 0.3)):
            plain, captured = (run(make, capturable=flag, partial=partial, **mode) for flag in (False, True))
            same(captured, plain, f"capturable=True differs from capturable=False (p = {partial}, {mode})", 1e-12)


@check
def check_tensor_hyperparameters(make: Make) -> None:
    """lr, partial and betas may be tensors of one element, capturable or not, and mean what the numbers mean."""
    with default_dtype(torch.float64):
        numbers: dict[str, Any] = {"lr": 0.05, "partial": 0.3}
        if "betas" in make(parameters()).defaults:
            numbers["betas"] = (0.8, 0.9)
        for mode, capturable, shape in itertools.product(modes_of(make), (False, True), ((), (1,))):
            tensors = {key: _tensors(value, shape) for key, value in numbers.items()}
            claim = f"tensors {tuple(tensors)} of shape {shape} differ from numbers ({mode}, capturable={capturable})"
            for decay in DECAYS:
                plain = run(make, **numbers, **decay)
                ours = run(make, capturable=capturable, **tensors, **decay, **mode)
                same(ours, plain, f"{claim} with {decay}", 1e-12)


@check
def check_tensors_changed_in_place(make: Make) -> None:
    """A tensor lr or partial changed in place counts at the next step."""
    for mode, capturable in itertools.product(modes_of(make), (False, True)):
        with default_dtype(torch.float64):
            by_tensor, by_number = parameters(), parameters()
            lr, partial = torch.tensor(0.1), torch.tensor(0.125)
            changing = make(by_tensor, lr=lr, partial=partial, capturable=capturable, **mode)
            reference = make(by_number, lr=0.1, partial=0.125, **mode)
            train(changing, 2)
            train(reference, 2)
            lr.fill_(0.02)
            partial.fill_(0.3)
            reference.param_groups[0] |= {"lr": 0.02, "partial": 0.3}
            train(changing, 2, start=2)
            train(reference, 2, start=2)
        same(values(by_tensor), values(by_number), f"a tensor changed in place is not what step used ({mode})", 1e-12)


@check
def check_differentiable(make: Make) -> None:
    """differentiable=True lets gradients flow through step to θ, g, lr and p, as finite differences confirm."""
    start, grad = (tensor.requires_grad_() for tensor in values(parameters([(3,), (3,)])))
    lr, partial = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.1, 0.3))

    def after(start: Tensor, grad: Tensor, lr: Tensor, partial: Tensor, **decay: Any) -> Tensor:
        param = start.clone()
        optimizer = make([param], lr=lr, partial=partial, differentiable=True, **decay)
        for factor in (1.0, -2.0):
            param.grad = grad * factor
            optimizer.step()
        return param

    for decay in DECAYS:
        through_step = torch.autograd.gradcheck(
            lambda *inputs, decay=decay: after(*inputs, **decay), (start, grad, lr, partial), raise_exception=False
        )
        assert through_step, f"autograd disagrees with finite differences ({decay}): is something detached?"
        plain = [Parameter(start.detach().clone())]
        optimizer = make(plain, lr=0.1, partial=0.3, **decay)
        for factor in (1.0, -2.0):
            plain[0].grad = grad.detach() * factor
            optimizer.step()
        result = after(start, grad, lr, partial, **decay)
        same([result.detach()], values(plain), f"differentiable=True takes another step ({decay})", 1e-12)


@check
def check_complex(make: Make) -> None:
    """A complex parameter is its real and imaginary parts side by side."""
    for mode, decay in itertools.product(modes_of(make), DECAYS):
        numbers = parameters(dtype=torch.complex128)
        pairs = [Parameter(torch.view_as_real(param.detach().clone())) for param in numbers]
        optimizer, real = make(numbers, **decay, **mode), make(pairs, **decay, **mode)
        for step in range(3):
            for i, (number, pair) in enumerate(zip(numbers, pairs, strict=True)):
                number.grad = gradient(number, step, i)
                pair.grad = torch.view_as_real(number.grad.clone())
            optimizer.step()
            real.step()
        as_pairs = [torch.view_as_real(number) for number in values(numbers)]
        same(as_pairs, values(pairs), f"a complex parameter moves unlike its real pairs ({mode}, {decay})", 1e-12)


@check
def check_sparse(make: Make) -> None:
    """Sparse gradients give exactly what dense ones give, or RuntimeError before anything has changed."""
    for mode, partial in itertools.product(modes_of(make), (0.0, 0.125)):
        dense, sparse = parameters([(3,), (5, 2)]), parameters([(3,), (5, 2)])
        reference, optimizer = make(dense, partial=partial, **mode), make(sparse, partial=partial, **mode)
        before, message = contents(optimizer), ""
        for step in range(4):
            dense[0].grad, sparse[0].grad = (gradient(dense[0], step) for _ in range(2))
            rows = torch.tensor([[step % 2, 2, 2]])  # rows 0 and 1 rest now and then; row 2 twice: not coalesced
            sparse[1].grad = torch.sparse_coo_tensor(rows, gradient(dense[1], step)[:3], (5, 2), check_invariants=False)
            dense[1].grad = sparse[1].grad.to_dense()
            try:
                optimizer.step()
            except RuntimeError as refusal:
                message = str(refusal)
                same(contents(optimizer), before, "a refused sparse gradient has changed something")
                break
            reference.step()
        if message:
            assert "sparse" in message, f"the message must say that it is about sparse gradients, got {message!r}"
        else:
            claim = f"sparse gradients differ from dense ones (p = {partial}, {mode}): is `sparse = True` really true?"
            same(values(sparse), values(dense), claim, 1e-12)


@check
def check_sparse_with_decay(make: Make) -> None:
    """Weight decay moves coordinates that have no gradient, so sparse gradients with it raise RuntimeError."""
    (param,) = parameters([(5, 2)])
    optimizer = make([param], weight_decay=0.1)
    param.grad = gradient(param, 0).to_sparse(1)
    raises(RuntimeError, optimizer.step, "sparse gradients with weight_decay must raise RuntimeError")
    same(values([param]), values(parameters([(5, 2)])), "a refused sparse gradient has changed a parameter")


@check
def check_state_dtype(make: Make) -> None:
    """With state_dtype=float32 bfloat16 parameters have float32 state and arithmetic; only the result is rounded."""
    for mode in modes_of(make):
        low = parameters(dtype=torch.bfloat16)
        wide = [Parameter(param.detach().float()) for param in low]
        optimizer, reference = make(low, state_dtype=torch.float32, **mode), make(wide, **mode)
        for step in range(4):
            for i, (param, twin) in enumerate(zip(low, wide, strict=True)):
                param.grad = gradient(param, step, i)
                twin.grad = param.grad.float()
            optimizer.step()
            reference.step()
            with torch.no_grad():
                for twin in wide:
                    twin.copy_(twin.bfloat16())
        rounded = [twin.bfloat16() for twin in values(wide)]
        same(values(low), rounded, f"bfloat16 with float32 state is not float32 arithmetic, rounded ({mode})")
        slots = optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).slots
        dtypes = {state[name].dtype for state in optimizer.state.values() for name in slots}
        assert dtypes == {torch.float32}, f"all slots must be float32, got {dtypes}"


@check
def check_low_precision(make: Make) -> None:
    """bfloat16 parameters stay bfloat16 and move about as float32 ones do, in float32 arithmetic."""
    for mode in modes_of(make):
        low, single = (run(make, dtype=dtype, **mode) for dtype in (torch.bfloat16, torch.float32))
        assert {param.dtype for param in low} == {torch.bfloat16}, "bfloat16 parameters changed their dtype"
        same([param.float() for param in low], single, f"bfloat16 goes astray ({mode})", 0.1)


def _tensors(value: Any, shape: tuple[int, ...]) -> Any:
    return tuple(_tensors(v, shape) for v in value) if isinstance(value, tuple) else torch.full(shape, value)
