"""Whether the kernels of a device are right, and near its bandwidth: every member in a minute.

Each member takes one step eagerly, then further ones with another learning rate: on CUDA replayed from a graph, on the
CPU as they are, with `fused=True` where the member has it. The same steps in float64 on the CPU say what should have
come out. Then a step on a large tensor is timed beside a copy.
"""

import gc
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from benchmarks.base.environment import describe
from benchmarks.base.errors import known
from benchmarks.speed.sheet import Sheet
from benchmarks.speed.steptime import copy_bandwidth, floor_bytes, timed
from partial_adaptive import MEMBERS, Member, PartialAdaptiveOptimizer, create

SHAPES = ((1,), (7,), (33, 65), (1025,), (256, 128), (300_000,))
"""Of the parameters that are checked: odd sizes, one element, more than one block of a kernel."""
LARGE = {"cuda": 50_000_000, "cpu": 10_000_000}
"""Elements of the tensor that is timed: more than a cache holds."""
MATRICES = ((256, 256),) * 32
"""What is timed where a member takes whole matrices."""
RATES = (1e-2, 3e-3)
"""The learning rate of the eager step, and of those that are replayed."""
REPLAYS = 3
TOLERANCE = 1e-4
"""Of the distance from float64, as a share of the distance travelled, up to which a member counts as right."""


def error(name: str, device: torch.device) -> float:
    """How far a member ends from the float64 of the CPU, as a share of the distance travelled."""
    member = MEMBERS[name]
    draws = torch.Generator().manual_seed(0)

    def draw() -> list[Tensor]:
        return [torch.randn(shape, generator=draws, dtype=torch.float64) for shape in SHAPES]

    start, grads = draw(), [draw() for _ in range(1 + REPLAYS)]
    exact = [Parameter(x.clone()) for x in start]
    reference = create(name, exact, lr=RATES[0], foreach=False, **member.options)
    for i, found in enumerate(grads):
        for group in reference.param_groups:
            group["lr"] = RATES[min(i, 1)]
        for param, grad in zip(exact, found, strict=True):
            param.grad = grad.float().double()
        reference.step()
    params = [Parameter(x.float().to(device)) for x in start]
    optimizer = _fast(name, params)
    _load(params, grads[0])
    optimizer.step()
    _set_rate(optimizer, RATES[1])
    step, _ = _captured(optimizer, device)
    for found in grads[1:]:
        _load(params, found)
        step()
    return _distance(params, exact) / _distance(exact, [x.float() for x in start])


def _distance(these: Sequence[Tensor], those: Sequence[Tensor]) -> float:
    """Euclidean, over all tensors together."""
    squares = (
        (p.detach().cpu().double() - q.detach().double()).square().sum() for p, q in zip(these, those, strict=True)
    )
    return math.sqrt(sum(float(square) for square in squares))


def _fast(name: str, params: Sequence[Parameter]) -> PartialAdaptiveOptimizer:
    """A member as fast as it gets, in the state that a graph can be captured of."""
    member, device = MEMBERS[name], params[0].device
    mode = {"fused": True} if member.elementwise else {"foreach": True}
    return create(
        name,
        params,
        lr=torch.tensor(RATES[0], device=device),
        capturable=device.type == "cuda",
        **mode,
        **member.options,
    )


def _set_rate(optimizer: PartialAdaptiveOptimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"].fill_(rate)


def _load(params: Sequence[Parameter], grads: Sequence[Tensor]) -> None:
    """Fill the gradients, which stay where they are in memory."""
    for param, grad in zip(params, grads, strict=True):
        if param.grad is None:
            param.grad = torch.empty_like(param)
        param.grad.copy_(grad)


def _captured(optimizer: PartialAdaptiveOptimizer, device: torch.device) -> tuple[Callable[[], Any], bool]:
    """The step as a graph's replay on CUDA; itself on the CPU, and where it waits for the device as eigenvalues do."""
    if device.type != "cuda":
        return optimizer.step, False
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):  # capturing takes no step
            optimizer.step()
    except RuntimeError:
        if all(group["fused"] for group in optimizer.param_groups):
            raise
        torch.cuda.synchronize(device)
        return optimizer.step, False
    return graph.replay, True


def _large(member: Member, device: torch.device) -> list[Parameter]:
    shapes = ((LARGE[device.type],),) if member.elementwise else MATRICES
    params = [Parameter(torch.randn(shape, device=device)) for shape in shapes]
    _load(params, [torch.randn_like(param) for param in params])
    return params


def measure(name: str, device: torch.device, rounds: int, bandwidth: float) -> dict[str, Any]:
    """The row of a member: its error and verdict, and the best time of a step beside the bytes it cannot but move.

    A member that fails is a row like the others, so that it does not hide what comes after it.
    """
    member = MEMBERS[name]
    mode = "fused" if member.elementwise else "foreach"
    try:
        off = error(name, device)
        params = _large(member, device)
        optimizer = _fast(name, params)
        optimizer.step()
        step, captured = _captured(optimizer, device)
        step()
        seconds = min(timed(step, cuda=device.type == "cuda")[1] for _ in range(rounds))
    except (RuntimeError, ValueError) as failure:
        print(f"{name}: {failure}", flush=True)
        return {"mode": mode, "error": None, "right": "NO", "ms": None, "bandwidth %": None}
    floor = floor_bytes(create(name, params, lr=RATES[0], **member.options), params)
    return {
        "mode": f"{mode}, captured" if captured else mode,
        "error": off,
        "right": "yes" if off <= TOLERANCE else "NO",
        "ms": 1e3 * seconds,
        "bandwidth %": 100 * floor / seconds / bandwidth,
    }


def run(device: torch.device, members: Sequence[str] | None, rounds: int, output: Path | None) -> list[str]:
    """Check and time the members, and show and write a row for each.

    Args:
        device: where.
        members: names of members of the family; None for all.
        rounds: how often each is timed; the best counts.
        output: a Markdown file for the table; the numbers go beside it as JSON, row by row.

    Returns:
        The members whose kernels are wrong.
    """
    members = known(members, MEMBERS, "member")
    facts = describe(device) | {"elements": LARGE[device.type], "rounds": rounds}
    sheet = Sheet("Kernels", facts, output)
    gigabytes = sheet.fact("copy_bandwidth_gb_s", lambda: round(copy_bandwidth(device, max(5, rounds)) / 1e9, 1))
    for name in members:
        if sheet.lacks({"member": name}):
            sheet.add({"member": name}, [measure(name, device, rounds, 1e9 * gigabytes)])
        gc.collect()
    return [row["member"] for row in sheet.rows if row["right"] != "yes"]
