"""Partially adaptive optimizers for PyTorch: θ ← θ − α·P^(−p) n, with p between SGD (0) and Adam (1/2)."""

from partial_adaptive.integrations import register_timm
from partial_adaptive.members import (
    Padam,
    PartialAdaBelief,
    PartialAdadelta,
    PartialAdafactor,
    PartialAdagrad,
    PartialAdam,
    PartialAdaMax,
    PartialAdamMini,
    PartialMuon,
    PartialNAdam,
    PartialRMSprop,
    PartialShampoo,
    PartialSign,
    PartialSM3,
    PartialSOAP,
    PartialYogi,
)
from partial_adaptive.optimizer import Metrics, PartialAdaptiveOptimizer
from partial_adaptive.param_groups import describe_groups, param_groups
from partial_adaptive.registry import MEMBERS, Member, create
from partial_adaptive.rules.curves import (
    LPSGDM,
    Cosine,
    DynMuon,
    Geometric,
    Inverse,
    InverseSqrt,
    Linear,
    Logistic,
    Steps,
)
from partial_adaptive.rules.hyperparameters import Hyper, Hyperparameter, choice, flag, number, whole
from partial_adaptive.rules.interpolation import interpolated_lr
from partial_adaptive.rules.numerators import Momentum
from partial_adaptive.rules.options import Options
from partial_adaptive.rules.projection import Box, Constraint, HalfSpace, L1Ball, L2Ball, NonNegative, Simplex
from partial_adaptive.rules.schedules import Schedule
from partial_adaptive.rules.second_moments import Estimator, SecondMoment
from partial_adaptive.rules.stage import ELEMENT, TENSOR, Needs, Slot, Switch, Tensors, Transform
from partial_adaptive.step_size import equivalent_lr

__version__ = "0.2.0"

__all__ = [
    "ELEMENT",
    "LPSGDM",
    "MEMBERS",
    "TENSOR",
    "Box",
    "Constraint",
    "Cosine",
    "DynMuon",
    "Estimator",
    "Geometric",
    "HalfSpace",
    "Hyper",
    "Hyperparameter",
    "Inverse",
    "InverseSqrt",
    "L1Ball",
    "L2Ball",
    "Linear",
    "Logistic",
    "Member",
    "Metrics",
    "Momentum",
    "Needs",
    "NonNegative",
    "Options",
    "Padam",
    "PartialAdaBelief",
    "PartialAdaMax",
    "PartialAdadelta",
    "PartialAdafactor",
    "PartialAdagrad",
    "PartialAdam",
    "PartialAdamMini",
    "PartialAdaptiveOptimizer",
    "PartialMuon",
    "PartialNAdam",
    "PartialRMSprop",
    "PartialSM3",
    "PartialSOAP",
    "PartialShampoo",
    "PartialSign",
    "PartialYogi",
    "Schedule",
    "SecondMoment",
    "Simplex",
    "Slot",
    "Steps",
    "Switch",
    "Tensors",
    "Transform",
    "choice",
    "create",
    "describe_groups",
    "equivalent_lr",
    "flag",
    "interpolated_lr",
    "number",
    "param_groups",
    "register_timm",
    "whole",
]
