"""Partially adaptive optimizers for PyTorch: θ ← θ − α·n/s^(2p), with p between SGD (0) and Adam (1/2)."""

from partial_adaptive.components import Switch
from partial_adaptive.estimators import Estimator
from partial_adaptive.extensions import PartialAdaBelief, PartialYogi
from partial_adaptive.hyperparameters import Hyper
from partial_adaptive.momentum import Momentum
from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.param_groups import param_groups
from partial_adaptive.registry import MEMBERS, Member, create
from partial_adaptive.variants import (
    Padam,
    PartialAdadelta,
    PartialAdagrad,
    PartialAdam,
    PartialAdaMax,
    PartialNAdam,
    PartialRMSprop,
)

__version__ = "0.1.0"

__all__ = [
    "MEMBERS",
    "Estimator",
    "Hyper",
    "Member",
    "Momentum",
    "Padam",
    "PartialAdaBelief",
    "PartialAdaMax",
    "PartialAdadelta",
    "PartialAdagrad",
    "PartialAdam",
    "PartialAdaptiveOptimizer",
    "PartialNAdam",
    "PartialRMSprop",
    "PartialYogi",
    "Switch",
    "create",
    "param_groups",
]
