"""What sets this family apart: the distance travelled, the effective step, the share of scales at the floor."""

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import partial_adaptive
from benchmarks.base.records import Number, finite
from partial_adaptive import registry

QUANTILES = {"q01": 0.01, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q99": 0.99}
SAMPLE = 2**20  # coordinates, at most, of which the quantiles are taken: every k-th of each parameter


def distance(params: Sequence[Tensor], initial: Sequence[Tensor]) -> Number:
    """The Euclidean distance of all parameters together from where they started."""
    parts = [
        torch.linalg.vector_norm(p.detach() - q, dtype=torch.float64) for p, q in zip(params, initial, strict=True)
    ]
    return finite({"": float(torch.linalg.vector_norm(torch.stack(parts)))})[""]


def step_sizes(optimizer: torch.optim.Optimizer) -> tuple[dict[str, float], float | None]:
    """Quantiles of the effective step lr / s^(2p) over coordinates, and the share of scales s within twice epsilon.

    An adaptive optimizer of torch is read as the member that it equals at p = 1/2. Where nothing divides the step (SGD,
    p = 0) every quantile is the learning rate and the share is None. Of an optimizer that the family does not know
    there are no quantiles. Call it while the gradients are there.
    """
    member = _member(optimizer)
    if member is None and type(optimizer) is not torch.optim.SGD:
        return {}, None
    scales = list(_scales(member)) if member else []
    if not scales:
        return _rates(optimizer), None
    steps = torch.cat([group["lr"] * scale ** (-2 * group["partial"]) for group, scale in scales]).float()
    at_floor = torch.cat([scale <= 2 * _floor(group, scale) for group, scale in scales])
    values = torch.quantile(steps, torch.tensor(list(QUANTILES.values()), device=steps.device))
    return dict(zip(QUANTILES, values.tolist(), strict=True)), float(at_floor.float().mean())


def _rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Quantiles of the learning rate over coordinates."""
    groups = sorted(optimizer.param_groups, key=lambda group: float(group["lr"]))
    rates = [float(group["lr"]) for group in groups]
    upto = list(itertools.accumulate(sum(p.numel() for p in group["params"]) for group in groups))
    return {name: rates[bisect.bisect_left(upto, q * upto[-1])] for name, q in QUANTILES.items()}


def _floor(group: Mapping[str, Any], scale: Tensor) -> float:
    """The least value of a scale; Adafactor's is the first of two, the machine epsilon where that is None."""
    eps = group["eps"][0] if isinstance(group["eps"], tuple) else group["eps"]
    return torch.finfo(scale.dtype).eps if eps is None else float(eps)


def _scales(member: Any) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """For each parameter that has a scale, its group and an even sample of its scales."""
    total = sum(p.numel() for group in member.param_groups for p in group["params"])
    for group in member.param_groups:
        for p in group["params"]:
            scale = member.scale_of(p)
            if scale is not None:
                yield group, scale.detach().flatten()[:: -(-total // SAMPLE)]


def _member(optimizer: torch.optim.Optimizer) -> Any:
    """The optimizer as a member of the family, over the same state; None for one without a scale."""
    if isinstance(optimizer, partial_adaptive.PartialAdaptiveOptimizer):
        return optimizer
    group = optimizer.param_groups[0]
    counterparts = [name for name, member in registry.MEMBERS.items() if type(optimizer) is member.counterpart]
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW):
        counterparts = ["padam" if group["amsgrad"] else "partial_adam"]
    if not counterparts:
        return None
    decoupled = isinstance(optimizer, torch.optim.AdamW)  # its groups do not say so before torch 2.7
    options = {"decoupled_weight_decay": True} if decoupled else {}
    groups = [{"params": group["params"]} for group in optimizer.param_groups]
    member = partial_adaptive.create(counterparts[0], groups, partial=0.5, **options)
    for mine, theirs in zip(member.param_groups, optimizer.param_groups, strict=True):
        mine.update({key: value for key, value in theirs.items() if key in mine})
    member.state = optimizer.state
    return member
