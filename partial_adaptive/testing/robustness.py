"""What happens to tensors in real training: state replaced, parameters resized, converted and shared, odd gradients."""

import gc
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.testing.harness import (
    Make,
    check,
    contents,
    gradient,
    modes_of,
    parameters,
    params_of,
    raises,
    same,
    train,
    values,
)

Meddle = Callable[[PartialAdaptiveOptimizer], object]


def _clear(optimizer: PartialAdaptiveOptimizer) -> None:
    optimizer.state.clear()


def _replace(optimizer: PartialAdaptiveOptimizer) -> None:
    optimizer.state = defaultdict(dict)


def _delete(optimizer: PartialAdaptiveOptimizer) -> None:
    for param in list(optimizer.state):
        del optimizer.state[param]


def _renew(optimizer: PartialAdaptiveOptimizer) -> None:
    for state in optimizer.state.values():
        state.update({name: value.clone() for name, value in state.items()})


def _rebind(optimizer: PartialAdaptiveOptimizer) -> None:
    for state in optimizer.state.values():
        for value in state.values():
            value.data = value.data.clone()


def _move(optimizer: PartialAdaptiveOptimizer) -> None:
    for param in params_of(optimizer):
        param.data = param.data.clone()


def _share(optimizer: PartialAdaptiveOptimizer) -> None:
    for param in params_of(optimizer):
        param.share_memory_()


@check
def check_nothing_is_remembered(make: Make) -> None:
    """State that was cleared, deleted or replaced is gone; what was moved or rebound is found where it is now."""
    fresh: tuple[Meddle, ...] = (_clear, _replace, _delete)
    kept: tuple[Meddle, ...] = (_renew, _rebind, _move, _share)
    for mode in modes_of(make):
        for meddle in (*fresh, *kept):
            params, twins = parameters(), parameters()
            optimizer, reference = make(params, **mode), make(twins, **mode)
            train(optimizer, 2)
            train(reference, 2)
            old = values(tensor for state in optimizer.state.values() for tensor in state.values())
            alive = [tensor for state in optimizer.state.values() for tensor in state.values()]
            meddle(optimizer)
            if meddle in fresh:
                reference = make(twins, **mode)
            train(optimizer, 2, start=2)
            train(reference, 2, start=2)
            same(contents(optimizer), contents(reference), f"{meddle.__name__} of state was not noticed ({mode})")
            if meddle in fresh:
                same(alive, old, f"state that is no longer the optimizer's was written to ({mode})")


@check
def check_changing_subsets(make: Make) -> None:
    """Whichever parameters have a gradient at a step, each moves as if it were alone, and memory does not grow."""
    for mode in modes_of(make):
        params, alone = parameters(), parameters()
        optimizer, singles = make(params, **mode), [make([param], **mode) for param in alone]
        for step in range(6):
            for i, (param, twin, single) in enumerate(zip(params, alone, singles, strict=True)):
                here = (step + i) % 3 or step == i
                param.grad = gradient(param, step, i) if here else None
                twin.grad = gradient(twin, step, i) if here else None
                single.step()
            optimizer.step()
        same(values(params), values(alone), f"a parameter moves by which others have gradients ({mode})", 1e-12)


@check
def check_failure_in_the_middle(make: Make) -> None:
    """What does not fit is a RuntimeError that names the entry, before any parameter or state has changed."""

    def grown(optimizer: PartialAdaptiveOptimizer) -> str:
        param = params_of(optimizer)[1]
        param.data = torch.cat([param.data, param.data])
        return "state"

    def counted(value: Any) -> Callable[[PartialAdaptiveOptimizer], str]:
        def meddle(optimizer: PartialAdaptiveOptimizer) -> str:
            optimizer.state[params_of(optimizer)[1]]["step"] = value
            return "step"

        return meddle

    def elsewhere(optimizer: PartialAdaptiveOptimizer) -> str:
        state = optimizer.state[params_of(optimizer)[1]]
        state["step"] = state["step"].to("meta")
        return "step"

    sabotages = (grown, counted(3), counted(torch.tensor(3)), counted(torch.tensor([3.0])), counted(None), elsewhere)
    for mode in modes_of(make):
        for sabotage in sabotages:
            optimizer = make(parameters(), **mode)
            train(optimizer, 2)
            named = sabotage(optimizer)
            before = [contents(make([param])) for param in params_of(optimizer)]
            for i, param in enumerate(params_of(optimizer)):
                param.grad = gradient(param, 2, i)
            message = raises(RuntimeError, optimizer.step, f"a {named} that does not fit was accepted ({mode})")
            assert named in message, f"the message must name {named}, got {message!r}"
            after = [contents(make([param])) for param in params_of(optimizer)]
            for now, then in zip(after, before, strict=True):
                same(now, then, f"a step that failed for a {named} has changed something ({mode})")


@check
def check_conversion(make: Make) -> None:
    """A model that is converted between steps goes on in every mode alike, in the widest dtype there is."""
    for start, then in (
        (torch.float32, torch.float64),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ):
        results = []
        for mode in modes_of(make):
            params = parameters(dtype=start)
            optimizer = make(params, lr=0.01, **mode)
            train(optimizer, 2)
            for param in params:
                param.data, param.grad = param.data.to(then), None
            train(optimizer, 2, start=2)
            results.append([param.double() for param in values(params)])
        for mode, result in zip(modes_of(make), results, strict=True):
            tolerance = 1e-2 if then is torch.bfloat16 else 1e-5
            same(result, results[0], f"{start} made {then} in mid-training goes otherwise with {mode}", tolerance)


@check
def check_half_precision(make: Make) -> None:
    """float16 is computed in float32: ε = 1e-8, which it cannot hold, still keeps zero gradients from giving NaN."""
    for dtype in (torch.float16, torch.bfloat16):
        results = []
        for mode in modes_of(make):
            params = parameters(dtype=dtype)
            optimizer = make(params, lr=0.01, **mode)
            train(optimizer, 1, factor=0.0)
            train(optimizer, 2, factor=0.01)
            results.append([param.double() for param in values(params)])
            assert all(bool(param.isfinite().all()) for param in params), f"{dtype} gave NaN or infinity ({mode})"
        for result in results:
            same(result, results[0], f"modes differ in {dtype}", 2e-2)


@check
def check_tied_memory(make: Make) -> None:
    """Parameters that share memory are updated one after the other: no update is lost."""
    for mode in modes_of(make):
        results = []
        for options in ({"foreach": False}, mode):
            first, second = parameters([(6,), (6,)])
            second.data = first.data
            optimizer = make([first, second], **options)
            train(optimizer, 3)
            results.append(values([first, second]))
        same(results[1], results[0], f"an update of a parameter in shared memory is lost ({mode})", 1e-12)


@check
def check_lazy_gradients(make: Make) -> None:
    """Gradients that are not what they seem (negated, all zero, expanded, the parameter itself) are read right."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "negative bit": lambda param: torch._neg_view(torch.full(param.shape, 2.0, dtype=param.dtype)),
        "zero tensor": lambda param: torch._efficientzerotensor(param.shape, dtype=param.dtype, device=param.device),
        "expanded": lambda param: torch.full((), 2.0, dtype=param.dtype).expand(param.shape),
        "transposed": lambda param: torch.arange(float(param.numel()), dtype=param.dtype).view(4, 3).t(),
        "the parameter": lambda param: param.data,
    }
    for mode in modes_of(make):
        for kind, odd in kinds.items():
            (ours,), (plain,) = parameters([(3, 4)]), parameters([(3, 4)])
            optimizer, reference = make([ours], weight_decay=0.1, **mode), make([plain], weight_decay=0.1, **mode)
            for _ in range(3):
                ours.grad = odd(ours)
                plain.grad = odd(plain).clone().resolve_neg().contiguous()
                optimizer.step()
                reference.step()
            same(values([ours]), values([plain]), f"a gradient of the kind {kind!r} is misread ({mode})", 1e-12)


@check
def check_gradients_are_freed(make: Make) -> None:
    """After zero_grad nobody holds a gradient, and a parameter that has left the optimizer is held by nobody."""
    for mode in modes_of(make):
        params = parameters([(50,), (60,)])
        optimizer = make(params, **mode)
        train(optimizer, 2)
        grads = [weakref.ref(param.grad) for param in params if param.grad is not None]
        optimizer.zero_grad()
        gc.collect()
        assert not any(grad() is not None for grad in grads), f"a gradient is still held after zero_grad ({mode})"
        train(optimizer, 1)
        gone = weakref.ref(params[1])
        optimizer.param_groups[0]["params"].pop()
        optimizer.state.pop(params.pop())
        params[0].grad = gradient(params[0], 3)
        optimizer.step()
        gc.collect()
        assert gone() is None, f"a parameter that was removed is still held ({mode})"


@check
def check_version_counters(make: Make) -> None:
    """Autograd notices that a step has overwritten what a backward still needs."""
    for mode in modes_of(make):
        (weight,) = parameters([(3,)])
        optimizer = make([weight], **mode)
        train(optimizer, 2)
        loss = (weight * weight).sum()
        weight.grad = gradient(weight, 2)
        optimizer.step()
        raises(RuntimeError, loss.backward, f"a step between forward and backward went unnoticed ({mode})")


@check
def check_default_device(make: Make) -> None:
    """A default device for new tensors does not change where the optimizer keeps its own."""
    for mode in modes_of(make):
        params, twins = parameters(), parameters()
        grads = [[gradient(param, step, i) for i, param in enumerate(params)] for step in range(3)]
        optimizers = make(params, **mode), make(twins, **mode)
        for optimizer, device in zip(optimizers, ("meta", "cpu"), strict=True):
            for of_step in grads:
                for param, grad in zip(params_of(optimizer), of_step, strict=True):
                    param.grad = grad.clone()
                with torch.device(device):
                    optimizer.step()
                    optimizer.load_state_dict(optimizer.state_dict())
        same(contents(optimizers[0]), contents(optimizers[1]), f"the default device made a difference ({mode})")


@check
def check_minimizes(make: Make) -> None:
    """With one of a few learning rates 300 steps bring a badly scaled bowl down to less than a tenth."""
    curvature = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)
    best = float("inf")
    start = 0.0
    for lr in (1.0, 0.3, 0.1, 0.03, 0.01):
        weight = Parameter(torch.tensor([[1.0, -1.0, 2.0, 0.5]], dtype=torch.float64))
        optimizer = make([weight], lr=lr)
        start = float((curvature * weight.detach() ** 2).sum())
        for _ in range(300):
            weight.grad = 2 * curvature * weight.detach()
            optimizer.step()
        end = float((curvature * weight.detach() ** 2).sum())
        best = min(best, end if end == end else best)
    assert best < start / 10, f"the best learning rate ends at {best:.3g}, from {start:.3g}"


@check
def check_declared_values(make: Make) -> None:
    """A param group holds plain Python values only, which torch.load reads with weights_only=True."""
    optimizer = make(parameters())
    train(optimizer, 1)
    plain = (bool, int, float, str, torch.dtype, Tensor, type(None))
    group = optimizer.state_dict()["param_groups"][0]
    for name in optimizer.defaults:
        value = group[name]
        if isinstance(value, dict):  # a constraint, as plain data
            value = tuple(value.values())
        elements = value if type(value) is tuple else (value,)
        odd = [type(element).__name__ for element in elements if type(element) not in plain]
        assert not odd, f"{name} is stored as a {odd[0]}; declare it with `number`, `whole`, `flag` or `choice`"
