"""Differentiable: each parameter by itself, with everything that autograd has to remember left as it is."""

import torch
from torch import Tensor

from partial_adaptive.execution.backend import Task, Unit
from partial_adaptive.execution.distributed import gathered, of_parts, scattered
from partial_adaptive.execution.functional import Functional
from partial_adaptive.execution.sharing import addresses_of
from partial_adaptive.execution.staging import locals_of, settled, working_dtype
from partial_adaptive.execution.state import advance
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Needs


class Differentiable:
    """Lets autograd run through the step: the state's tensors are replaced, not overwritten."""

    locate = staticmethod(addresses_of)

    def refuses(self, rule: Rule, param: Tensor) -> str | None:
        """What has no derivative, a code or a rounding, and a leaf, which nothing is done to."""
        if rule.coded:
            return f"takes no coded slots, as {rule.coded[0]!r} is"
        if rule.rounding is not None:
            return f"rounds to the nearest only, got rounding={rule.rounding.name!r}"
        base = param._base if param._is_view() else param
        if param.requires_grad and base is not None and base.is_leaf:
            return (
                f"updates the result of an operation, such as param.clone(), got a leaf of shape {tuple(param.shape)} "
                "that requires grad, or a view of one"
            )
        return None

    def prepare(self, unit: Unit) -> "Differentiable":
        """Nothing is remembered."""
        return self

    def ready(self, unit: Unit) -> Task:
        """There is nothing that could have changed."""
        return lambda: self._run(unit)

    def _run(self, unit: Unit) -> None:
        with torch.no_grad():
            for counter in unit.counters():
                advance([counter])
        whole = unit.rule.needs is Needs.TENSOR
        for i in range(len(unit)):
            row = unit.row(i)
            param, grad, *slots = (gathered if whole else locals_of)([*row.tensors])
            dtype = working_dtype(row.tensors)

            def lifted(tensor: Tensor, dtype: torch.dtype = dtype) -> Functional:
                real = torch.view_as_real(settled(tensor)) if tensor.is_complex() else settled(tensor)
                return Functional.lift(real.to(dtype))

            theta = lifted(param)
            state = {name: lifted(value) for name, value in zip(row.slots, slots, strict=True)}
            unit.rule.update(theta, lifted(grad), unit.hyper([i]), state)  # type: ignore[arg-type]  # stand-ins for tensors
            row.param.copy_(_as(theta.value, row.param, whole=whole))
            unit.states[i].update({name: _as(state[name].value, row.slots[name], whole=whole) for name in state})


def _as(value: Tensor, original: Tensor, *, whole: bool) -> Tensor:
    """A result as the original tensor was: complex, of its dtype, and distributed."""
    value = (torch.view_as_complex(value) if original.is_complex() else value).to(original.dtype)
    return scattered(value, original) if whole else of_parts(value, original)
