"""Learning rates between known ones, and schedules that take the learning rate along with p."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from step_size import moves, rates, trained

import partial_adaptive as pa
from partial_adaptive import (
    Geometric,
    Linear,
    Padam,
    PartialAdam,
    Schedule,
    Steps,
    equivalent_lr,
    interpolated_lr,
)
from partial_adaptive.testing.harness import contents, parameters, params_of, same, train, values

KNOWN = {0: 3.0, 1 / 2: 1e-3}


# -- between known learning rates


@pytest.mark.parametrize("p", [0, 0.1, 1 / 8, 1 / 4, 0.5])
def test_interpolation_between_two(p: float) -> None:
    """Log α is linear in p between two ends, which are met."""
    assert interpolated_lr(p, KNOWN) == pytest.approx(3.0 ** (1 - 2 * p) * 1e-3 ** (2 * p), rel=1e-14)


def test_interpolation_between_more() -> None:
    """Between more it is linear piece by piece, in whatever order they are given, and goes on beyond the last."""
    known = {1 / 2: 1e-3, 0: 1.0, 1 / 4: 0.1}
    found = [interpolated_lr(p, known) for p in (0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)]
    assert found == pytest.approx([1.0, 10**-0.5, 0.1, 1e-2, 1e-3, 1e-5], rel=1e-13)


@pytest.mark.parametrize(
    ("partial", "known", "message"),
    [
        (-0.1, KNOWN, r"partial must be a number in \[0, 1\], got -0.1"),
        (None, KNOWN, r"partial must be a number in \[0, 1\], got None"),
        (0.1, {0: 1.0}, "known must be a dict of at least two"),
        (0.1, [(0, 1.0), (0.5, 2.0)], "known must be a dict of at least two"),
        (0.1, {0: 1.0, 1.5: 2.0}, r"known must have numbers in \[0, 1\] as keys, got 1.5"),
        (0.1, {0: 1.0, 0.5: 0.0}, "known must have finite numbers > 0 as learning rates, got 0.0 for p = 0.5"),
        (0.1, {0: math.inf, 0.5: 1.0}, "known must have finite numbers > 0 as learning rates, got inf"),
        (0.1, {0: "1", 0.5: 1.0}, "known must have finite numbers > 0 as learning rates, got '1'"),
    ],
    ids=str,
)
def test_what_cannot_be_interpolated(partial: Any, known: Any, message: str) -> None:
    """Exponents and learning rates that are none, or one alone, are ValueErrors, from a schedule as well."""
    with pytest.raises(ValueError, match=message):
        interpolated_lr(partial, known)
    if known is not KNOWN and isinstance(known, dict):
        with pytest.raises(ValueError, match=message):
            Schedule(Padam(parameters()), partial=Linear(0.0, 5), rescale_lr=known)


# -- schedules


def scheduled(name: str = "padam", rescale_lr: Any = equivalent_lr, **curves: Any) -> tuple[Any, Schedule]:
    """A member whose p goes from 1/2 to 1/8 in some steps, and its schedule."""
    optimizer = trained(name, 1 / 2, steps=0)
    return optimizer, Schedule(optimizer, partial=Linear(1 / 8, 6), rescale_lr=rescale_lr, **curves)


def steps(optimizer: Any, schedule: Schedule, count: int) -> list[list[float]]:
    """Train, and what the learning rates were."""
    seen = []
    for _ in range(count):
        train(optimizer, 1, start=schedule.t)
        schedule.step()
        seen.append(rates(optimizer))
    return seen


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_schedules_keep_the_update(name: str) -> None:
    """At each change of p the next update would be as large as before, of every group, of every member."""
    optimizer, schedule = scheduled(name)
    for t in range(7):
        train(optimizer, 1, start=t)
        before = moves(optimizer)
        schedule.step()
        assert moves(optimizer) == pytest.approx(before, rel=1e-10)
    assert optimizer.param_groups[0]["partial"] == 1 / 8


def test_schedules_along_known_learning_rates() -> None:
    """The learning rate stays in proportion to the known ones, for groups that start elsewhere as well."""
    optimizer, schedule = scheduled(rescale_lr=KNOWN)
    start, p = rates(optimizer), []
    seen = steps(optimizer, schedule, 7)
    p = [Linear(1 / 8, 6)(1 / 2, t) for t in range(2, 9)]
    for lrs, partial in zip(seen, p, strict=True):
        expected = [lr * interpolated_lr(partial, KNOWN) / 1e-3 for lr in start]
        assert lrs == pytest.approx(expected, rel=1e-12)


def test_a_curve_of_lr_comes_on_top() -> None:
    """A learning rate with a curve of its own is the curve's value times what p has made of it."""
    plain, by_p = scheduled(rescale_lr=KNOWN)
    both, by_both = scheduled(rescale_lr=KNOWN, lr=Geometric(0.5))
    for t, (ours, theirs) in enumerate(zip(steps(both, by_both, 5), steps(plain, by_p, 5), strict=True), start=1):
        assert ours == pytest.approx([lr * 0.5**t for lr in theirs], rel=1e-12)


def test_schedulers_of_torch_come_on_top() -> None:
    """What multiplies the learning rate that it finds goes together with what p makes of it, in either order."""
    plain, by_p = scheduled(rescale_lr=KNOWN)
    expected = [[lr * 0.5**t for lr in lrs] for t, lrs in enumerate(steps(plain, by_p, 5), start=1)]
    for first in (True, False):
        optimizer, schedule = scheduled(rescale_lr=KNOWN)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for lrs in expected:
            train(optimizer, 1, start=schedule.t)
            for one in (schedule, scheduler) if first else (scheduler, schedule):
                one.step()
            assert rates(optimizer) == pytest.approx(lrs, rel=1e-12)


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("rescale_lr", [equivalent_lr, KNOWN], ids=["state", "known"])
@pytest.mark.parametrize("curves", [{}, {"lr": Geometric(0.9)}], ids=["lr alone", "lr with a curve"])
def test_resuming_is_exact(curves: dict[str, Any], rescale_lr: Any, optimizer_first: bool) -> None:
    """A run that was stopped goes on bit by bit, in whatever order its parts are loaded."""
    whole, part = (scheduled(rescale_lr=rescale_lr, **curves) for _ in range(2))
    steps(*whole, 7)
    steps(*part, 3)
    saved = copy.deepcopy([one.state_dict() for one in part])
    tensors = values(params_of(part[0]))
    resumed = scheduled(rescale_lr=rescale_lr, **curves)
    for param, value in zip(params_of(resumed[0]), tensors, strict=True):
        param.data.copy_(value)
        param.grad = None
    order = zip(resumed, saved, strict=True) if optimizer_first else reversed([*zip(resumed, saved, strict=True)])
    for one, state in order:
        one.load_state_dict(state)
    assert rates(resumed[0]) == rates(part[0])
    steps(*resumed, 4)
    same(contents(resumed[0]), contents(whole[0]), "resuming goes elsewhere")
    assert rates(resumed[0]) == rates(whole[0])


def test_tensors_are_filled_in_place() -> None:
    """A learning rate that is a tensor stays the same object, and is not for two groups at once."""
    lr = torch.tensor(1e-3, dtype=torch.float64)
    optimizer = Padam(values(parameters()), lr=lr, partial=1 / 2, capturable=True)
    schedule = Schedule(optimizer, partial=Steps({2: 1 / 8}), rescale_lr=KNOWN)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(interpolated_lr(1 / 8, KNOWN), rel=1e-12)
    optimizer.add_param_group({"params": values(parameters([(2,)])), "partial": 1 / 4})
    with pytest.raises(ValueError, match="rescale_lr gives each group its own lr, got one tensor in two"):
        schedule.step()
    assert (schedule.t, optimizer.param_groups[1]["partial"]) == (2, 1 / 4)


def test_schedules_without_gradients_change_nothing() -> None:
    """What `equivalent_lr` raises comes through before p, the learning rate or t has changed; it stays callable."""
    optimizer, schedule = scheduled()
    steps(optimizer, schedule, 2)
    before, state = rates(optimizer), schedule.state_dict()
    optimizer.zero_grad()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no parameter with a gradient; call it between backward and zero_grad"):
            schedule.step()
    assert (rates(optimizer), schedule.state_dict()) == (before, state)
    steps(optimizer, schedule, 1)
    assert schedule.t == 4


@pytest.mark.parametrize("rescale_lr", [0.5, "equivalent", True, dict], ids=str)
def test_what_rescales_nothing(rescale_lr: Any) -> None:
    """Anything else than a function, a dict or None is a TypeError, and so is one without a curve for p."""
    with pytest.raises(TypeError, match="Schedule: rescale_lr must be a function such as equivalent_lr"):
        Schedule(Padam(parameters()), partial=Linear(0.0, 5), rescale_lr=rescale_lr)
    with pytest.raises(TypeError, match="Schedule: rescale_lr needs a curve for partial"):
        Schedule(Padam(parameters()), lr=Geometric(0.5), rescale_lr=equivalent_lr)


@pytest.mark.parametrize("rate", [-1.0, math.inf, math.nan, None])
def test_learning_rates_that_are_not_allowed(rate: Any) -> None:
    """A learning rate that a function gives is checked before anything changes."""
    optimizer = Padam(parameters(), lr=0.1, partial=1 / 2)
    given: list[Any] = [0.1]
    schedule = Schedule(optimizer, partial=Steps({2: 0.0}), rescale_lr=lambda *_: given)
    given[0] = rate
    with pytest.raises(ValueError, match=r"Schedule: lr must be a finite number ≥ 0, got .* at step 2"):
        schedule.step()
    assert (schedule.t, optimizer.param_groups[0]["partial"], rates(optimizer)) == (1, 1 / 2, [0.1])


def test_schedules_can_be_pickled() -> None:
    """With known learning rates and with `equivalent_lr`, as they can without."""
    for rescale_lr in (KNOWN, equivalent_lr):
        optimizer = PartialAdam(parameters(), lr=1e-3, partial=1 / 2)
        schedule = pickle.loads(pickle.dumps(Schedule(optimizer, partial=Linear(0.0, 5), rescale_lr=rescale_lr)))
        assert schedule.state_dict()["factors"] == [1.0]
