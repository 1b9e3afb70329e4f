"""A step that is taken back on the device where it is a bad one, whichever of torch's own operations take it."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Backend, Prepared, Task, Unit
from partial_adaptive.execution.staging import portions
from partial_adaptive.execution.state import State, scalars_of
from partial_adaptive.rules.rule import Rule


@dataclass(frozen=True)
class Masked:
    """Has another backend update parameters that are to stay as they are where `found_inf` is not 0.

    That is done a few at a time, so that what is kept of them stays small.

    Args:
        inner: the other one, which keeps no addresses.
    """

    inner: Backend

    def locate(self, tensors: list[Tensor]) -> "array[int]":
        """As the other one."""
        return self.inner.locate(tensors)

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """What the other one refuses."""
        return self.inner.refuses(rule, param)

    def prepare(self, unit: Unit) -> "PreparedMasked":
        """Have the other one prepare each of the portions."""
        found = portions(range(len(unit)), unit.columns["param"].__getitem__)
        return PreparedMasked([(positions, self.inner.prepare(unit.some(positions))) for positions in found])


@dataclass(frozen=True)
class PreparedMasked:
    """What is remembered: which positions come together, and what the backend has prepared for them."""

    parts: Sequence[tuple[Sequence[int], Prepared]]

    def ready(self, unit: Unit) -> Task:
        """There is nothing that could have changed."""
        return lambda: self._run(unit)

    def _run(self, unit: Unit) -> None:
        assert unit.found_inf is not None
        masks: dict[torch.device, Tensor] = {}
        for positions, prepared in self.parts:
            part = unit.some(positions)
            device = part.params[0].device
            if device not in masks:
                masks[device] = unit.found_inf.to(device) != 0
            mask = masks[device]
            # A rule may raise an error for what is not finite, and autograd would carry it through the mask.
            grads = [_without(grad, mask) for grad in part.columns["grad"]]
            part = replace(part, columns={**part.columns, "grad": grads})
            params = [param.clone() for param in part.params]
            states = [{name: state[name].clone() for name in _changing(part, state)} for state in part.states]
            run = prepared.ready(part)
            assert run is not None, "what keeps no addresses is ready"
            run()
            _take_back(part, mask, params, states)


def _take_back(part: Unit, mask: Tensor, params: Sequence[Tensor], states: Sequence[State]) -> None:
    """Bring back earlier values of the parameters and their state where the mask is set."""
    replaced = part.columns.keys() if part.group["differentiable"] else ()
    for param, before in zip(part.params, params, strict=True):
        param.copy_(torch.where(mask, before, param))
    for state, earlier in zip(part.states, states, strict=True):
        for name, before in earlier.items():
            value = torch.where(mask, before, state[name])
            if name in replaced:
                state[name] = value
            else:
                with torch.no_grad():
                    state[name].copy_(value)


def _changing(unit: Unit, state: State) -> list[str]:
    """Names of the entries of a state that a step changes."""
    return [name for name in (*scalars_of(unit.rule), *unit.columns) if name in state]


def _without(grad: Tensor, mask: Tensor) -> Tensor:
    """The gradient, and zeros where the mask is set."""
    if not grad.is_sparse:
        return grad.masked_fill(mask, 0.0)
    values, coalesced = grad._values().masked_fill(mask, 0.0), grad.is_coalesced()
    return torch.sparse_coo_tensor(grad._indices(), values, grad.shape, is_coalesced=coalesced, check_invariants=False)
