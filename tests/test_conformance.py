"""Every member through every check, stages of third parties too, and for each check something that it refuses."""

import inspect
import math

import pytest
import torch
from family import maker
from mutants import MUTANTS
from third_party import OPTIMIZERS, Factored, MeanAbs
from torch import Tensor

import partial_adaptive as pa
from partial_adaptive import Hyper
from partial_adaptive.rules.numerators import ExpAvg
from partial_adaptive.rules.second_moments import AmsgradMax, ExpAvgSq
from partial_adaptive.testing import CHECKS, Check, check_estimator, check_optimizer, parametrize_checks
from partial_adaptive.testing.harness import parameters, train

VARIATIONS = {
    "padam-amsgrad=False": ("padam", {"amsgrad": False}),
    "padam-adam": ("padam", {"bias_correction": "adam"}),
    "padam-none": ("padam", {"bias_correction": "none"}),
    "partial_rmsprop-centered-momentum": ("partial_rmsprop", {"centered": True, "momentum": 0.9}),
    "partial_adagrad-mean": ("partial_adagrad", {"mean": True}),
    "partial_adagrad-lr_decay": ("partial_adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    # The options that all have, with any second moment.
    "padam-agc": ("padam", {"agc": 0.1}),
    "partial_adam-lamb": ("partial_adam", {"trust_ratio": 1.0, "decoupled_weight_decay": True}),
    "partial_rmsprop-lars": ("partial_rmsprop", {"trust_ratio": 0.1, "momentum_after": 0.9, "nesterov_after": True}),
    "partial_muon-cautious": ("partial_muon", {"vectors": "diagonal", "cautious": True, "clip_rms": 0.5}),
    "partial_adagrad-normalized": ("partial_adagrad", {"normalize_gradient": True, "momentum_after": 0.5}),
    # Sets that nothing in the suite leaves: all that it promises holds in them, too.
    "padam-Box": ("padam", {"constraint": pa.Box(-1e3, 1e3)}),
    "padam-L1Ball": ("padam", {"constraint": {"set": "L1Ball", "radius": 1e4}}),
    "padam-HalfSpace": ("padam", {"constraint": pa.HalfSpace(1.0, 1e3)}),
    "partial_adadelta-Box": ("partial_adadelta", {"constraint": pa.Box(-math.inf, 1e3)}),
    "partial_rmsprop-L2Ball": ("partial_rmsprop", {"constraint": pa.L2Ball(1e3), "centered": True, "momentum": 0.9}),
}


@pytest.mark.parametrize("name", pa.MEMBERS)
@parametrize_checks
def test_member(name: str, check: Check) -> None:
    """Every member of the family keeps every promise, with its defaults but for decay, which checks turn on."""
    check(maker(name))


@pytest.mark.parametrize("variation", VARIATIONS)
@parametrize_checks
def test_variation(variation: str, check: Check) -> None:
    """So do they with the options that choose another estimator, momentum rule or bias correction."""
    name, preset = VARIATIONS[variation]
    check(lambda params, **options: pa.create(name, params, **{**preset, **options}))


@pytest.mark.parametrize("name", OPTIMIZERS)
@parametrize_checks
def test_third_party(name: str, check: Check) -> None:
    """So do stages of a user's, with every kind of declaration, in every mode that what they need allows."""
    check(OPTIMIZERS[name])


def test_a_simple_estimator_is_short() -> None:
    """An estimator of one's own takes ten lines, with its declarations; a factored one fifteen."""
    assert len(inspect.getsource(MeanAbs).splitlines()) <= 10
    assert len(inspect.getsource(Factored).splitlines()) <= 19


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


def test_checks_follow_the_default_device() -> None:
    """Under another default device parameters, gradients and so the state are there."""
    train(pa.Padam(parameters()), 1)  # torch 2.6 imports at a first step what cannot be imported under "meta"
    with torch.device("meta"):
        optimizer = pa.Padam(parameters())
        train(optimizer, 1)
    tensors = [value for param, state in optimizer.state.items() for value in (param, param.grad, state["exp_avg"])]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
