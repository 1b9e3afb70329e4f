"""The family as data: what the documentation, the tests and the benchmark are multiplied out from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, ParamsT

from partial_adaptive import members
from partial_adaptive.optimizer import PartialAdaptiveOptimizer
from partial_adaptive.rules.hyperparameters import nearest
from partial_adaptive.rules.stage import Needs


@dataclass(frozen=True)
class Member:
    """One optimizer of the family.

    Args:
        cls: its class.
        formula: its scale s in θ ← θ − α·n/s^(2p).
        counterpart: the torch.optim class that it equals at p = 1/2, if there is one.
        counterpart_options: the keyword arguments with which the counterpart does.
        options: the keyword arguments with which it takes parameters of any shape.
    """

    cls: type[PartialAdaptiveOptimizer]
    formula: str
    counterpart: type[Optimizer] | None = None
    counterpart_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What `create` and param groups know it by."""
        return self.cls.member or ""

    @property
    def elementwise(self) -> bool:
        """Whether it looks at one element at a time, so that `fused` can compile it."""
        optimizer = self.cls([torch.zeros(1)], **self.options)
        return optimizer.recipe.rule(optimizer.defaults, scaled=True).needs is Needs.ELEMENT

    @property
    def description(self) -> str:
        """One line, from its docstring."""
        return (self.cls.__doc__ or "").partition("\n")[0]

    @property
    def reference(self) -> str:
        """The publication, as its docstring cites it."""
        return (self.cls.__doc__ or "").strip().splitlines()[-1].strip()


_MEMBERS = (
    Member(
        members.Padam,
        "√(v̂/c₂)+ε, v̂ the running maximum of v",
        torch.optim.Adam,
        {"amsgrad": True},
    ),
    Member(
        members.PartialAdam,
        "√(v/c₂)+ε, v an average of g²",
        torch.optim.Adam,
    ),
    Member(
        members.PartialNAdam,
        "√(v/c₂)+ε, v an average of g²",
        torch.optim.NAdam,
    ),
    Member(
        members.PartialRMSprop,
        "√v+ε, centered √(v−ḡ²)+ε",
        torch.optim.RMSprop,
    ),
    Member(
        members.PartialAdagrad,
        "√S+ε, S the sum of g²",
        torch.optim.Adagrad,
    ),
    Member(
        members.PartialAdaMax,
        "u = max(β₂u, |g|+ε)",
        torch.optim.Adamax,
    ),
    Member(
        members.PartialAdadelta,
        "√((v+ε)/(d+ε)), d an average of the squared direction",
        torch.optim.Adadelta,
    ),
    Member(
        members.PartialAdaBelief,
        "√(v/c₂)+ε, v an average of (g−m)²",
    ),
    Member(members.PartialYogi, "√(v/c₂)+ε, v moved by at most (1−β₂)g²"),
    Member(members.PartialSign, "|n|+ε, n the numerator itself"),
    Member(members.PartialAdamMini, "√(v/c₂)+ε, v an average of the mean of g² over a block"),
    Member(
        members.PartialAdafactor,
        "√(r·c/mean(r)), r and c averages of g² over rows and columns",
        torch.optim.Adafactor,
    ),
    Member(members.PartialSM3, "√v+ε, v = min(r, c)+g², r and c its maxima over rows and columns"),
    Member(members.PartialMuon, "S+ε, S the singular values of n", options={"vectors": "diagonal"}),
    Member(
        members.PartialShampoo,
        "(w_L×w_R)^(1/4)+ε, w the eigenvalues of Σggᵀ and Σgᵀg",
        options={"vectors": "diagonal"},
    ),
    Member(
        members.PartialSOAP,
        "√(v/c₂)+ε, v an average of g² in the eigenvectors' bases",
        options={"vectors": "diagonal"},
    ),
)

MEMBERS: Mapping[str, Member] = MappingProxyType({member.name: member for member in _MEMBERS})


def create(name: str, params: ParamsT, **hyper: Any) -> PartialAdaptiveOptimizer:
    """Make a member of the family by name.

    Args:
        name: a key of `MEMBERS`.
        params: as for every `torch.optim.Optimizer`.
        **hyper: the arguments of the member's class.

    Raises:
        ValueError: for an unknown name.
        TypeError: for an unknown argument.

    Example:
        >>> create("padam", [torch.nn.Parameter(torch.ones(3))], lr=0.1, partial=1 / 8).defaults["partial"]
        0.125
    """
    if name not in MEMBERS:
        raise ValueError(f"name must be one of {', '.join(MEMBERS)}, got {name!r}{nearest(name, MEMBERS)}")
    return MEMBERS[name].cls(params, **hyper)
