"""The members of the family: each picks stages and defaults, and nothing else."""

from partial_adaptive.members.adagrad import PartialAdadelta, PartialAdagrad, PartialRMSprop
from partial_adaptive.members.adam import (
    Padam,
    PartialAdaBelief,
    PartialAdam,
    PartialAdaMax,
    PartialNAdam,
    PartialYogi,
)
from partial_adaptive.members.kronecker import PartialShampoo, PartialSOAP
from partial_adaptive.members.matrix import PartialMuon
from partial_adaptive.members.memory import PartialAdafactor, PartialAdamMini, PartialSM3
from partial_adaptive.members.sign import PartialSign

__all__ = [
    "Padam",
    "PartialAdaBelief",
    "PartialAdaMax",
    "PartialAdadelta",
    "PartialAdafactor",
    "PartialAdagrad",
    "PartialAdam",
    "PartialAdamMini",
    "PartialMuon",
    "PartialNAdam",
    "PartialRMSprop",
    "PartialSM3",
    "PartialSOAP",
    "PartialShampoo",
    "PartialSign",
    "PartialYogi",
]
