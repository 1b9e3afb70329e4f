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
from partial_adaptive.members.sign import PartialSign

__all__ = [
    "Padam",
    "PartialAdaBelief",
    "PartialAdaMax",
    "PartialAdadelta",
    "PartialAdagrad",
    "PartialAdam",
    "PartialNAdam",
    "PartialRMSprop",
    "PartialSign",
    "PartialYogi",
]
