"""Fused, second half: which tensors a compiled program is run on, and their addresses, kept while they stay."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution import cpp, triton
from partial_adaptive.execution.staging import Staged, stage
from partial_adaptive.execution.trace import static, trace
from partial_adaptive.rule import START, STEP, Rule

BACKENDS: Mapping[str, Any] = {"cpu": cpp, "cuda": triton}


class Fused:
    """The compiled programs of one optimizer, and the launches that its param groups needed last."""

    def __init__(self) -> None:
        self._kernels: dict[Hashable, Any] = {}
        self._last: dict[int, tuple[Hashable, list[Launch]]] = {}

    def recall(self, index: int, rule: Rule, group: Mapping[str, Any], *, scaled: bool) -> "list[Launch] | None":
        """The launches of a group's last step, if they would do again: same program, same tensors."""
        structure, launches = self._last.get(index, (None, []))
        if structure != (rule, static(group), scaled):
            return None
        pending = sum(param.grad is not None for param in group["params"])
        covered = sum(len(launch.params) for launch in launches)
        return launches if pending == covered and all(launch.holds() for launch in launches) else None

    def prepare(
        self,
        index: int,
        rule: Rule,
        group: Mapping[str, Any],
        buckets: Sequence[Sequence[Tensor]],
        states: Mapping[Tensor, Mapping[str, Tensor]],
        *,
        scaled: bool,
    ) -> "list[Launch]":
        """The launches for a group, one for each bucket of parameters that agree in device and dtypes."""
        structure = (rule, static(group), scaled)
        launches = [Launch(rule, params, [states[param] for param in params]) for params in buckets]
        for launch in launches:
            key = (structure, launch.device, *launch.dtypes.values())
            if key not in self._kernels:
                backend = BACKENDS[launch.device.type]
                self._kernels[key] = backend.Kernel(trace(rule, group, scaled=scaled), launch.dtypes)
            launch.bind(self._kernels[key])
        self._last[index] = (structure, launches)
        return launches


class Launch:
    """One call that updates all parameters of a bucket, at this step and as long as it `holds`.

    Args:
        rule: names the state.
        params: parameters with gradients, of one device, dtype and dtype of state.
        states: their state, with all that the rule needs.
    """

    def __init__(self, rule: Rule, params: Sequence[Tensor], states: Sequence[Mapping[str, Tensor]]) -> None:
        self.params = params
        self.device = params[0].device
        rows = [
            _densely(stage(param, param.grad, [state[name] for name in rule.buffers], None))  # type: ignore[arg-type]
            for param, state in zip(params, states, strict=True)
        ]
        scalars = (STEP, *rule.momentum.scalars)
        origin = torch.zeros_like(states[0][STEP])
        self._tensors = {
            "param": [row.param for row in rows],
            "grad": [row.grad for row in rows],
            **{name: [row.buffers[i] for row in rows] for i, name in enumerate(rule.buffers)},
            **{name: [state[name] for state in states] for name in scalars},
            START: [state.get(START, origin) for state in states],
        }
        self.dtypes = {name: tensors[0].dtype for name, tensors in self._tensors.items()}
        self._landings = [row.land for row in rows if row.land is not None]
        self._lasting = all(row.param is p and row.grad is p.grad for row, p in zip(rows, params, strict=True))
        self._held = [
            (
                param,
                param.data_ptr(),
                param.stride(),
                state,
                [(name, state[name]) for name in (*rule.buffers, *scalars)],
            )
            for param, state in zip(params, states, strict=True)
        ]
        self._bound: Any = None

    def bind(self, kernel: Any) -> None:
        """Give the kernel the addresses of the tensors."""
        self._kernel = kernel
        names = (*kernel.program.elements, *kernel.program.scalars)
        self._table = kernel.table([self._tensors[name] for name in names])

    def holds(self) -> bool:
        """Whether parameters and state are where they were, and the gradients of the same kind."""
        dtype = self.dtypes["grad"]
        if not self._lasting:
            return False
        for param, address, strides, state, tensors in self._held:
            grad = param.grad
            if (
                grad is None
                or grad.layout is not torch.strided
                or grad.dtype is not dtype
                or grad.stride() != strides
                or param.data_ptr() != address
            ):
                return False
            for name, tensor in tensors:
                if state.get(name) is not tensor:
                    return False
        return True

    def run(self, group: Mapping[str, Any], grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Take the step."""
        grads = [param.grad for param in self.params] if self._lasting else self._tensors["grad"]
        self._kernel(self._table, grads, group, grad_scale, found_inf)
        for land in self._landings:
            land()


def _densely(row: Staged) -> Staged:
    """The same in tensors that lie in memory in one order and without gaps, copies where they must be."""
    like = torch.empty_like(row.param)
    tensors = (row.param, row.grad, *row.buffers)
    if all(tensor.stride() == like.stride() for tensor in tensors):
        return row
    copies = [torch.empty_like(like, dtype=tensor.dtype).copy_(tensor) for tensor in tensors]

    def land() -> None:
        for i, (tensor, copy) in enumerate(zip(tensors, copies, strict=True)):
            if i != 1:
                tensor.copy_(copy)
        if row.land is not None:
            row.land()

    return Staged(copies[0], copies[1], copies[2:], land)
