"""What the fuzz chooses from: modes, hyperparameters, gradients of every kind, tensors in every layout."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from reference import FLOAT32, FLOAT64, Array, Ball
from torch import Tensor

from partial_adaptive import Box

STEPS = int(os.environ.get("FUZZ_STEPS", "0"))  # 0: the short version

FORMS = {torch.float32: FLOAT32, torch.float64: FLOAT64}
SHAPES = ((3,), (2, 3), (), (1,), (3, 4), (2, 1, 3), (7,), (0,))
KINDS = ("normal", "absent", "zero", "broken", "mixed", "constant", "small", "large", "subnormal", "tiny")
LAYOUTS = ("plain", "kept", "transposed", "strided", "offset", "negative")

Mode = dict[str, Any]
MODES: dict[str, Mode] = {
    "loop": {"foreach": False, "fused": False, "capturable": False},
    "foreach": {"foreach": True, "fused": False, "capturable": False},
    "fused": {"foreach": None, "fused": True, "capturable": False},
    "capturable foreach": {"foreach": True, "fused": False, "capturable": True},
    "capturable loop": {"foreach": False, "fused": False, "capturable": True},
    "capturable fused": {"foreach": False, "fused": True, "capturable": True},
    "default": {"foreach": None, "fused": None, "capturable": False},
}
LANES = ("loop", "foreach", "fused", "capturable foreach")

# Values of every hyperparameter, the first ones the usual. Every exponent that is a short binary fraction, and every
# option, is another program to compile in the modes that compile: the short version makes do with fewer.
EXPONENTS = (0.0, 1 / 8, 0.3) if not STEPS else (0.0, 1 / 8, 0.3, 1 / 2, 1 / 16, 3 / 16, 0.0, 0.07, 0.4999, 1 / 4)
COMMON: dict[str, tuple[Any, ...]] = {
    "lr": (0.1, 1.0, 0.01, 0.0, 0.037),
    "eps": (1e-8, 1e-3, 1e-30, 1e-5, 0.0),
    "weight_decay": (0.0, 0.1, 0.01),
    "decoupled_weight_decay": (False, True),
    "maximize": (False, True) if STEPS else (False,),
    "constraint": (None, Box(-1.5, 1)),
}
BETAS = {"betas": ((0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.9, 0.0), (0.99, 0.5))}
CORRECTION = {"bias_correction": ("consistent", "adam", "none")}
OWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "padam": {**BETAS, **CORRECTION, "amsgrad": (True, False)},
    "partial_adam": {**BETAS, **CORRECTION},
    "partial_nadam": {**BETAS, **CORRECTION, "momentum_decay": (4e-3, 0.0, 0.1)},
    "partial_rmsprop": {"alpha": (0.99, 0.5, 0.0, 1.0), "momentum": (0.0, 0.9, 1.1), "centered": (False, True)},
    "partial_adagrad": {
        "lr_decay": (0.0, 0.1),
        "initial_accumulator_value": (0.0, 0.1, 1e-6),
        "mean": (False, True),
    },
    "partial_adamax": {**BETAS, **CORRECTION},
    "partial_adadelta": {"rho": (0.9, 0.5, 0.0, 1.0, 0.99)},
    "partial_adabelief": {**BETAS, **CORRECTION},
    "partial_yogi": {**BETAS, **CORRECTION, "initial_accumulator_value": (1e-6, 0.0, 0.1)},
    "partial_sign": {**BETAS, **CORRECTION},
}

# What a step draws: for the parameters in turn a kind of gradient and a layout; a seed; and how often to step.
GRADIENTS = st.fixed_dictionaries(
    {
        "kinds": st.lists(st.sampled_from(("normal",) * 8 + KINDS), min_size=1, max_size=5),
        "layouts": st.lists(st.sampled_from(("plain",) * 4 + LAYOUTS), min_size=1, max_size=3),
        "noise": st.integers(0, 999),
        "count": st.integers(1, 3),
    }
)
WHICH = st.integers(0, 11)  # a group, a parameter, a value: whatever there are of them, taken in turn


def gradient(kind: str, shape: tuple[int, ...], noise: np.random.Generator, dtype: torch.dtype) -> Array | None:
    """A gradient of one kind, or None."""
    normal = noise.standard_normal(shape)
    subnormal = FORMS[dtype].smallest * noise.integers(-99, 99, shape)
    kinds: dict[str, Callable[[], Any]] = {
        "absent": lambda: None,
        "normal": lambda: normal,
        "zero": lambda: 0 * normal,
        "constant": lambda: np.full(shape, 0.37),
        "large": lambda: 1e30 * normal,
        "small": lambda: 1e-30 * normal,
        "tiny": lambda: 1e-4 * normal,
        "subnormal": lambda: subnormal,
        "broken": lambda: np.where(noise.random(shape) < 0.3, noise.choice([np.nan, np.inf, -np.inf], shape), normal),
        "mixed": lambda: noise.choice(
            [0.0, -0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, -1e-30, np.nan, np.inf, -np.inf, FORMS[dtype].smallest], shape
        ),
    }
    made = kinds[kind]()
    return None if made is None else np.asarray(made, dtype=FORMS[dtype].dtype)


def laid_out(values: Tensor, layout: str, before: Tensor | None = None) -> Tensor:
    """A tensor of these values that lies differently in memory.

    Args:
        values: what it holds.
        layout: one of `LAYOUTS`, or "expanded".
        before: for "kept", a tensor to overwrite in place where it fits.
    """
    if layout == "kept" and before is not None and before.shape == values.shape and not before.is_neg():
        return before.copy_(values) if 0 not in before.stride() else values.clone()
    if layout == "transposed" and values.ndim > 1:
        return values.transpose(0, -1).clone(memory_format=torch.contiguous_format).transpose(0, -1)
    if layout == "strided" and values.ndim > 0:
        return torch.stack([values, torch.full_like(values, 77)], -1)[..., 0]
    if layout == "offset":
        return torch.cat([torch.full((3,), 77, dtype=values.dtype), values.reshape(-1)])[3:].view(values.shape)
    if layout == "negative":
        return torch._neg_view(values.neg())
    if layout == "expanded" and values.numel():
        return values.reshape(-1)[0].clone().expand(values.shape)
    return values.clone(memory_format=torch.contiguous_format)


def bits(tensor: Tensor) -> bytes:
    """The contents of a tensor, NaNs included."""
    return tensor.detach().resolve_neg().contiguous().numpy().tobytes()


def resized(values: Array, shape: tuple[int, ...]) -> Array:
    """Cut, or filled up with zeros."""
    flat = np.zeros(int(np.prod(shape)), dtype=values.dtype)
    count = min(flat.size, values.size)
    flat[:count] = values.reshape(-1)[:count]
    return flat.reshape(shape)


def admit(right: Ball, tensor: Tensor, what: str) -> None:
    """Raise AssertionError where a tensor isn't within the bounds."""
    ours = tensor.detach().numpy().astype(np.float64)
    assert ours.shape == right.value.shape, f"{what} has the shape {ours.shape}, right is {right.value.shape}"
    good = right.admits(ours)
    if not good.all():
        at = tuple(int(k) for k in np.argwhere(~good)[0])
        raise AssertionError(
            f"{what} is {ours[at]!r} at {at}, right is {right.value[at]!r} ± {right.radius[at]:.1e}; "
            f"all of it: {ours.tolist()}, right: {right.value.tolist()}"
        )
