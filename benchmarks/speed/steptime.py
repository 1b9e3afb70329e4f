"""How long a step takes: every member in every mode, side by side with torch.optim and the authors' own loop."""

import gc
import importlib
import importlib.util
import itertools
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.base.environment import describe
from benchmarks.base.errors import known
from benchmarks.speed.sheet import Sheet
from benchmarks.workloads.models.resnet import resnet18
from partial_adaptive import MEMBERS, Member, PartialAdaptiveOptimizer, create
from partial_adaptive.execution.compiled.program import trace
from partial_adaptive.rules.stage import Needs

LR = 1e-6  # small, so that all contenders can share parameters that stay where they are
WARM_UP = 3


def gpt2() -> list[tuple[int, ...]]:
    """The shapes of GPT-2 small: 148 tensors, 124 million parameters."""
    block = [
        (768,),
        (768,),
        (768, 2304),
        (2304,),
        (768, 768),
        (768,),
        (768,),
        (768,),
        (768, 3072),
        (3072,),
        (3072, 768),
        (768,),
    ]
    return [(50257, 768), (1024, 768), *(shape for _ in range(12) for shape in block), (768,), (768,)]


LISTS: dict[str, Callable[[], list[tuple[int, ...]]]] = {
    "resnet18": lambda: [tuple(param.shape) for param in resnet18(10).parameters()],
    "gpt2": gpt2,
    "small": lambda: [(100,)] * 1000,
    "large": lambda: [(100_000_000,)],
    "transformer": lambda: [(256, 256), (256, 1024), (1024, 256)] * 12,
    "matrices": lambda: [(64, 64), (64, 32)] * 100,
}

PARTIALS = {  # others: 1/8
    "padam": (1 / 8, 0.3),
    **dict.fromkeys(("partial_adafactor", "partial_muon"), (1 / 2, 1 / 8)),
    **dict.fromkeys(("partial_sign", "partial_sm3", "partial_shampoo", "partial_soap"), (1 / 2,)),
}
ELSEWHERE: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # in pytorch_optimizer, where that is installed
    "padam": ("PAdam", {"partial": 1 / 8}),
    "partial_sign": ("Lion", {}),
    "partial_sm3": ("SM3", {}),
    "partial_shampoo": ("Shampoo", {"preconditioning_compute_steps": 1}),
    "partial_soap": ("SOAP", {"precondition_frequency": 10}),
}
VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "partial_muon": [{"matrix_power": "eigh"}, {"matrix_power": "newton_schulz_bfloat16"}]
}


class AuthorsLoop(torch.optim.Optimizer):
    """Padam as the authors' file has it: one tensor after the other, with `pow`; a yardstick, nothing more."""

    def __init__(self, params: Iterable[Tensor], lr: float, partial: float = 1 / 8) -> None:
        super().__init__(params, {"lr": lr, "partial": partial, "betas": (0.9, 0.999), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for param in group["params"]:
                grad, state = param.grad, self.state[param]
                if not state:
                    state["step"] = 0
                    names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
                    state.update({name: torch.zeros_like(param) for name in names})
                state["step"] += 1
                state["exp_avg"].mul_(beta1).add_(grad, alpha=1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                torch.max(state["max_exp_avg_sq"], state["exp_avg_sq"], out=state["max_exp_avg_sq"])
                denominator = state["max_exp_avg_sq"].sqrt().add_(group["eps"])
                step_size = group["lr"] * (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
                param.addcdiv_(state["exp_avg"], denominator ** (group["partial"] * 2), value=-step_size)


@dataclass(frozen=True)
class Contender:
    """One way to take a step.

    Args:
        label: how the tables name it.
        build: makes the optimizer.
        ours: whether it is of the family.
        mode: "loop", "foreach" or "fused"; for others "other".
    """

    label: str
    build: Callable[[list[Parameter]], torch.optim.Optimizer]
    ours: bool
    mode: str


@dataclass
class Times:
    """What was measured of a contender: seconds per step, one entry a round."""

    host: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    extra_bytes: int = 0


def contenders(member: Member, partials: Sequence[float]) -> list[Contender]:
    """A member in its variants and modes, and what it is compared with."""
    modes = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    found = [
        Contender(
            " ".join((member.name, f"p={p:g}", *variant.values(), mode)),
            _builder(member.cls, partial=p, **member.options, **variant, **options),
            ours=True,
            mode=mode,
        )
        for p, variant, (mode, options) in itertools.product(partials, VARIANTS.get(member.name, [{}]), modes.items())
        if member.elementwise or mode != "fused"
    ]
    if member.counterpart is not None:
        name = member.counterpart.__name__ + "".join(f"({key})" for key in member.counterpart_options)
        found += [
            Contender(
                f"torch {name} {mode}",
                _builder(member.counterpart, **member.counterpart_options, **options),
                False,
                mode,
            )
            for mode, options in modes.items()
            if mode != "fused" or "fused" in member.counterpart.__init__.__annotations__
        ]
    if member.name == "partial_muon" and hasattr(torch.optim, "Muon"):
        found.append(Contender("torch Muon loop", _builder(torch.optim.Muon), ours=False, mode="loop"))
    if member.name == "padam":
        found.append(Contender("the authors' loop", _builder(AuthorsLoop), ours=False, mode="other"))
    if member.name in ELSEWHERE and importlib.util.find_spec("pytorch_optimizer"):
        name, options = ELSEWHERE[member.name]
        other = getattr(importlib.import_module("pytorch_optimizer"), name)
        found.append(Contender(f"pytorch_optimizer {name}", _builder(other, **options), ours=False, mode="other"))
    return found


def _builder(
    cls: Callable[..., torch.optim.Optimizer], **options: Any
) -> Callable[[list[Parameter]], torch.optim.Optimizer]:
    return lambda params: cls(params, lr=LR, **options)


def measure(candidates: Sequence[Contender], params: list[Parameter], rounds: int) -> dict[str, Times]:
    """Time all candidates in every round, in an order that turns, so that what disturbs one disturbs all.

    They work on the same parameters, gradients and state: one set of tensors serves all, however large. A reference
    that the device does not support is left out.
    """
    cuda = params[0].is_cuda
    shared: dict[tuple[Tensor, str], Tensor] = {}
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for one in candidates:
        try:
            optimizer = one.build(params)
            optimizer.step()
        except (RuntimeError, ValueError):  # the latter where it takes no vectors
            if one.ours:
                raise
            continue
        _share(optimizer, shared)
        optimizer.step()  # with what it was given, so that what it had is let go
        optimizers[one.label] = optimizer
    times = {label: Times() for label in optimizers}
    for label, optimizer in optimizers.items():
        times[label].extra_bytes = _extra_memory(optimizer.step, cuda=cuda)
        for _ in range(WARM_UP):
            optimizer.step()
    labels = list(optimizers)
    for i in range(rounds):
        for label in labels[i % len(labels) :] + labels[: i % len(labels)]:
            host, device = timed(optimizers[label].step, cuda=cuda)
            times[label].host.append(host)
            times[label].device.append(device)
    return times


def _share(optimizer: torch.optim.Optimizer, shared: dict[tuple[Tensor, str], Tensor]) -> None:
    """Give the optimizer the state tensors that an earlier one has under the same name."""
    for param, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.dim() and value.shape == param.shape:
                state[name] = shared.setdefault((param, name), value)


def timed(step: Callable[[], Any], *, cuda: bool) -> tuple[float, float]:
    """Seconds until `step` returns, and seconds of work on the device."""
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    host = time.perf_counter() - start
    if not cuda:
        return host, host
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    # The device waits until the host has launched what it can (a queue holds about a thousand kernels): then the time
    # between the events is the device's own, as it is in a training that is not held up by its launches.
    torch.cuda._sleep(int(3e9 * min(host, 0.1)))  # cycles, of a clock of 2 GHz at most
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return host, begin.elapsed_time(end) / 1e3


class _Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make and that are alive at the same time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.live: int = 0
        self.peak: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known | self._known:
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        address, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        self._known.add(address)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(tensor, self._remove, address, size)

    def _remove(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def _extra_memory(step: Callable[[], Any], *, cuda: bool) -> int:
    """The most that a step allocates at a time, in bytes."""
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return int(torch.cuda.max_memory_allocated() - before)
    allocations = _Allocations()
    with allocations:
        step()
    return allocations.peak


def floor_bytes(optimizer: PartialAdaptiveOptimizer, params: Sequence[Tensor]) -> int:
    """The bytes that a step of a member cannot but read and write: each tensor of the rule once."""
    group, recipe = optimizer.param_groups[0], optimizer.recipe
    rule = recipe.rule(group, scaled=group["partial"] != 0)
    if rule.needs is Needs.TENSOR:  # parameters and state are read and written, gradients read
        kept = sum(
            p.element_size() * torch.Size(slot.shape(p.shape)).numel() for p in params for slot in rule.slots.values()
        )
        return 3 * sum(p.numel() * p.element_size() for p in params) + 2 * kept
    table = recipe.table
    program = trace(rule, group, table, scaled=False)
    written = sum(node.op != "element" for node in program.elements.values())
    size: int = sum(param.numel() * param.element_size() for param in params)
    return (len(program.elements) + written) * size


def copy_bandwidth(device: torch.device, rounds: int) -> float:
    """Bytes per second that the device reads and writes when it copies 400 MB, the best of some rounds."""
    source = torch.ones(100_000_000, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = [timed(lambda: target.copy_(source), cuda=source.is_cuda)[1] for _ in range(rounds)]
    return 2 * source.nbytes / min(seconds)


def rows(
    times: dict[str, Times], candidates: Sequence[Contender], floor: int, bandwidth: float
) -> Iterator[dict[str, Any]]:
    """A row of the table for each contender: medians and spread, and ratios to the references, pair by pair."""
    candidates = [one for one in candidates if one.label in times]
    references = [one.label for one in candidates if not one.ours]
    fastest = min(references, key=lambda label: statistics.median(times[label].device), default=None)
    for one in candidates:
        own = times[one.label]
        device = statistics.median(own.device)
        quarters = statistics.quantiles(own.device, n=4, method="inclusive") if len(own.device) > 1 else [device] * 3
        yield {
            "optimizer": one.label,
            "ms": device * 1e3,
            "quartiles": f"{quarters[0] * 1e3:.3g} … {quarters[2] * 1e3:.3g}",
            "host ms": statistics.median(own.host) * 1e3,
            "vs same mode": _ratio(
                own, times, [o.label for o in candidates if not o.ours and o.mode == one.mode], one.ours
            ),
            "vs fastest": _ratio(own, times, [fastest] if fastest else [], one.ours),
            "extra MB": own.extra_bytes / 1e6,
            "bandwidth %": 100 * floor / device / bandwidth if one.ours else None,
        }


def _ratio(own: Times, times: dict[str, Times], against: Sequence[str], ours: bool) -> float | None:
    if not ours or not against:
        return None
    return statistics.median(a / b for a, b in zip(own.device, times[against[0]].device, strict=True))


def slower(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every ratio above 1, in words: where a member takes longer than its counterpart in torch.optim."""
    lines = []
    for column, against in (("vs same mode", "in the same mode"), ("vs fastest", "in its fastest mode")):
        found = [f"{row['list']} {row['optimizer']} {row[column]:.3g}" for row in rows if (row.get(column) or 0) > 1]
        lines.append(f"Slower than what it is compared with {against}: {', '.join(found) or 'none'}.")
    return "## Ratios above 1\n\n" + "\n\n".join(lines)


def run(
    device: torch.device, lists: Sequence[str] | None, members: Sequence[str] | None, rounds: int, output: Path | None
) -> list[dict[str, Any]]:
    """Measure, and show and write a table for each list of tensors and member.

    Args:
        device: where.
        lists: keys of `LISTS`; None for all.
        members: names of members of the family; None for all.
        rounds: how often each contender is timed; ratios are medians over the rounds.
        output: a Markdown file for the tables; the numbers go beside it as JSON.
    """
    lists, members = known(lists, LISTS, "list"), known(members, MEMBERS, "member")
    sheet = Sheet("Step time", describe(device) | {"rounds": rounds}, output, ("list", "member"))
    gigabytes = sheet.fact("copy_bandwidth_gb_s", lambda: round(copy_bandwidth(device, max(5, rounds // 2)) / 1e9, 1))
    for shapes in lists:
        params = [Parameter(torch.randn(shape, device=device)) for shape in LISTS[shapes]()]
        for param in params:
            param.grad = torch.randn_like(param)
        for name in members:
            keys = {"list": shapes, "member": name}
            if sheet.lacks(keys):
                sheet.add(keys, _compared(name, params, rounds, 1e9 * gigabytes))
            gc.collect()
    sheet.say(slower(sheet.rows))
    return sheet.rows


def _compared(name: str, params: list[Parameter], rounds: int, bandwidth: float) -> list[dict[str, Any]]:
    """The rows of a member on some parameters."""
    member = MEMBERS[name]
    candidates = contenders(member, PARTIALS.get(name, (1 / 8,)))
    times = measure(candidates, params, rounds)
    floor = floor_bytes(create(name, params, lr=LR, **member.options), params)
    return list(rows(times, candidates, floor, bandwidth))
