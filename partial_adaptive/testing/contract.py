"""What a PyTorch user relies on: the contract of `torch.optim.Optimizer`."""

import copy
import functools
import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from partial_adaptive.execution.state import entries, scalars_of
from partial_adaptive.testing.harness import (
    Make,
    check,
    contents,
    gradient,
    modes_of,
    parameters,
    params_of,
    raises,
    run,
    same,
    train,
    values,
)


@check
def check_grad_untouched(make: Make) -> None:
    """`.grad` is the user's: weight decay and maximize must act on a copy, and `scale` must not write to `grad`."""
    for mode, decay, maximize in itertools.product(modes_of(make), (0.0, 0.1), (False, True)):
        params = parameters()
        optimizer = make(params, weight_decay=decay, maximize=maximize, **mode)
        for step in range(2):
            grads = [gradient(param, step, i) for i, param in enumerate(params)]
            for param, grad in zip(params, values(grads), strict=True):
                param.grad = grad
            optimizer.step()
            left = [param.grad for param in params if param.grad is not None]
            same(left, grads, f".grad changed during step ({mode}): use out-of-place methods on it")


@check
def check_unknown_keyword(make: Make) -> None:
    """A misspelt hyperparameter must raise TypeError; swallowed, it would silently train with the default."""
    message = raises(TypeError, lambda: make(parameters(), learning_rate=0.1), "learning_rate=0.1 was accepted")
    assert "learning_rate" in message, f"the message must name the keyword, got {message!r}"


@check
def check_hooks_fire_once(make: Make) -> None:
    """Step hooks fire once per step: torch patches `step` once per class, so it must not be overridden."""
    fired: list[str] = []
    optimizer = make(parameters())
    optimizer.register_step_pre_hook(lambda *_: fired.append("pre"))
    optimizer.register_step_post_hook(lambda *_: fired.append("post"))
    train(optimizer, 2)
    assert fired == ["pre", "post"] * 2, f"two steps fired {fired}; don't override step"


@check
def check_late_parameters(make: Make) -> None:
    """A parameter unfrozen late starts at its own step 1: bias correction must not use a count of the optimizer's."""
    for mode in modes_of(make):
        params, alone = parameters(), parameters()
        optimizer, fresh = make(params, **mode), make(alone[1:2], **mode)
        for step in range(5):
            params[0].grad = gradient(params[0], step)
            if step >= 2:
                params[1].grad = gradient(params[1], step)
                alone[1].grad = gradient(params[1], step)
                fresh.step()
            optimizer.step()
        same(values(params[1:2]), values(alone[1:2]), f"a parameter unfrozen late does not start afresh ({mode})")
        assert optimizer.state[params[1]]["step"] == 3, f"step must be 3, got {optimizer.state[params[1]]['step']}"


@check
def check_missing_gradients(make: Make) -> None:
    """Parameters without a gradient are left alone and get no state, also where that is all of them."""
    for mode in modes_of(make):
        params = parameters()
        optimizer = make(params, weight_decay=0.1, **mode)
        optimizer.step()
        params[0].grad = gradient(params[0], 0)
        optimizer.step()
        same(values(params[1:]), values(parameters()[1:]), "a parameter without a gradient was changed")
        assert set(optimizer.state) == {params[0]}, "state was made for a parameter without a gradient"


@check
def check_param_groups(make: Make) -> None:
    """Every group goes by its own hyperparameters, empty ones do no harm, and groups can be added in mid-training."""
    for mode in modes_of(make):
        params, alone = parameters(), parameters()
        own: list[dict[str, Any]] = [{}, {"lr": 0.05, "partial": 0.25}, {"weight_decay": 0.1}, {"maximize": True}]
        groups = [{"params": [param], **options} for param, options in zip(params, own, strict=True)]
        optimizer = make([groups[0], {"params": []}, *groups[1:3]], **mode)
        train(optimizer, 2)
        optimizer.add_param_group(groups[3])
        train(optimizer, 2, start=2)
        for i, options in enumerate(own):
            single = make(alone[i : i + 1], **mode, **options)
            for step in range(2 if i == 3 else 0, 4):
                alone[i].grad = gradient(alone[i], step, i)
                single.step()
        same(values(params), values(alone), f"a group does not follow its own hyperparameters ({mode})")


@check
def check_zero_dim_and_empty_tensors(make: Make) -> None:
    """Scalars and tensors without elements are parameters like any other."""
    for mode in modes_of(make):
        scalar, vector, empty = parameters([(), (1,), (0, 3)])
        with torch.no_grad():
            vector.fill_(scalar.item())
        optimizer = make([scalar, vector, empty], weight_decay=0.1, **mode)
        for step in range(3):
            scalar.grad, empty.grad = gradient(scalar, step), torch.zeros_like(empty)
            vector.grad = scalar.grad.reshape(1)
            optimizer.step()
        same([scalar.detach().reshape(1)], [vector.detach()], f"a 0-dim tensor moves unlike one of shape (1,) ({mode})")
        assert empty.shape == (0, 3), "a tensor without elements changed its shape"


@check
def check_memory_layouts(make: Make) -> None:
    """Transposed, channels-last and sliced parameters are updated where they are: no `view`, no assumed strides."""

    def layouts() -> list[Parameter]:
        plain = values(parameters([(4, 3), (2, 3, 4, 4), (6, 4)]))
        laid_out = (plain[0].t(), plain[1].to(memory_format=torch.channels_last), plain[2][::2, 1:3])
        return [Parameter(tensor) for tensor in laid_out]

    for mode in modes_of(make):
        params = layouts()
        plain = [Parameter(param.detach().clone(memory_format=torch.contiguous_format)) for param in params]
        train(make(params, **mode), 3)
        train(make(plain, **mode), 3)
        same(values(params), values(plain), f"the result depends on the memory layout ({mode})", 1e-12)


@check
def check_mixed_dtypes(make: Make) -> None:
    """Parameters of different dtypes share an optimizer, and each moves as if it were alone."""
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)
    for mode in modes_of(make):
        params, alone = ([parameters(dtype=dtype)[0] for dtype in dtypes] for _ in range(2))
        optimizers = [make([param], **mode) for param in alone]
        optimizer = make(params, **mode)
        for step in range(3):
            for param, twin, single in zip(params, alone, optimizers, strict=True):
                param.grad, twin.grad = gradient(param, step), gradient(param, step)
                single.step()
            optimizer.step()
        same(values(params), values(alone), f"dtypes in one optimizer influence each other ({mode})")


@check
def check_named_parameters(make: Make) -> None:
    """(name, tensor) pairs are taken, and the names kept in the param groups and the checkpoint."""
    params = parameters()
    names = [f"layer.{i}" for i in range(len(params))]
    optimizer = make(list(zip(names, params, strict=True)))
    train(optimizer)
    same(values(params), run(make), "named parameters move unlike the same without names")
    assert optimizer.state_dict()["param_groups"][0].get("param_names") == names, "the names are not in the checkpoint"


@check
def check_schedulers(make: Make) -> None:
    """A learning rate scheduler's changes count at the very next step: read `hyper.lr`, remember nothing."""
    params, replayed = parameters(), parameters()
    scheduled, by_hand = make(params, lr=0.1), make(replayed, lr=0.1)
    scheduler = StepLR(scheduled, step_size=1, gamma=0.5)
    for step in range(4):
        train(scheduled, 1, start=step)
        scheduler.step()
        fresh = make(replayed, lr=0.1 * 0.5**step)
        fresh.state = by_hand.state
        train(fresh, 1, start=step)
    same(values(params), values(replayed), "a scheduled learning rate is not what the step uses", 1e-12)


@check
def check_momentum_cycling(make: Make) -> None:
    """OneCycleLR also cycles `betas` or `momentum` where the optimizer has them; both are read anew at every step."""
    params, replayed = parameters(), parameters()
    cycled, by_hand = make(params), make(replayed)
    cycled_keys = {"lr", "betas", "momentum"} & cycled.defaults.keys()
    scheduler = OneCycleLR(cycled, max_lr=0.1, total_steps=6, cycle_momentum=len(cycled_keys) > 1)
    for step in range(5):
        now = {key: cycled.param_groups[0][key] for key in cycled_keys}
        train(cycled, 1, start=step)
        scheduler.step()
        fresh = make(replayed, **now)
        fresh.state = by_hand.state
        train(fresh, 1, start=step)
    same(values(params), values(replayed), "cycled hyperparameters are not what the step uses", 1e-12)


@check
def check_closure(make: Make) -> None:
    """`step(closure)` evaluates the closure once, with gradients enabled, and returns its loss."""
    (param,) = parameters([(3,)])
    optimizer = make([param])
    calls: list[bool] = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (param**2).sum()
        torch.autograd.backward(loss)
        return loss

    before = param.detach().clone()
    loss = optimizer.step(closure)
    assert calls == [True], f"the closure must run once with gradients enabled, ran as {calls}"
    assert loss is not None, "step must return what the closure returned"
    same([loss.detach()], [(before**2).sum()], "step must return what the closure returned")
    assert not torch.equal(param, before), "the step after the closure did not move the parameter"


@check
def check_failure_changes_nothing(make: Make) -> None:
    """A hyperparameter that is out of range in mid-training raises ValueError before any parameter or state changes."""
    sabotage = {"partial": 0.7, "lr": float("nan"), "weight_decay": -1.0}
    for mode, (name, value), steps in itertools.product(modes_of(make), sabotage.items(), (0, 2)):
        params = parameters()
        optimizer = make([{"params": params[:2]}, {"params": params[2:]}], **mode)
        train(optimizer, steps)
        optimizer.param_groups[1][name] = value
        before = contents(optimizer)
        step = functools.partial(train, optimizer, 1)
        message = raises(ValueError, step, f"{name}={value} in a group was accepted by step")
        assert name in message, f"the message must name {name}, got {message!r}"
        same(contents(optimizer), before, f"a step that failed for {name}={value} has changed something")


@check
def check_state(make: Make) -> None:
    """State is per parameter, in tensors that own their memory, of the shapes and under the names that are declared."""
    optimizer = make(parameters())
    train(optimizer)
    rule = optimizer.recipe.rule(optimizer.param_groups[0], scaled=True)
    assert set(optimizer.state) == set(params_of(optimizer)), "state must be kept per parameter and nowhere else"
    for param, state in optimizer.state.items():
        shapes = {**dict.fromkeys(scalars_of(rule), ()), **entries(rule, param)}
        assert state.keys() == shapes.keys(), f"the state has {sorted(state)}, declared are {sorted(shapes)}"
        for name, value in state.items():
            assert isinstance(value, Tensor), f"state {name} must be a tensor, got {type(value).__name__}"
            assert tuple(value.shape) == shapes[name], (
                f"state {name} has shape {tuple(value.shape)}, not {shapes[name]}"
            )
            alone = value.untyped_storage().nbytes() == value.nbytes
            assert alone, f"state {name} does not own its memory: saved by itself it would take more than its size"


@check
def check_scale_is_a_new_tensor(make: Make) -> None:
    """The optimizer raises s to its power in place, so `scale` must return a new tensor: clone what is state."""
    optimizer = make(parameters())
    train(optimizer, 2)
    group = optimizer.param_groups[0]
    rule = optimizer.recipe.rule(group, scaled=True)
    with torch.no_grad():
        for param, state in optimizer.state.items():
            kept = {name: value.clone() for name, value in state.items()} | {"the gradient": gradient(param, 2)}
            hyper = rule.hyper(group, 3.0, 3.0, [kept[name] for name in rule.momentum.scalars])
            scale = rule.scale(param, kept["the gradient"], hyper, kept)
            shared = [name for name, value in kept.items() if scale is not None and _share_memory(scale, value)]
            assert not shared, f"scale returned {shared[0]} itself, which would be overwritten"


@check
def check_stages_hold_no_state(make: Make) -> None:
    """Stages are shared by all parameters, so they must not remember anything: declare a slot instead."""
    optimizer = make(parameters())
    stages = optimizer.recipe.stages
    before = copy.deepcopy([vars(stage) for stage in stages])
    train(optimizer)
    for stage, attributes in zip(stages, before, strict=True):
        now = vars(stage)
        unchanged = repr(now) == repr(attributes)
        assert unchanged, f"{type(stage).__name__} had the attributes {attributes} and has {now} after training"


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
