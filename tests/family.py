"""The members as the tests make them: what each can do is read from its declarations, never from its name."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim.optimizer import Optimizer, ParamsT

import partial_adaptive as pa
from partial_adaptive.testing import Make
from partial_adaptive.testing.harness import MODES, parameters, values

ELEMENTWISE = [name for name, member in pa.MEMBERS.items() if member.elementwise]
WHOLE = [name for name in pa.MEMBERS if name not in ELEMENTWISE]


def _has_a_metric(name: str) -> bool:
    optimizer = maker(name)([torch.zeros(2, 2)])
    return isinstance(optimizer.recipe.rule(optimizer.param_groups[0], scaled=True).second_moment, pa.Estimator)


def maker(name: str, **preset: Any) -> Make:
    """Makes a member with the options under which it takes parameters of any shape."""

    def make(params: ParamsT, /, **options: Any) -> pa.PartialAdaptiveOptimizer:
        return pa.create(name, params, **{**pa.MEMBERS[name].options, **preset, **options})

    return make


def has(name: str, mode: dict[str, Any]) -> bool:
    """Whether a member has a mode: all of them, but only single elements can be compiled."""
    return not mode.get("fused") or name in ELEMENTWISE


def in_modes(names: Sequence[str], modes: Sequence[dict[str, Any]] = MODES) -> list[Any]:
    """Cases (name, mode) of some members in the modes that they have."""
    return [pytest.param(name, mode, id=f"{name}-{mode}") for name in names for mode in modes if has(name, mode)]


def with_modes(cases: Iterator[Any], modes: Sequence[dict[str, Any]] = MODES) -> list[Any]:
    """Cases that begin with the name of a member, each in the modes that this has, which come last."""
    return [
        pytest.param(*case.values, mode, id=f"{case.id}-{mode}")
        for case in cases
        for mode in modes
        if has(str(case.values[0]), mode)
    ]


def takes_complex(optimizer: Callable[..., Optimizer]) -> bool:
    """Whether an optimizer of torch's updates complex parameters."""
    param = Parameter(torch.ones(2, 2, dtype=torch.complex64))
    param.grad = torch.ones_like(param)
    try:
        optimizer([param]).step()
    except RuntimeError:
        return False
    return True


def shaped(optimizer: pa.PartialAdaptiveOptimizer) -> list[str]:
    """The entries of the state of the first group that are not like their parameter."""
    (group, *_) = optimizer.param_groups
    slots = optimizer.recipe.rule(group, scaled=group["partial"] != 0).slots
    return [name for name, slot in slots.items() if not slot.follows]


WHOLE_MODES: list[dict[str, Any]] = [
    {"foreach": False},
    {"foreach": True},
    {"capturable": True},
    {"differentiable": True},
]  # of members that are not elementwise; in these all parameters may be leaves without autograd's history


def plain(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Parameters that autograd knows nothing of, which every mode takes."""
    return values(parameters(shapes, dtype))


def here(tensor: Tensor) -> Tensor:
    """What this process has of a distributed tensor; any other is itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


CAPTURABLE: list[dict[str, Any]] = [*MODES, {"capturable": True}]

METRIC = [name for name in pa.MEMBERS if _has_a_metric(name)]  # whose second moment has a value per element
