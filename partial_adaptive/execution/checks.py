"""What a step refuses of parameters, gradients and state: by name, and before anything has changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from partial_adaptive.execution.distributed import is_distributed, is_flattened, is_partial, layout_of
from partial_adaptive.execution.staging import is_wrapper
from partial_adaptive.execution.state import State, entries, misfit
from partial_adaptive.rules.projection import Constraint
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.stage import Needs


class Checks:
    """The checks of one group's parameters.

    Args:
        owner: the optimizer's name, for messages.
        groups: the optimizer's param groups.
        group: what they come to for these parameters.
        rule: what is to be done to each parameter.
    """

    def __init__(self, owner: str, groups: Sequence[Mapping[str, Any]], group: Mapping[str, Any], rule: Rule) -> None:
        self._owner = owner
        self._groups = groups
        self._group = group
        self._rule = rule

    def refuse(self, param: Tensor, what: str) -> RuntimeError:
        """The error for a parameter."""
        return RuntimeError(f"{self._owner}: {self._name(param)} {what}")

    def parameter(self, param: Tensor) -> None:
        """Raise RuntimeError where a parameter or its gradient cannot be updated in any mode."""
        grad = param.grad
        assert grad is not None
        if param.layout is not torch.strided:
            raise self.refuse(param, f"must be a strided tensor, got {param.layout}")
        if param.is_inference() and not torch.is_inference_mode_enabled():
            raise self.refuse(param, "was made under inference_mode, outside of which it cannot be changed; clone() it")
        if not (param.is_floating_point() or param.is_complex()):
            raise self.refuse(param, f"must be of floating-point or complex numbers, got {param.dtype}")
        if grad.layout not in (torch.strided, torch.sparse_coo):
            raise self.refuse(
                param, f"has a gradient of layout {grad.layout}; sparse gradients must be torch.sparse_coo"
            )
        if not (grad.is_floating_point() or grad.is_complex()):
            raise self.refuse(
                param, f"has a gradient of {grad.dtype}, which is not of floating-point or complex numbers"
            )
        if grad.shape != param.shape:
            raise self.refuse(param, f"has a gradient of shape {tuple(grad.shape)}, which is not its own")
        if grad.device != param.device:
            raise self.refuse(param, f"has a gradient on {grad.device}, which is not where it is")
        if grad.is_complex() != param.is_complex():
            raise self.refuse(param, f"is of {param.dtype} and has a gradient of {grad.dtype}")
        self._distribution(param, grad)
        if torch._debug_has_internal_overlap(param) == 1:
            raise self.refuse(param, "is expanded: several of its elements are in one place; update a clone of it")
        if grad.is_sparse:
            self._sparse(param, grad)
        shape = torch.Size((*param.shape, 2)) if param.is_complex() else param.shape
        opaque = is_wrapper(param) and not is_distributed(param)
        for stage in self._rule.stages:
            reason = stage.refuses(shape)
            if isinstance(stage, Constraint) and stage.needs is Needs.TENSOR and opaque:
                reason = f"it is a {type(param).__name__}, which has to be gathered first"
            if reason:
                where = f"be in {stage}" if isinstance(stage, Constraint) else f"have a {type(stage).__name__}"
                raise self.refuse(param, f"cannot {where}: {reason}")
        if self._rule.coded and is_wrapper(param):
            raise self.refuse(
                param,
                f"is a {type(param).__name__}, of which no part has the blocks in which {self._rule.coded[0]!r} is "
                "coded; store it in a dtype (state_dtype)",
            )
        if self._rule.needs is Needs.TENSOR and opaque:
            shaped = [name for name, slot in self._rule.slots.items() if not slot.follows]
            if shaped:
                raise self.refuse(
                    param,
                    f"is a {type(param).__name__}, for which {shaped[0]!r} cannot be kept: its shape is not that of "
                    "the parameter; gather it first",
                )

    def state(self, param: Tensor, state: State) -> None:
        """Raise RuntimeError where an entry of the state does not fit its parameter."""
        if not state and isinstance(state, dict):
            return
        if not isinstance(state, dict):
            raise self.refuse(param, f"has an entry in the state that must be a dict, got {state!r}")
        shapes = entries(self._rule, param)
        for name, value in state.items():
            wrong = misfit(name, value, param, self._rule, shapes)
            if isinstance(value, Tensor) and value.is_inference() and not torch.is_inference_mode_enabled():
                wrong = "was made under inference_mode, outside of which it cannot be changed; replace it by a clone()"
            if wrong:
                raise self.refuse(param, f"has a state[{name!r}] that {wrong}")

    def placement(self, param: Any, state: State) -> None:
        """Raise RuntimeError where state is not placed as its parameter, or in whole if its shape is its own."""
        own = layout_of(param)
        for name, slot in self._rule.slots.items():
            theirs, right = layout_of(state.get(name)), own if slot.follows else None
            if theirs != right:
                what = f"{_placed(theirs)}; it must be {_placed(right)}"
                raise self.refuse(param, f"is {_placed(own)}, and its state[{name!r}] {what}")

    def _distribution(self, param: Any, grad: Any) -> None:
        """Raise RuntimeError where it cannot be told what of a gradient belongs to what of a parameter."""
        ours, theirs = layout_of(param), layout_of(grad)
        if (ours is None) != (theirs is None) or (ours and theirs and ours[0] != theirs[0]):
            raise self.refuse(param, f"is {_placed(ours)}, and its gradient {_placed(theirs)}")
        if is_partial(param):
            raise self.refuse(param, f"is {_placed(ours)}: a parameter cannot be sums that are still to be taken")
        whole = next((stage for stage in self._rule.stages if stage.needs is Needs.TENSOR), None)
        if whole is not None and is_flattened(param):
            raise self.refuse(
                param,
                f"is a part of what FullyShardedDataParallel has made one vector of, and {type(whole).__name__} must "
                "see whole TENSORs; use fully_shard (FSDP2)",
            )

    def _name(self, param: Tensor) -> str:
        group, index = next(
            (group, i) for group in self._groups for i, candidate in enumerate(group["params"]) if candidate is param
        )
        params = group["params"]
        names = group.get("param_names")
        name = repr(names[index]) if names and len(names) == len(params) else f"number {index} of its group"
        return f"parameter {name}, of shape {tuple(param.shape)},"

    def _sparse(self, param: Tensor, grad: Tensor) -> None:
        group, rule = self._group, self._rule
        sizes = torch.tensor(param.shape[: grad.sparse_dim()], device=grad.device).unsqueeze(1)
        indices = grad._indices()
        if indices.numel() and bool(((indices < 0) | (indices >= sizes)).any()):
            raise self.refuse(param, "has a sparse gradient with an index that is out of its bounds")
        dense = next((stage for stage in rule.stages if not stage.sparse), None)
        obstacle = (
            "weight_decay"
            if group["weight_decay"] != 0
            else "differentiable"
            if group["differentiable"]
            else f"{type(dense).__name__}"
            if dense
            else None
        )
        if obstacle:
            raise RuntimeError(
                f"{self._owner} does not support sparse gradients with {obstacle}, which changes coordinates that have "
                "none; use dense gradients (sparse=False), or PartialAdagrad without weight decay"
            )


def _placed(layout: tuple[Any, Any] | None) -> str:
    if layout is None:
        return "a plain tensor"
    mesh, placements = layout
    return f"a DTensor on {mesh}, placed as {placements}"
