"""What a parameter's entry in the optimizer's state holds: the rule's slots, its 0-dim numbers, and step counts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _get_scalar_dtype

from partial_adaptive.rules.codecs import CODECS
from partial_adaptive.rules.rule import Rule
from partial_adaptive.rules.second_moments import Null
from partial_adaptive.rules.stage import COMPENSATION, Codec, Slot

State = dict[str, Any]

STEP = "step"  # how many steps the parameter has taken
AGE = "estimator_step"  # how many gradients the second moment has seen: fewer where p was 0 for some of them


EMPTY = torch.Size([0])  # the shape of what is there by name only


def counts_of(rule: Rule) -> tuple[str, ...]:
    """Names of the counts that a step advances; at p = 0 the second moment sees nothing."""
    return (STEP,) if isinstance(rule.second_moment, Null) else (STEP, AGE)


def scalars_of(rule: Rule) -> tuple[str, ...]:
    """Names of the 0-dim entries that a step reads."""
    return (*counts_of(rule), *rule.momentum.scalars)


def additions(state: Mapping[str, Any], param: Tensor, group: Mapping[str, Any], rule: Rule) -> State:
    """What a rule needs and the state of a parameter does not have yet.

    Args:
        state: the parameter's state, maybe empty; it is not changed.
        param: the parameter.
        group: its param group.
        rule: the rule of the next step.
    """
    added: State = {}
    own = scaling(rule, param)
    if rule.second_moment.together and not all(name in state for name in own):
        state = {name: value for name, value in state.items() if name not in (*own, AGE)}
    device = scalar_device(param, group)
    for name, value in {STEP: 0.0, **rule.momentum.scalars}.items():
        if name not in state:
            dtype = _get_scalar_dtype() if name == STEP or device.type == "mps" else torch.float64
            added[name] = torch.full((), value, dtype=dtype, device=device)
    for name, slot in rule.slots.items():
        if slot.codec is not None:
            parts = _named(name, slot.codec.encode(_first(slot, param, group)))
            added |= {part: value for part, value in parts.items() if part not in state}
        elif name not in state:
            added[name] = _first(slot, param, group)
    if AGE in counts_of(rule):
        step = state.get(STEP, added.get(STEP))
        if own and holds_nothing(state, param, rule):
            added[AGE] = torch.zeros_like(step, device=device)
        elif AGE not in state:  # in torch's state and that of older versions, where p never was 0
            added[AGE] = step.to(device, copy=True)
    return added


def holds_nothing(state: Mapping[str, Any], param: Tensor, rule: Rule) -> bool:
    """Whether no entry of the second moment is there but by name; one that is to be empty says so only if all are."""
    shapes = entries(rule, param)
    own = scaling(rule, param)
    full = [name for name in own if shapes[name] != EMPTY]
    return all(name not in state or (name in full and state[name].shape == EMPTY) for name in full or own)


def moved(state: Mapping[str, Any], param: Tensor, group: Mapping[str, Any], rule: Rule) -> State:
    """The 0-dim entries that a kernel is to read and that are not where it can, brought there."""
    device = scalar_device(param, group)
    if device.type == "cpu":
        return {}
    names = [name for name in (AGE, *scalars_of(rule)) if name in state and state[name].device != device]
    return {name: state[name].to(device) for name in names}


def advance(counters: list[Tensor]) -> None:
    """Count a step; all counters are of one device."""
    # A Python number would be made into a tensor for each of them.
    torch._foreach_add_(counters, torch.ones_like(counters[0]), alpha=1.0)


def counters_of(states: Sequence[State], rule: Rule) -> list[Tensor]:
    """The counts that a step of these parameters advances."""
    return [state[name] for name in counts_of(rule) for state in states]


def entries(rule: Rule, param: Tensor) -> dict[str, tuple[int, ...]]:
    """The shapes of all entries of the slots of a parameter, by name."""
    return {part: shape for name in rule.slots for part, shape in _entries(rule, name, param).items()}


def scaling(rule: Rule, param: Tensor) -> list[str]:
    """Names of the entries of the second moment's slots."""
    return [part for name in rule.second_moment.slots for part in _entries(rule, name, param)]


def stored_names(rule: Rule, param: Tensor) -> set[str]:
    """Names under which values of the second moment may be in a state: plain, or as parts of any code."""
    names: set[str] = set()
    for name in rule.second_moment.slots:
        slot = rule.slots[name]
        codes = (encoded_like(codec(slot), shape_of(slot, param)) for codec in CODECS.values())
        names |= {name, *(name + suffix for parts in codes for suffix in parts)}
    return names


def empty(rule: Rule, param: Tensor) -> State:
    """The entries of the second moment's slots by name and dtype, without elements."""
    found: State = {}
    for name in rule.second_moment.slots:
        slot = rule.slots[name]
        parts = {name: dtype_of(slot, param)}
        if slot.codec is not None:
            likes = _named(name, encoded_like(slot.codec, shape_of(slot, param)))
            parts = {part: like.dtype for part, like in likes.items()}
        found |= {part: torch.empty(0, dtype=dtype, device=param.device) for part, dtype in parts.items()}
    return found


def _entries(rule: Rule, name: str, param: Tensor) -> dict[str, tuple[int, ...]]:
    slot = rule.slots[name]
    shape = shape_of(slot, param)
    if slot.codec is None:
        return {name: tuple(shape)}
    return {part: tuple(like.shape) for part, like in _named(name, encoded_like(slot.codec, shape)).items()}


@lru_cache(maxsize=1024)
def encoded_like(codec: Codec, shape: torch.Size) -> Mapping[str, Tensor]:
    """What a codec makes of a value of this shape, without contents."""
    return codec.encode(torch.zeros(shape, device="meta"))


def shape_of(slot: Slot, param: Tensor) -> torch.Size:
    """The shape of a slot's value: the parameter's own, or what the slot makes of it."""
    if slot.follows:
        return param.shape
    return torch.Size(slot.shape(torch.Size((*param.shape, 2)) if param.is_complex() else param.shape))


def dtype_of(slot: Slot, param: Tensor) -> torch.dtype:
    """The dtype that a slot starts with."""
    real: torch.dtype = param.dtype.to_real()
    dtype = real if slot.dtype == "param" else slot.dtype or (torch.float32 if real.itemsize < 4 else real)
    return dtype.to_complex() if param.is_complex() and slot.follows else dtype


def recoded(state: Mapping[str, Any], param: Tensor, rule: Rule) -> State:
    """The slots that are stored otherwise than the rule has it: values that are to be coded, or codes that are not.

    Compensation that is no longer made use of is dropped: the parameter goes on without.

    Args:
        state: the parameter's state, from a checkpoint or from before `state_dtype` has changed; it is not changed.
        param: the parameter.
        rule: the rule of the next step.

    Returns:
        What is to be in the place of such entries; None for nothing.
    """
    changed: State = {COMPENSATION: None} if COMPENSATION in state and COMPENSATION not in rule.slots else {}
    for name, slot in rule.slots.items():
        value = state.get(name)
        if not isinstance(value, Tensor):
            continue
        is_plain = value.is_floating_point() or value.is_complex()
        if slot.codec is not None and is_plain and not _has(state, name, slot, param):
            changed |= _named(name, slot.codec.encode(torch.view_as_real(value) if value.is_complex() else value))
        for codec in (known(slot) for known in CODECS.values() if slot.codec is None and not is_plain):
            coded = replace(slot, codec=codec)
            if _has(state, name, coded, param):
                shape = shape_of(coded, param)
                parts = encoded_like(codec, shape)
                plain = codec.decode({part: state[name + part] for part in parts}, shape)
                plain = torch.view_as_complex(plain) if slot.follows and param.is_complex() else plain
                changed |= dict.fromkeys(_named(name, parts)) | {name: plain.to(dtype_of(slot, param))}
    return changed


def without_none(state: Mapping[str, Any]) -> State:
    """A copy without what stands for nothing."""
    return {name: value for name, value in state.items() if value is not None}


def _has(state: Mapping[str, Any], name: str, slot: Slot, param: Tensor) -> bool:
    """Whether all parts of a coded slot are there."""
    assert slot.codec is not None
    parts = _named(name, encoded_like(slot.codec, shape_of(slot, param)))
    found = ((state.get(part), like) for part, like in parts.items())
    return all(isinstance(x, Tensor) and (x.dtype, x.shape) == (like.dtype, like.shape) for x, like in found)


def _part(rule: Rule, name: str, param: Tensor) -> Tensor | None:
    """What an entry that is part of a code looks like; None for any other."""
    coded = ((key, slot.codec, shape_of(slot, param)) for key, slot in rule.slots.items() if slot.codec is not None)
    parts = (_named(key, encoded_like(codec, shape)) for key, codec, shape in coded)
    return next((part[name] for part in parts if name in part), None)


def _named(name: str, parts: Mapping[str, Any]) -> State:
    """The parts of a code by their names in the state."""
    return {name + suffix: part for suffix, part in parts.items()}


def scalar_device(param: Tensor, group: Mapping[str, Any]) -> torch.device:
    """Where 0-dim state lives: with the parameter if a kernel reads it, else where Python does."""
    return param.device if group["capturable"] or group["fused"] else torch.device("cpu")


def placed(name: str, value: Tensor, param: Tensor, group: Mapping[str, Any], rule: Rule) -> Tensor:
    """A copy of an entry from elsewhere, as it is to be in this parameter's state.

    Numbers become 0-dim tensors, slots come to the parameter's device and memory order. A slot keeps its dtype unless
    `state_dtype` says otherwise or the dtype that it would start with here is wider.

    Raises:
        ValueError: where it has another shape than the parameter calls for.
    """
    if name in (AGE, *scalars_of(rule)):
        number = value.detach().reshape(())
        floating = number if number.is_floating_point() else number.to(_get_scalar_dtype())
        return floating.to(scalar_device(param, group), copy=True)
    slot = rule.slots.get(name)
    if slot is None or slot.codec is not None:
        return value.to(param.device, copy=True)
    start = dtype_of(slot, param)
    dtype = start if slot.dtype else torch.promote_types(value.dtype, start)
    if slot.follows and type(value) is Tensor and type(param) in (Tensor, torch.nn.Parameter):
        return torch.empty_like(param, dtype=dtype, requires_grad=False).copy_(value)
    return value.to(param.device, dtype, copy=True)


def misfit(name: str, value: Any, param: Tensor, rule: Rule, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """What is wrong with an entry of the state, as the end of a sentence; None where it fits."""
    if name in (AGE, *scalars_of(rule)):
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            return f"must be a 0-dim floating-point tensor, got {_described(value)}"
        if value.layout is not torch.strided or value.is_neg() or value._is_zerotensor():
            return "must be a plain tensor, got one that is sparse or of which an operation is pending"
        if value.device != param.device and value.device.type != "cpu":
            return f"must be on the CPU or with its parameter on {param.device}, got {value.device}"
    elif name in shapes:
        if not isinstance(value, Tensor):
            return f"must be a tensor, got {_described(value)}"
        if tuple(value.shape) != shapes[name]:
            return f"must have the shape {shapes[name]}, as its parameter calls for, got {tuple(value.shape)}"
        if value.device != param.device:
            return f"must be with its parameter on {param.device}, got {value.device}"
        if value.layout is not torch.strided:
            return f"must be a strided tensor, got {value.layout}"
        if torch._debug_has_internal_overlap(value) == 1:
            return "is expanded: several of its elements are in one place; replace it by a clone"
        slot = rule.slots.get(name)
        if slot is not None and (value.is_complex() != (slot.follows and param.is_complex())):
            return f"must be {'complex, as its parameter is' if param.is_complex() else 'real'}, got {value.dtype}"
        if (like := _part(rule, name, param)) is not None and value.dtype != like.dtype:
            return f"must be of {like.dtype}, as it is part of a code, got {value.dtype}"
        if slot is not None and slot.codec is None and not (value.is_floating_point() or value.is_complex()):
            return f"must be of a floating-point dtype, got {value.dtype}"
    return None


def _first(slot: Slot, param: Tensor, group: Mapping[str, Any]) -> Tensor:
    value = group[slot.first] if isinstance(slot.first, str) else slot.first
    dtype = dtype_of(slot, param)
    if not slot.follows:
        return torch.full(shape_of(slot, param), value, dtype=dtype, device=param.device)
    tensor = torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    if value:
        (torch.view_as_real(tensor) if tensor.is_complex() else tensor).fill_(value)
    return tensor


def _described(value: Any) -> str:
    return f"a tensor of {value.dtype} and shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
