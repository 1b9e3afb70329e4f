"""fused=True: which tensors a compiled program is run on, and where they are at this step."""

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Task, Unit, pick
from partial_adaptive.execution.compiled import cpp, triton
from partial_adaptive.execution.compiled.program import static, trace, values
from partial_adaptive.execution.distributed import is_distributed
from partial_adaptive.execution.eager import Loop
from partial_adaptive.execution.staging import is_dense, is_lazy, is_wrapper
from partial_adaptive.execution.state import scalars_of
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Needs

LANGUAGES: dict[str, Any] = {"cpu": cpp, "cuda": triton}


class Compiled:
    """One call for all parameters of a device and dtype.

    It keeps compiled programs.

    Args:
        captured: keeps what CUDA graphs read and write.
    """

    def __init__(self, captured: list[Any]) -> None:
        self._kernels: dict[Hashable, Any] = {}
        self._captured = captured

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """What has to see whole tensors, is stored in a code, or for which there is no compiler."""
        if rule.needs is Needs.TENSOR:
            names = [type(stage).__name__ for stage in rule.stages if stage.needs is Needs.TENSOR]
            return f"compiles rules that need single elements only, and {', '.join(names)} must see whole TENSORs"
        if rule.coded:
            return f"takes no coded slots, as {rule.coded[0]!r} is"
        language = LANGUAGES.get(param.device.type)
        opaque = is_wrapper(param) and not is_distributed(param)
        if language is None or opaque or param.dtype.to_real() not in language.TYPES:
            return (
                f"needs plain tensors of numbers on {' or '.join(LANGUAGES)}, got "
                f"{torch.typename(param)} of {param.dtype} on {param.device.type}"
            )
        return None

    def prepare(self, unit: Unit) -> "PreparedLaunches":
        """Compile what is not compiled yet, and sort the parameters by device and dtypes."""
        first, *later = unit.rounds
        grads = unit.columns["grad"]
        others = sorted({i for i in range(len(unit)) if grads[i].is_sparse}.union(*later))
        buckets: dict[Hashable, list[int]] = {}
        for i in first:
            if not grads[i].is_sparse:
                scalars = [unit.states[i][name].dtype for name in scalars_of(unit.rule)]
                key = (grads[i].device, *(column[i].dtype for column in unit.columns.values()), *scalars)
                buckets.setdefault(key, []).append(i)
        launches = [
            Launch(self._kernel(unit, positions), unit, positions, self._captured) for positions in buckets.values()
        ]
        return PreparedLaunches(launches, unit.rounds, others)

    def locate(self, tensors: list[Tensor]) -> "array[int]":
        """Where tensors begin."""
        return LANGUAGES[tensors[0].device.type].locate(tensors) if tensors else array("q")

    def _kernel(self, unit: Unit, positions: Sequence[int]) -> Any:
        i = positions[0]
        scaled = unit.grad_scale is not None
        dtypes = {name: column[i].dtype.to_real() for name, column in unit.columns.items()}
        dtypes |= {name: unit.states[i][name].dtype for name in scalars_of(unit.rule)}
        device = unit.columns["param"][i].device
        key = (unit.rule, static(unit.group, unit.table), scaled, device, *dtypes.values())
        unknown = [(name, dtype) for name, dtype in dtypes.items() if dtype not in LANGUAGES[device.type].TYPES]
        if unknown:
            raise RuntimeError(f"fused=True cannot read {unknown[0][0]!r} in {unknown[0][1]}; use foreach=True")
        if key not in self._kernels:
            program = trace(unit.rule, unit.group, unit.table, scaled=scaled)
            self._kernels[key] = LANGUAGES[device.type].Kernel(program, dtypes)
        return self._kernels[key]


class PreparedLaunches:
    """The launches of a unit, and the parameters that a loop is for: with sparse gradients, or in shared memory."""

    def __init__(self, launches: "Sequence[Launch]", rounds: Sequence[Sequence[int]], others: Sequence[int]) -> None:
        self._launches = launches
        self._rounds = rounds
        self._others = others
        self._waits = bool(others) or not all(launch.masks for launch in launches)

    def ready(self, unit: Unit) -> Task | None:
        """Read all addresses."""
        if unit.rounds != self._rounds:
            return None
        calls = [launch.ready(unit) for launch in self._launches]
        if self._others:
            calls.append(_looped(unit, self._others))

        def run() -> None:
            if unit.found_inf is not None and self._waits and unit.found_inf.item():
                return
            for call in calls:
                call()

        return run


class Launch:
    """One call that updates some parameters of one device and one set of dtypes.

    Args:
        kernel: the compiled program.
        unit: the parameters as they look now; none of them is kept.
        positions: which of them.
        captured: what CUDA graphs use, which is not to be freed.
    """

    def __init__(self, kernel: Any, unit: Unit, positions: Sequence[int], captured: list[Any]) -> None:
        self._kernel = kernel
        self.masks: bool = kernel.masks  # whether the kernel itself can skip a step
        self._locate = LANGUAGES[unit.columns["param"][positions[0]].device.type].locate
        self._positions = positions
        self._names = list(kernel.program.elements)
        self._scalars = list(kernel.program.scalars)
        params = pick(unit.columns["param"], positions)
        sizes = [param.numel() * (2 if param.is_complex() else 1) for param in params]
        self._table = kernel.table(sizes, params[0].device, captured)
        self._copied = self._misplaced(unit)
        self._copies = [
            torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
            for row, i, strides in self._copied
            for tensor in (unit.columns[self._names[row]][positions[i]],)
        ]
        self._landing = [k for k, (row, _, _) in enumerate(self._copied) if self._names[row] != "grad"]
        self._stands_in = unit.columns["param"] is not unit.params

    def ready(self, unit: Unit) -> Task:
        """Read the addresses of this step."""
        everything = len(self._positions) == len(unit)
        columns = [
            unit.columns[name] if everything else pick(unit.columns[name], self._positions) for name in self._names
        ]
        if everything and unit.places is not None:
            params, grads, kept = unit.places  # kept: the slots in this order, then the scalars
            addresses = params + grads + kept
        else:
            states = pick(unit.states, self._positions)
            scalars = [[state[name] for state in states] for name in self._scalars]
            addresses = self._locate([*chain(*columns, *scalars)])
        return partial(self._run, unit, columns, addresses)

    def _run(self, unit: Unit, columns: list[list[Tensor]], addresses: "array[int]") -> None:
        originals = [columns[row][i] for row, i, _ in self._copied]
        for (row, i, _), copy in zip(self._copied, self._copies, strict=True):
            addresses[row * len(self._positions) + i] = copy.data_ptr()
        _copy_all(self._copies, originals)
        written = pick(unit.params, self._positions) if self._stands_in else []
        torch.autograd.graph.increment_version([*columns[0], *written])
        numbers = values(self._kernel.numbers, unit.group, unit.grad_scale)
        self._kernel(self._table, addresses, numbers, unit.found_inf)
        _copy_all([originals[k] for k in self._landing], [self._copies[k] for k in self._landing])

    def _misplaced(self, unit: Unit) -> list[tuple[int, int, tuple[int, ...]]]:
        """Row and position of what is not in its parameter's order in memory, and the strides of that order."""
        found = []
        for i, position in enumerate(self._positions):
            order = _order(unit.columns["param"][position])
            for row, name in enumerate(self._names):
                tensor = unit.columns[name][position]
                if is_lazy(tensor) or _significant(tensor, tensor.stride()) != _significant(tensor, order):
                    found.append((row, i, order))
        return found


def _copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each; one by one where a list of tensors cannot be told of a pending negation."""
    if any(map(is_lazy, (*targets, *sources))):
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)
    elif targets:
        torch._foreach_copy_(targets, sources)


def _order(param: Tensor) -> tuple[int, ...]:
    """The strides in which all tensors of a row are taken through the kernel: the parameter's, made dense."""
    return param.stride() if is_dense(param) else torch.empty_like(param, device="meta").stride()


def _significant(tensor: Tensor, strides: Sequence[int]) -> list[int]:
    """The strides that are ever stepped by."""
    return [stride for size, stride in zip(tensor.shape, strides, strict=True) if size > 1] if tensor.numel() else []


def _looped(unit: Unit, positions: Sequence[int]) -> Task:
    """The step of some parameters, one after the other."""
    part = unit.some(positions)
    if unit.grad_scale is not None:
        part = replace(
            part, columns={**part.columns, "grad": [grad / unit.grad_scale for grad in part.columns["grad"]]}
        )
    return Loop().prepare(part).ready(part)
