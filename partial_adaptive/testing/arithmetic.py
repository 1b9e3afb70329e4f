"""What the rule promises: the meaning of p, of decay, of maximize, and of a scale in the gradient's units."""

import functools
import itertools

import torch
from torch import Tensor

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.projection import Box, HalfSpace
from partial_adaptive.rules.second_moments import Estimator
from partial_adaptive.testing.harness import (
    DECAYS,
    Make,
    check,
    contents,
    displacement,
    gradient,
    modes_of,
    parameters,
    params_of,
    run,
    same,
    train,
    values,
)


@check(law="linear")
def check_zero_exponent_is_linear(make: Make) -> None:
    """At p = 0 the update is linear in the gradients: nothing of the second moment is left in it."""
    once, twice = (displacement(make, partial=0.0, weight_decay=0.0, factor=factor) for factor in (1.0, 2.0))
    same([twice], [2 * once], "at p = 0 the gradients doubled must double the steps", 1e-12)


@check
def check_zero_exponent_keeps_nothing(make: Make) -> None:
    """At p = 0 the second moment neither runs nor keeps state: its entries are there by name, and empty."""
    optimizer = make(parameters(), partial=0.0)
    train(optimizer)
    own = tuple(optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment.slots)
    entries = [entry for state in optimizer.state.values() for entry in state.items()]
    kept = {name for name, value in entries if own and name.startswith(own) and value.numel()}
    assert not kept, f"at p = 0 the state must not hold {sorted(kept)}"


@check(law="units")
def check_units(make: Make) -> None:
    """The scale is in units of |g|: at p = 1/2 gradients a thousand times larger, ε negligible, take the same steps."""
    small, large = (displacement(make, partial=0.5, factor=factor) for factor in (1e3, 1e6))
    same(
        [large], [small], "at p = 1/2 the steps depend on the gradients' units: return a root of what is squared", 0.02
    )


@check
def check_continuity(make: Make) -> None:
    """The steps are continuous in p, whether s^(2p) is made of square roots or by `pow`."""
    for p, nearby in ((0.0, 1e-7), (0.125, 0.125 + 1e-7), (0.25, 0.25 + 1e-7), (0.3, 0.3 + 1e-7), (0.5, 0.5 - 1e-7)):
        here, there = (displacement(make, partial=exponent) for exponent in (p, nearby))
        same([there], [here], f"the steps jump between p = {p} and p = {nearby}; is s finite and positive?", 1e-4)


@check
def check_zero_gradients(make: Make) -> None:
    """The scale is positive always: coordinates whose gradient is zero, at first or for ever, give no NaN."""
    for mode in modes_of(make):
        for partial in (0.125, 0.5):
            params = parameters()
            optimizer = make(params, partial=partial, **mode)
            for step in range(3):
                for param in params:
                    param.grad = torch.zeros_like(param) if step == 0 else gradient(param, step).clamp(min=0)
                optimizer.step()
            finite = all(bool(value.isfinite().all()) for value in contents(optimizer))
            assert finite, f"zero gradients at p = {partial} gave NaN or infinity: add hyper.eps to the scale"


@check
def check_state_creating_step(make: Make) -> None:
    """A step with lr 0 and zero gradients, which is how distributed checkpoints create state, moves no parameter."""
    for mode in modes_of(make):
        for partial in (0.0, 0.125, 0.5):
            for decay in DECAYS:
                params = parameters()
                optimizer = make(params, partial=partial, lr=0.0, **decay, **mode)
                train(optimizer, 1, factor=0.0)
                claim = f"parameters changed at lr = 0 with zero gradients (p = {partial}, {decay})"
                same(values(params), values(parameters()), claim)


@check(law="position")
def check_learning_rate_scales_steps(make: Make) -> None:
    """α only multiplies: twice the learning rate takes twice the steps, so a scale must not read it."""
    once, twice = (displacement(make, lr=lr, weight_decay=0.0) for lr in (0.01, 0.02))
    same([twice], [2 * once], "twice the learning rate is not twice the step", 1e-12)


@check
def check_maximize(make: Make) -> None:
    """maximize=True is minimizing with the gradients negated."""
    for mode in modes_of(make):
        params = parameters()
        train(make(params, maximize=True, **mode))
        negated = parameters()
        train(make(negated, **mode), factor=-1.0)
        same(values(params), values(negated), f"maximize is not the same as negated gradients ({mode})", 1e-12)


@check
def check_coupled_decay(make: Make) -> None:
    """weight_decay adds λθ to the gradient, after maximize has negated it."""
    for mode in modes_of(make):
        for maximize in (False, True):
            ours, by_hand = parameters(), parameters()
            optimizer = make(ours, weight_decay=0.1, decoupled_weight_decay=False, maximize=maximize, **mode)
            reference = make(by_hand, weight_decay=0.0, **mode)
            for step in range(4):
                for i, (param, twin) in enumerate(zip(ours, by_hand, strict=True)):
                    param.grad = gradient(param, step, i)
                    twin.grad = (-param.grad if maximize else param.grad) + 0.1 * twin.detach()
                optimizer.step()
                reference.step()
            same(values(ours), values(by_hand), f"weight_decay is not g + λθ (maximize={maximize}, {mode})", 1e-12)


@check(law="position")
def check_decoupled_decay(make: Make) -> None:
    """decoupled_weight_decay multiplies θ by 1 − αλ and leaves the gradient, and so the scale, alone."""
    for mode in modes_of(make):
        ours, by_hand = parameters(), parameters()
        optimizer = make(ours, weight_decay=0.1, decoupled_weight_decay=True, **mode)
        reference = make(by_hand, weight_decay=0.0, **mode)
        for step in range(4):
            with torch.no_grad():
                for param in by_hand:
                    param.mul_(1 - optimizer.param_groups[0]["lr"] * 0.1)
            train(optimizer, 1, start=step)
            train(reference, 1, start=step)
        same(values(ours), values(by_hand), f"decoupled weight decay is not (1 − αλ)θ ({mode})", 1e-12)


@check
def check_exponent_changes(make: Make) -> None:
    """The exponent can change during training, and the next step goes by the new one."""
    for mode in modes_of(make):
        params, replayed = parameters(), parameters()
        optimizer, before = make(params, partial=0.125, **mode), make(replayed, partial=0.125, **mode)
        train(optimizer, 2)
        train(before, 2)
        optimizer.param_groups[0]["partial"] = 0.25
        after = make(replayed, partial=0.25, **mode)
        after.state = before.state
        train(optimizer, 2, start=2)
        train(after, 2, start=2)
        same(values(params), values(replayed), f"a change of partial did not count at the next step ({mode})")


@check
def check_estimator_age(make: Make) -> None:
    """Where p was 0 the estimator has seen nothing: its bias correction counts the steps that it took (`hyper.age`)."""
    # With lr = 0 both stay where they are, on which a stage may depend.
    optimizer, reference = make(parameters(), partial=0.0, lr=0.0), make(parameters(), partial=0.125, lr=0.0)
    if not _remembers(optimizer):
        return
    train(optimizer, 3, factor=0.0)  # zeros leave the momentum's averages as they were
    optimizer.param_groups[0]["partial"] = 0.125
    for step in range(3):
        late, fresh = _scales(optimizer, step), _scales(reference, step)
        same(late, fresh, "switched on in mid-training, the scale differs from that of a fresh optimizer", 1e-12)
        optimizer.step()
        reference.step()


@check
def check_estimator_pause(make: Make) -> None:
    """While p is 0 for some steps the estimator rests: it keeps its state and its age, and goes on from there."""
    optimizer, reference = make(parameters(), partial=0.125), make(parameters(), partial=0.125)
    if not _remembers(optimizer):
        return
    for one in (optimizer, reference):
        train(one, 2, factor=0.0)
    optimizer.param_groups[0]["partial"] = 0.0
    train(optimizer, 3, factor=0.0)
    optimizer.param_groups[0]["partial"] = 0.125
    same(
        _scales(optimizer, 0),
        _scales(reference, 0),
        "the scale after a pause at p = 0 differs from that without",
        1e-12,
    )


@check
def check_scale_of(make: Make) -> None:
    """`scale_of` shows the scale, positive and of the parameter's shape, and disturbs nothing."""
    for partial in (0.0, 0.125):
        params = parameters()
        optimizer = make(params, partial=partial)
        for step in range(3):
            for i, param in enumerate(params):
                param.grad = gradient(param, step, i)
                scale = optimizer.scale_of(param)
                second_moment = optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment
                none = partial == 0 or not isinstance(second_moment, Estimator)
                assert (scale is None) == none, f"scale_of must be None exactly where p = 0, got {scale}"
                if scale is not None:
                    assert scale.shape == param.shape, f"the scale has shape {tuple(scale.shape)}, not the parameter's"
                    assert bool((scale > 0).all()), "the scale must be positive: add hyper.eps"
            optimizer.step()
        same(values(params), run(make, 3, partial=partial), "looking at the scale has changed the training")


@check
def check_feasible_set(make: Make) -> None:
    """A constraint is projected onto when the step is done, in the metric s^(2p) of the scale that has divided it."""
    plain = make(parameters())
    if not isinstance(plain.recipe.rule(plain.param_groups[0], scaled=True).second_moment, Estimator):
        return  # no metric to project in
    for partial, constraint in itertools.product((0.0, 0.125, 0.5), (Box(-0.5, 0.7), HalfSpace(1.0, -1.0))):
        for mode in modes_of(functools.partial(make, constraint=constraint)):
            params, freed = parameters(), parameters()
            optimizer = make(params, partial=partial, constraint=constraint, **mode)
            free = make(freed, partial=partial, constraint=None, **mode)
            for step in range(4):
                for i, (param, twin) in enumerate(zip(params, freed, strict=True)):
                    twin.data.copy_(param.data)
                    param.grad = twin.grad = gradient(param, step, i)
                scales = [free.scale_of(twin) for twin in freed]
                free.step()
                optimizer.step()
                nearest = [
                    constraint.project(
                        twin.detach(), torch.ones_like(twin) if scale is None else scale ** (2 * partial)
                    )
                    for twin, scale in zip(freed, scales, strict=True)
                ]
                claim = f"the step does not end at the nearest point of {constraint} (p = {partial}, {mode})"
                same(values(params), nearest, claim, 1e-10)


def _remembers(optimizer: PartialAdaptiveOptimizer) -> bool:
    """Whether the second moment has a state, which could be of another age than the parameter."""
    return bool(optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment.slots)


def _scales(optimizer: PartialAdaptiveOptimizer, step: int) -> list[Tensor]:
    """The scales with the gradients of a step."""
    for i, param in enumerate(params_of(optimizer)):
        param.grad = gradient(param, step, i)
    return [scale for param in params_of(optimizer) if (scale := optimizer.scale_of(param)) is not None]
