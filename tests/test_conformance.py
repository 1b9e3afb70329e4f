"""Every member through every check, an estimator of a third party too, and for each check something that it refuses."""

import inspect

import pytest
from mutants import MUTANTS
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive import Estimator, Hyper, PartialAdaptiveOptimizer
from partial_adaptive.components import average_
from partial_adaptive.estimators import AmsgradMax, ExpAvgSq
from partial_adaptive.momentum import ExpAvg
from partial_adaptive.testing import CHECKS, Check, check_estimator, check_optimizer, parametrize_checks

VARIATIONS = {
    "padam-amsgrad=False": ("padam", {"amsgrad": False}),
    "padam-adam": ("padam", {"bias_correction": "adam"}),
    "padam-none": ("padam", {"bias_correction": "none"}),
    "partial_rmsprop-centered-momentum": ("partial_rmsprop", {"centered": True, "momentum": 0.9}),
    "partial_adagrad-mean": ("partial_adagrad", {"mean": True}),
    "partial_adagrad-lr_decay": ("partial_adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
}


class MeanAbs(Estimator):
    """s = a/c₂ + ε, a an average of |g|."""

    buffers = ("exp_avg_abs",)
    hyperparameters = ("betas", "eps", "bias_correction")
    decay = "beta2"

    def scale(self, grad: Tensor, hyper: Hyper, exp_avg_abs: Tensor) -> Tensor:
        average_(exp_avg_abs, grad.abs(), hyper.beta2)
        return exp_avg_abs.div(hyper.correction2_sqrt**2).add_(hyper.eps)


@pytest.mark.parametrize("name", pa.MEMBERS)
@parametrize_checks
def test_member(name: str, check: Check) -> None:
    """Every member of the family keeps every promise, with its default hyperparameters."""
    check(pa.MEMBERS[name].cls)


@pytest.mark.parametrize("variation", VARIATIONS)
@parametrize_checks
def test_variation(variation: str, check: Check) -> None:
    """So do they with the options that choose another estimator, momentum rule or bias correction."""
    name, preset = VARIATIONS[variation]
    check(lambda params, **options: pa.create(name, params, **{**preset, **options}))


@parametrize_checks
def test_third_party_estimator(check: Check) -> None:
    """A new estimator of at most 15 lines runs in every mode."""
    assert len(inspect.getsource(MeanAbs).splitlines()) <= 15
    check(lambda params, **options: PartialAdaptiveOptimizer(
        params, {"lr": 0.1, **options}, estimator=MeanAbs(), momentum=ExpAvg()
    ))  # fmt: skip


def test_every_check_has_a_mutant() -> None:
    """A check that nothing can fail protects nothing."""
    assert MUTANTS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", MUTANTS)
def test_check_refuses_mutant(name: str) -> None:
    """Each check refuses what is broken just there, by an AssertionError that names the check and its purpose."""
    with pytest.raises(AssertionError, match=name) as refusal:
        CHECKS[name](MUTANTS[name])
    purpose = " ".join((CHECKS[name].__doc__ or "").split())
    assert purpose in str(refusal.value)


def test_check_estimator_stops_at_the_first_failure() -> None:
    """`check_estimator` runs the checks and passes on what the failing one says."""

    class Broken(ExpAvgSq):
        def scale(self, grad: Tensor, hyper: Hyper, exp_avg_sq: Tensor) -> Tensor:
            return super().scale(grad, hyper, exp_avg_sq).square()

    with pytest.raises(AssertionError, match="return a root of what is squared"):
        check_estimator(Broken(), ExpAvg())


def test_check_estimator_takes_components_and_hyperparameters() -> None:
    """A `Switch`, a plain gradient as the numerator and hyperparameters of one's own go through all checks."""
    check_estimator(pa.Switch("amsgrad", AmsgradMax(), ExpAvgSq()), betas=(0.0, 0.99), amsgrad=True)
    check_optimizer(pa.PartialYogi)
