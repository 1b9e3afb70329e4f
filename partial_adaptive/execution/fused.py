"""Fused, second half: which tensors a compiled program is run on, and their addresses, kept while they stay."""

import operator
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, cast

import torch
from torch import Tensor

from partial_adaptive.execution import cpp, triton
from partial_adaptive.execution.staging import Staged, stage
from partial_adaptive.execution.trace import static, trace
from partial_adaptive.rule import Rule
from partial_adaptive.state import AGE, STEP

BACKENDS: Mapping[str, Any] = {"cpu": cpp, "cuda": triton}


class Fused:
    """The compiled programs of one optimizer, and the launches that its param groups needed last."""

    def __init__(self) -> None:
        self._kernels: dict[Hashable, Any] = {}
        self._last: dict[int, tuple[Hashable, list[Tensor], list[Launch]]] = {}

    def recall(self, index: int, rule: Rule, group: Mapping[str, Any], *, scaled: bool) -> "list[Launch] | None":
        """The launches of a group's last step, if they would do again: same program, same tensors."""
        structure, params, launches = self._last.get(index, (None, [], []))
        if structure != (rule, static(group), scaled):
            return None
        pending = [param for param in group["params"] if param.grad is not None]
        same = len(pending) == len(params) and all(map(operator.is_, pending, params))
        return launches if same and all(launch.refresh() for launch in launches) else None

    def prepare(
        self,
        index: int,
        rule: Rule,
        group: Mapping[str, Any],
        buckets: Sequence[Sequence[Tensor]],
        states: Mapping[Tensor, dict[str, Tensor]],
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
        pending = [param for param in group["params"] if param.grad is not None]
        self._last[index] = (structure, pending, launches)
        return launches


class Launch:
    """One call that updates all parameters of a bucket, at this step and for as long as `refresh` says so.

    Args:
        rule: names the state.
        params: parameters with gradients, of one device, dtype and dtype of state.
        states: their state, with all that the rule needs.
    """

    def __init__(self, rule: Rule, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> None:
        self.params = params
        self.device = params[0].device
        rows = [
            _densely(_locally(stage(param, cast(Tensor, param.grad), [state[name] for name in rule.buffers], None)))
            for param, state in zip(params, states, strict=True)
        ]
        self._tensors = {
            "param": [row.param for row in rows],
            "grad": [row.grad for row in rows],
            **{name: [row.buffers[i] for row in rows] for i, name in enumerate(rule.buffers)},
            **{name: [state[name] for state in states] for name in (STEP, *rule.momentum.scalars)},
            AGE: [state.get(AGE, state[STEP]) for state in states],
        }
        self.dtypes = {name: tensors[0].dtype for name, tensors in self._tensors.items()}
        self._landings = [row.land for row in rows if row.land is not None]
        self._lasting = all(row.param is p and row.grad is p.grad for row, p in zip(rows, params, strict=True))
        self._strides = list(map(Tensor.stride, params))
        self._states = states
        self._state_tensors = list(_values(states))
        self._addresses = list(map(Tensor.data_ptr, params))
        self._grad_addresses = list(map(Tensor.data_ptr, self._tensors["grad"]))

    def bind(self, kernel: Any) -> None:
        """Give the kernel the addresses of the tensors."""
        self._kernel = kernel
        self._table = kernel.table(
            [self._tensors[name] for name in (*kernel.program.elements, *kernel.program.scalars)]
        )

    def refresh(self) -> bool:
        """Take the gradients of a new step, if they are of the same kind and all else is where it was.

        This is all that a step does for each parameter, so it stays within calls that loop in C.
        """
        if not self._lasting:
            return False
        grads: list[Any] = list(map(_grad_of, self.params))
        alike = (
            not any(map(_is_sparse, grads))
            and list(map(Tensor.stride, grads)) == self._strides
            and all(map(operator.is_, map(_dtype_of, grads), repeat(self.dtypes["grad"])))
            and list(map(Tensor.data_ptr, self.params)) == self._addresses
            and all(map(operator.is_, _values(self._states), self._state_tensors))
        )
        if alike:
            self._tensors["grad"] = grads
            self._grad_addresses = list(map(Tensor.data_ptr, grads))
        return alike

    def run(self, group: Mapping[str, Any], grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Take the step."""
        self._kernel(self._table, self._grad_addresses, group, grad_scale, found_inf)
        for land in self._landings:
            land()


_grad_of, _dtype_of, _is_sparse = (operator.attrgetter(name) for name in ("grad", "dtype", "is_sparse"))


def _values(states: Iterable[dict[str, Tensor]]) -> Iterator[Tensor]:
    return chain.from_iterable(map(dict.values, states))


def _locally(row: Staged) -> Staged:
    """The shards of distributed tensors that are here: what is elementwise needs no others."""
    param: Any = row.param
    if not hasattr(param, "to_local"):
        return row
    tensors: list[Any] = [param, row.grad, *row.buffers]
    if any(tensor.placements != param.placements for tensor in tensors):
        placements = [tensor.placements for tensor in tensors]
        raise RuntimeError(f"fused=True needs parameter, gradient and state placed alike, got {placements}")
    param, grad, *buffers = (tensor.to_local() for tensor in tensors)
    return Staged(param, grad, buffers, row.land)


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
