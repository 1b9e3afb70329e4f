"""What a param group holds: one table of names, ranges, defaults and meanings, and the numbers of one step."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
BiasCorrection = Literal["consistent", "adam", "none"]
_REQUIRED = object()


@dataclass(frozen=True)
class Hyperparameter:
    """One entry of a param group.

    Args:
        meaning: what it does, for the docstrings.
        allowed: the allowed range in words, for docstrings and error messages.
        accepts: whether a value is allowed; a tensor is judged by its elements where that needs no waiting.
        default: its default where neither the user nor the variant gives one.
    """

    meaning: str
    allowed: str
    accepts: Callable[[Any], bool]
    default: Any = _REQUIRED


def _real(low: float, high: float = math.inf, *, closed: bool = True, tensor: bool = False) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        if isinstance(value, Tensor):
            return tensor and value.numel() == 1 and not value.is_complex() and accepts(value.item())
        number = isinstance(value, int | float) and math.isfinite(value)
        return number and low <= value and (value <= high if closed else value < high)

    return accepts


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


_fraction = _real(0, 1, closed=False, tensor=True)
_non_negative = _real(0)

HYPERPARAMETERS: Mapping[str, Hyperparameter] = {
    "lr": Hyperparameter("learning rate α", "a finite number ≥ 0", _real(0, tensor=True)),
    "partial": Hyperparameter(
        "the exponent p: 1/2 is the classical optimizer, 0 is SGD",
        "a number in [0, 1/2]",
        _real(0, 0.5, tensor=True),
        1 / 8,
    ),
    "betas": Hyperparameter(
        "decay rates of the averages of the gradient and of its square",
        "two numbers in [0, 1)",
        lambda value: isinstance(value, tuple | list) and len(value) == 2 and all(map(_fraction, value)),
        (0.9, 0.999),
    ),
    "alpha": Hyperparameter("decay rate of the average of squared gradients", "a number in [0, 1]", _real(0, 1), 0.99),
    "rho": Hyperparameter("decay rate of the averages of squares", "a number in [0, 1]", _real(0, 1), 0.9),
    "eps": Hyperparameter(
        "ε, added to the scale before the power is taken", "a finite number ≥ 0", _non_negative, 1e-8
    ),
    "weight_decay": Hyperparameter("weight decay λ", "a finite number ≥ 0", _non_negative, 0.0),
    "decoupled_weight_decay": Hyperparameter(
        "decay the parameter itself (as AdamW does), not through the gradient", "True or False", _is(bool), False
    ),
    "momentum": Hyperparameter(
        "factor of the heavy ball, applied after the division", "a finite number ≥ 0", _non_negative, 0.0
    ),
    "momentum_decay": Hyperparameter("decay of NAdam's momentum schedule", "a finite number ≥ 0", _non_negative, 4e-3),
    "lr_decay": Hyperparameter(
        "step t has the learning rate α/(1 + (t−1)·lr_decay)", "a finite number ≥ 0", _non_negative, 0.0
    ),
    "initial_accumulator_value": Hyperparameter(
        "what the second-moment state starts with", "a finite number ≥ 0", _non_negative, 0.0
    ),
    "amsgrad": Hyperparameter("keep the running maximum of the second moment", "True or False", _is(bool), True),
    "centered": Hyperparameter("subtract the squared average gradient", "True or False", _is(bool), False),
    "mean": Hyperparameter(
        "the paper's Adagrad: the mean of the squares with α/√t, where torch sums with α",
        "True or False",
        _is(bool),
        False,
    ),
    "bias_correction": Hyperparameter(
        "`consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by √(1−β₂ᵗ)/(1−β₁ᵗ) "
        "whatever p (the authors' code), `none` does neither (the paper's Algorithm 1)",
        "'consistent', 'adam' or 'none'",
        lambda value: value in ("consistent", "adam", "none"),
        "consistent",
    ),
    "maximize": Hyperparameter("ascend instead of descend", "True or False", _is(bool), False),
    "foreach": Hyperparameter(
        "update all tensors in a few kernels; None: where torch.optim does",
        "True, False or None",
        _is(bool, type(None)),
        None,
    ),
    "fused": Hyperparameter(
        "update all tensors in one kernel, compiled from the rule at the first step",
        "True, False or None",
        _is(bool, type(None)),
        None,
    ),
    "capturable": Hyperparameter(
        "never wait for a value on the device (CUDA graphs)", "True or False", _is(bool), False
    ),
    "differentiable": Hyperparameter("let autograd run through `step`", "True or False", _is(bool), False),
    "state_dtype": Hyperparameter(
        "dtype of state and arithmetic where it isn't the parameter's (float32 for bfloat16 parameters)",
        "a floating-point torch.dtype or None",
        lambda value: value is None or (isinstance(value, torch.dtype) and value.is_floating_point),
        None,
    ),
}

COMMON = (
    "lr",
    "partial",
    "weight_decay",
    "decoupled_weight_decay",
    "maximize",
    "foreach",
    "fused",
    "capturable",
    "differentiable",
    "state_dtype",
)


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: what may have been meant instead of `name`, if anything is close."""
    known = list(names)
    close = [other for other in known if other.endswith(f"_{name}")] or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def complete(defaults: Mapping[str, Any], needed: Iterable[str], owner: str) -> dict[str, Any]:
    """`defaults` with what is `needed` and missing filled in; TypeError where a key is unknown or has no default."""
    names = dict.fromkeys((*COMMON, *needed))
    for name in defaults:
        if name not in names:
            raise TypeError(
                f"{owner} got an unexpected hyperparameter {name!r}{nearest(name, names)}; it takes {', '.join(names)}"
            )
    filled = {name: HYPERPARAMETERS[name].default if name in HYPERPARAMETERS else _REQUIRED for name in names}
    filled |= defaults
    for name, value in filled.items():
        if value is _REQUIRED:
            raise TypeError(f"{owner} needs the hyperparameter {name!r}")
    return filled


def validate(group: Mapping[str, Any], owner: str, *, wait: bool = True) -> None:
    """Raise ValueError for the first entry of a param group that isn't allowed, naming it, its value and the range.

    Args:
        group: the param group; keys that are not in the table must be finite if they are numbers.
        owner: the optimizer's name, for the message.
        wait: also judge the values of tensors, which may have to be fetched from a device.

    Raises:
        ValueError: where a value is out of range, or modes exclude each other.
        TypeError: where it is not of the right type at all.
    """
    for name, value in group.items():
        if name in ("params", "param_names"):
            continue
        if not wait and any(isinstance(v, Tensor) and not v.is_cpu for v in _elements(value)):
            continue
        entry = HYPERPARAMETERS.get(name)
        if entry is None:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{owner}: {name} must be a finite number, got {value!r}")
        elif not entry.accepts(value):
            error = TypeError if isinstance(value, str) and name != "bias_correction" else ValueError
            raise error(f"{owner}: {name} must be {entry.allowed}, got {value!r}")
    for mode, other in (("foreach", "differentiable"), ("fused", "differentiable"), ("fused", "foreach")):
        if group[mode] and group[other]:
            raise ValueError(f"{owner}: {mode}=True excludes {other}=True, got both")


def _elements(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters among the `locals()` at the start of an optimizer's `__init__`."""
    return {name: value for name, value in arguments.items() if name not in ("self", "params", "__class__")}


def documented(optimizer: type[T]) -> type[T]:
    """Add to an optimizer's docstring what each argument of its signature means, and what is raised."""
    lines = ["Args:", "    params: tensors, (name, tensor) pairs, or dicts that define param groups."]
    for name, argument in inspect.signature(optimizer).parameters.items():
        if name in HYPERPARAMETERS:
            entry = HYPERPARAMETERS[name]
            lines.append(f"    {name}: {entry.meaning}; {entry.allowed} (default: {argument.default!r}).")
    lines += ["", "Raises:", "    ValueError: where an argument is out of its range, before anything has changed."]
    optimizer.__doc__ = inspect.cleandoc(optimizer.__doc__ or "") + "\n\n" + "\n".join(lines) + "\n"
    return optimizer


class Hyper:
    """The numbers of one step: a param group's entries as attributes, and what follows from them.

    Where the optimizer is `capturable` or `differentiable`, hyperparameters given as tensors stay tensors, and in the
    first case everything that depends on the step count is one too.

    Attributes:
        beta1, beta2: the two entries of `betas`.
        step: how many steps the parameter has taken, this one included.
        age: the same for the estimator's state, which starts later where p was 0 at first.
        correction1: divides the numerator: 1 − β₁ᵗ with consistent bias correction.
        correction2_sqrt: divides the root of the second moment: √(1 − β₂ᵗ) with consistent bias correction.
        capturable: whether values must not be fetched from the device.
    """

    def __init__(
        self, group: Mapping[str, Any], step: Any, age: Any, momentum_decay: str | None, estimator_decay: str | None
    ) -> None:
        self._group = group
        self._keep_tensors: bool = group["capturable"] or group["differentiable"]
        self.step = step
        self.age = age
        rule = group.get("bias_correction", "none")
        bias1 = 1.0 if momentum_decay is None or rule == "none" else self._bias(momentum_decay, step)
        bias2_sqrt = 1.0 if estimator_decay is None or rule == "none" else self._bias(estimator_decay, age) ** 0.5
        self.correction1 = bias1 / bias2_sqrt if rule == "adam" else bias1
        self.correction2_sqrt = 1.0 if rule == "adam" else bias2_sqrt

    @cached_property
    def beta1(self) -> Any:
        """Decay rate of the first moment."""
        return self._number(self._group["betas"][0])

    @cached_property
    def beta2(self) -> Any:
        """Decay rate of the second moment."""
        return self._number(self._group["betas"][1])

    def __getattr__(self, name: str) -> Any:
        try:
            value = self.__dict__[name] = self._number(self._group[name])
        except KeyError:
            known = ", ".join(key for key in self._group if key != "params")
            raise AttributeError(f"no hyperparameter {name!r} in the param group; it has {known}") from None
        return value

    def _number(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.reshape(()) if self._keep_tensors else value.item()

    def _bias(self, decay: str, step: Any) -> Any:
        rate = getattr(self, decay)
        if isinstance(step, float):
            return 1 - rate**step
        # 1 − βᵗ would lose most of its digits in a float32 step tensor.
        log = (math.log(rate) if rate > 0 else -math.inf) if isinstance(rate, int | float) else rate.log()
        return -(step * log).expm1()
