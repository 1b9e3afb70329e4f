"""The conformance suite: puts any estimator, momentum rule or optimizer of the family through every mode and invariant.

Example:
    >>> from partial_adaptive.rules.second_moments import ExpAvgSq
    >>> from partial_adaptive.rules.numerators import ExpAvg
    >>> check_estimator(ExpAvgSq(), ExpAvg(), betas=(0.9, 0.999))

With pytest, one test for each check::

    @parametrize_checks
    def test_mine(check):
        check(functools.partial(MyOptimizer, lr=0.1))
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch.optim.optimizer import ParamsT

from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.numerators import Momentum
from partial_adaptive.rules.second_moments import SecondMoment
from partial_adaptive.rules.stage import Selectable, Transform
from partial_adaptive.testing import arithmetic, contract, modes, persistence, robustness  # noqa: F401  # they fill CHECKS
from partial_adaptive.testing.harness import CHECKS, Check, Make

__all__ = ["CHECKS", "Check", "Make", "check_estimator", "check_optimizer", "factory", "parametrize_checks"]

F = TypeVar("F", bound=Callable[..., Any])


def check_optimizer(make: Make) -> None:
    """Run all checks on an optimizer.

    Args:
        make: its class, or a function that takes parameters and keyword arguments and returns the optimizer.

    Raises:
        AssertionError: for the first check that fails, saying what is wrong and what it would break.

    Example:
        >>> from partial_adaptive import Padam
        >>> check_optimizer(Padam)
    """
    for check in CHECKS.values():
        check(make)


def check_estimator(
    estimator: Selectable[SecondMoment],
    momentum: Selectable[Momentum] | None = None,
    /,
    before: Sequence[Selectable[Transform]] = (),
    after: Sequence[Selectable[Transform]] = (),
    **hyper: Any,
) -> None:
    """Run all checks on an estimator, or a `Switch` between two, inside a `PartialAdaptiveOptimizer`.

    Args:
        estimator: the estimator.
        momentum: the momentum rule, the gradient itself by default.
        before: gradient stages.
        after: direction stages.
        **hyper: hyperparameters for all checks that do not set their own; `lr` is 0.1 unless given.

    Raises:
        AssertionError: for the first check that fails, saying what is wrong and what it would break.
    """
    check_optimizer(factory(estimator, momentum, before=before, after=after, **hyper))


def factory(
    estimator: Selectable[SecondMoment],
    momentum: Selectable[Momentum] | None = None,
    /,
    before: Sequence[Selectable[Transform]] = (),
    after: Sequence[Selectable[Transform]] = (),
    **hyper: Any,
) -> Make:
    """What the checks take, for an estimator: a function from parameters and options to its optimizer.

    Args:
        estimator: the estimator.
        momentum: the momentum rule, the gradient itself by default.
        before: gradient stages.
        after: direction stages.
        **hyper: hyperparameters where the caller does not give them; `lr` is 0.1 unless given.
    """

    def make(params: ParamsT, /, **options: Any) -> PartialAdaptiveOptimizer:
        defaults = {"lr": 0.1, **hyper, **options}
        return PartialAdaptiveOptimizer(
            params, defaults, estimator=estimator, momentum=momentum, before=before, after=after
        )

    return make


def parametrize_checks(test: F) -> F:
    """Decorate a pytest test that has a parameter `check`: it becomes one test for each of `CHECKS`."""
    import pytest

    decorated: F = pytest.mark.parametrize("check", [pytest.param(x, id=name) for name, x in CHECKS.items()])(test)
    return decorated
