"""What a param group holds: names, ranges, defaults and meanings, and the numbers of one step."""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

BiasCorrection = Literal["consistent", "adam", "none"]
RoundingMode = Literal["nearest", "stochastic", "kahan"]
StateDtype: TypeAlias = torch.dtype | Literal["8bit"] | Mapping[str, torch.dtype | Literal["8bit"] | None] | None
REQUIRED = object()  # the default of a hyperparameter that has none


@dataclass(frozen=True)
class Hyperparameter:
    """One entry of a param group. `number`, `whole`, `flag` and `choice` make the usual kinds.

    Args:
        meaning: what it does, for the docstrings.
        allowed: the allowed range in words, for docstrings and error messages.
        accepts: whether a value that `convert` gave is allowed; a tensor is judged by its elements.
        default: its default where neither the user nor the member gives one.
        convert: a value as it is stored, a plain Python one, from whatever a configuration holds; what it does not
            know it gives back.
        static: whether a change needs a new program (a number that decides which lines run); otherwise the compiled
            program reads it anew at every step.
    """

    meaning: str
    allowed: str
    accepts: Callable[[Any], bool]
    default: Any = REQUIRED
    convert: Callable[[Any], Any] = lambda value: value
    static: bool = True


def number(
    default: Any, low: float = 0.0, high: float = math.inf, *, meaning: str, closed: bool = True, tensor: bool = False
) -> Hyperparameter:
    """A real number in [low, high], or [low, high) where not `closed`, that may change at every step.

    Args:
        default: its default, `REQUIRED` for none.
        low: the least value.
        high: the largest, infinity for none (the value itself is always finite).
        meaning: what it does.
        closed: whether `high` itself is allowed.
        tensor: whether a tensor of one element is, too.

    Example:
        >>> leak = number(0.999, 0, 1, meaning="how much of the maximum is left after a step")
        >>> leak.allowed, leak.accepts(1.5)
        ('a number in [0, 1]', False)
    """
    text = f"a number in {_range(low, high, closed)}"
    if math.isinf(high):
        text = f"a finite number ≥ {low:g}"
    elif math.isinf(low):
        text = f"a finite number ≤ {high:g}"
    return Hyperparameter(meaning, text, _within(low, high, closed, tensor), default, _plain, static=False)


def whole(default: Any, low: int = 0, high: float = math.inf, *, meaning: str) -> Hyperparameter:
    """A whole number in [low, high], which stays one (an `int`) in every mode; see `number` for the arguments."""
    text = f"a whole number ≥ {low}" if high == math.inf else f"a whole number in [{low}, {high}]"

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    def convert(value: Any) -> Any:
        value = _item(value)
        return value if type(value) is bool or not isinstance(value, numbers.Integral) else int(value)

    return Hyperparameter(meaning, text, accepts, default, convert)


def flag(default: Any, *, meaning: str, none: bool = False) -> Hyperparameter:
    """True or False, or with `none` None."""
    text = "True, False or None" if none else "True or False"

    def accepts(value: Any) -> bool:
        return isinstance(value, bool) or (none and value is None)

    return Hyperparameter(meaning, text, accepts, default, _item)


def choice(default: Any, *options: str, meaning: str) -> Hyperparameter:
    """One of some strings."""
    text = f"{', '.join(map(repr, options[:-1]))} or {options[-1]!r}"
    return Hyperparameter(meaning, text, lambda value: isinstance(value, str) and value in options, default, _item)


def optional(entry: Hyperparameter) -> Hyperparameter:
    """The same, or None."""
    return replace(
        entry, allowed=f"{entry.allowed}, or None", accepts=lambda value: value is None or entry.accepts(value)
    )


def _range(low: float, high: float, closed: bool) -> str:
    end = "1/2" if high == 0.5 else f"{high:g}"
    return f"[{low:g}, {end}{']' if closed else ')'}"


def _within(low: float, high: float, closed: bool, tensor: bool) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        if isinstance(value, Tensor):
            return tensor and value.numel() == 1 and not value.is_complex() and accepts(value.item())
        real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return real and low <= value and (value <= high if closed else value < high)

    return accepts


def _item(value: Any) -> Any:
    """A NumPy scalar or 0-dim array as Python has it."""
    return value.item() if getattr(value, "shape", None) == () and not isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    """A real number of any kind as a float."""
    value = _item(value)
    return value if type(value) is bool or not isinstance(value, numbers.Real) else float(value)


def _plain_pair(value: Any) -> Any:
    """A sequence of numbers of any kind as a tuple of floats."""
    if type(value) is tuple and all(type(v) is float for v in value):
        return value
    listed = hasattr(value, "tolist") and not isinstance(value, Tensor) and getattr(value, "shape", ()) != ()
    if listed or (isinstance(value, Sequence) and not isinstance(value, str)):
        return tuple(map(_plain, value))
    return value


CODES = ("8bit",)  # names of codecs
OTHERS = "*"  # in a dict by slot: all that it does not name


def _is_storage(value: Any) -> bool:
    return value is None or value in CODES or (isinstance(value, torch.dtype) and value.is_floating_point)


def _is_pairs(value: tuple[Any, ...]) -> bool:
    pairs = all(type(pair) is tuple and len(pair) == 2 for pair in value)
    return pairs and all(isinstance(name, str) and _is_storage(choice) for name, choice in value)


def _pairs_of(value: Any) -> Any:
    """A dict, or what a configuration makes of its items, as sorted pairs: plain, and equal where it means the same."""
    if type(value) is tuple or not isinstance(value, Mapping | list):
        return value
    items = value.items() if isinstance(value, Mapping) else map(tuple, value)
    return tuple(sorted(items, key=repr))


BETAS = ("beta1", "beta2")  # the entries of `betas`
BETA = number(0.0, 0, 1, closed=False, meaning="a decay rate")
_fraction = _within(0, 1, closed=False, tensor=True)

HYPERPARAMETERS: Mapping[str, Hyperparameter] = {
    "lr": number(REQUIRED, meaning="learning rate α", tensor=True),
    "partial": replace(
        number(1 / 8, 0, 1, meaning="the exponent p: 1/2 is the classical optimizer, 0 is SGD", tensor=True),
        allowed="a number in [0, 1/2], or in [0, 1] with beyond_half=True",
    ),
    "beyond_half": flag(False, meaning="allow p up to 1, where the theory says nothing"),
    "betas": Hyperparameter(
        "decay rates of the averages of the gradient and of its square",
        "two numbers in [0, 1)",
        lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(_fraction, value)),
        (0.9, 0.999),
        _plain_pair,
        static=False,
    ),
    "alpha": number(0.99, 0, 1, meaning="decay rate of the average of squared gradients"),
    "rho": number(0.9, 0, 1, meaning="decay rate of the averages of squares"),
    "eps": number(1e-8, meaning="ε, added to the scale before the power is taken"),
    "weight_decay": number(0.0, meaning="weight decay λ"),
    "decoupled_weight_decay": flag(
        False, meaning="decay the parameter itself (as AdamW does), not through the gradient"
    ),
    "peak_lr": optional(
        replace(
            number(
                None,
                meaning="largest learning rate α* of a schedule: decoupled decay is αλ·α/α*, in proportion to what "
                "gradients do at the end of a schedule (Defazio, 2025)",
            ),
            allowed="a finite number > 0",
            accepts=_within(math.ulp(0.0), math.inf, closed=True, tensor=False),  # it is divided by
        )
    ),
    "cautious_weight_decay": flag(
        False, meaning="decoupled decay only of the elements that the step moves towards 0 (Chen et al., 2025)"
    ),
    "momentum": number(0.0, meaning="factor of the heavy ball, applied after the division"),
    "momentum_decay": number(4e-3, meaning="decay of NAdam's momentum schedule"),
    "lr_decay": number(0.0, meaning="step t has the learning rate α/(1 + (t−1)·lr_decay)"),
    "initial_accumulator_value": number(0.0, meaning="what the second-moment state starts with"),
    "amsgrad": flag(True, meaning="keep the running maximum of the second moment"),
    "centered": flag(False, meaning="subtract the squared average gradient"),
    "mean": flag(False, meaning="the paper's Adagrad: the mean of the squares with α/√t, where torch sums with α"),
    "bias_correction": choice(
        "consistent",
        *get_args(BiasCorrection),
        meaning="`consistent` divides both averages by 1−βᵗ inside the power, `adam` multiplies the step by "
        "√(1−β₂ᵗ)/(1−β₁ᵗ) whatever p (the authors' code), `none` does neither (the paper's Algorithm 1)",
    ),
    "maximize": flag(False, meaning="ascend instead of descend"),
    "foreach": flag(None, meaning="update all tensors in a few kernels; None: where torch.optim does", none=True),
    "fused": flag(
        None, meaning="update all tensors in one kernel, compiled from the rule at the first step", none=True
    ),
    "capturable": flag(False, meaning="never wait for a value on the device (CUDA graphs)"),
    "differentiable": flag(False, meaning="let autograd run through `step`"),
    "state_dtype": Hyperparameter(
        "how the state is stored; None: in the parameter's dtype, and in float32 for parameters in 16 bits",
        "a floating-point torch.dtype, '8bit', None, or a dict of these by slot, '*' for all others",
        lambda value: _is_pairs(value) if type(value) is tuple else _is_storage(value),
        None,
        _pairs_of,
    ),
    "rounding": choice(
        "nearest",
        *get_args(RoundingMode),
        meaning="how parameters in bfloat16 and float16 are rounded: to the nearest, at random without bias, or with "
        "what is lost kept in the state",
    ),
    "rounding_seed": whole(0, 0, 2**32 - 1, meaning="the seed of stochastic rounding"),
    "skip_nonfinite": flag(
        False, meaning="skip the whole step, of all param groups, where a gradient of this one is NaN or infinite"
    ),
}

# What `Hyper`, or a param group, has under these names is something else than a hyperparameter.
_TAKEN = """
    age beta1 beta2 correction1 correction2_sqrt effective_decay has_decay member param_names params step step_size
    value weight_of when
"""
NUMBERS = frozenset(_TAKEN.split())
MODES = ("foreach", "fused", "capturable", "differentiable")
DECAY = ("weight_decay", "decoupled_weight_decay", "peak_lr", "cautious_weight_decay")
STORAGE = ("state_dtype", "rounding", "rounding_seed")
COMMON = ("lr", "partial", "beyond_half", *DECAY, "maximize", *MODES, *STORAGE, "skip_nonfinite")
SHARED = ("maximize", *MODES, *STORAGE, "skip_nonfinite")  # one for all members of an optimizer
EXCLUSIVE = (("foreach", "differentiable"), ("fused", "differentiable"), ("fused", "foreach"))


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: what may have been meant instead of `name`, if anything is close."""
    known = list(names)
    close = [other for other in known if other.endswith(f"_{name}")] or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def table_for(used: Iterable[str], own: Mapping[str, Hyperparameter]) -> Mapping[str, Hyperparameter]:
    """The hyperparameters of an optimizer: the common ones, the library's that its stages read, and their own."""
    table = {**HYPERPARAMETERS, **own}
    return {name: table[name] for name in dict.fromkeys((*COMMON, *used, *own))}


def complete(defaults: Mapping[str, Any], table: Mapping[str, Hyperparameter], owner: str) -> dict[str, Any]:
    """`defaults` with what is missing filled in; TypeError where a key is unknown or has no default."""
    for name in defaults:
        if name not in table:
            raise TypeError(
                f"{owner} got an unexpected hyperparameter {name!r}{nearest(name, table)}; it takes {', '.join(table)}"
            )
    filled: dict[str, Any] = {**{name: entry.default for name, entry in table.items()}, **defaults}
    for name, value in filled.items():
        if value is REQUIRED:
            raise TypeError(f"{owner} needs the hyperparameter {name!r}")
    return filled


def validated(
    group: Mapping[str, Any], table: Mapping[str, Hyperparameter], owner: str, *, wait: bool = True
) -> dict[str, Any]:
    """The entries of a param group that are to be stored otherwise than they were given.

    Args:
        group: the param group; keys that are not in the table are the user's own and not looked at.
        table: the optimizer's hyperparameters.
        owner: the optimizer's name, for the message.
        wait: also judge the values of tensors, which may have to be fetched from a device.

    Raises:
        ValueError: where a value is out of range, or modes exclude each other, naming it, its value and the range.
        TypeError: where it is not of the right type at all.
    """
    changed = {}
    for name, entry in table.items():
        given = group[name]
        value = entry.convert(given)
        if value is not given:
            changed[name] = value
        if not wait and any(isinstance(v, Tensor) and not v.is_cpu for v in _elements(value)):
            continue
        if not accepted(name, value, entry, group):
            error = TypeError if isinstance(value, str) and not isinstance(entry.default, str) else ValueError
            raise error(f"{owner}: {name} must be {entry.allowed}, got {given!r}")
    for mode, other in EXCLUSIVE:
        if group[mode] and group[other]:
            raise ValueError(f"{owner}: {mode}=True excludes {other}=True, got both")
    for name, off in (("peak_lr", None), ("cautious_weight_decay", False)):
        if group[name] is not off and not group["decoupled_weight_decay"]:
            raise ValueError(f"{owner}: {name} must be {off} without decoupled_weight_decay, got {group[name]!r}")
    return changed


def accepted(name: str, value: Any, entry: Hyperparameter, group: Mapping[str, Any]) -> bool:
    """Whether a param group may have this value of a hyperparameter."""
    if name != "partial" or group["beyond_half"] or not entry.accepts(value):
        return entry.accepts(value)
    return as_float(value) <= 0.5


def as_float(value: Any) -> float:
    """A number of a param group, which may be a tensor, as Python has it."""
    return float(value.item() if isinstance(value, Tensor) else value)


def _elements(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple) else (value,)


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters among the `locals()` at the start of an optimizer's `__init__`."""
    named = {k: value for k, value in arguments.items() if k not in ("self", "params", "__class__", "options")}
    return {**named, **arguments.get("options", {})}


class Hyper:
    """The numbers of one step: a param group's entries as attributes, and what follows from them.

    Calculate with them and compare them by `when`, for they may be tensors (where the optimizer is `capturable` or
    `differentiable`) or symbols (where it is compiled). Options (True, False, text, whole numbers) are what they are
    everywhere and may decide which lines run.

    Args:
        group: the param group.
        step: how many steps the parameter has taken, this one included.
        age: how many gradients the second moment has seen; less than `step` where p was 0 at first.
        decays: names of the hyperparameters by which the numerator and the second moment decay, None where unbiased.

    Attributes:
        beta1, beta2: the two entries of `betas`.
        step, age: as given.
        has_decay: whether there is weight decay at all.
        effective_decay: λ, or λα/α* with `peak_lr`.
        step_size: the factor of what is subtracted from the parameter.
        correction1: divides the numerator: 1 − β₁ᵗ with consistent bias correction.
        correction2_sqrt: divides the root of the second moment: √(1 − β₂ᵗ) with consistent bias correction.
        capturable: whether values must not be fetched from the device.
    """

    step_size: Any

    def __init__(self, group: Mapping[str, Any], step: Any, age: Any, decays: tuple[str | None, str | None]) -> None:
        self._group = group
        self._keeps_tensors: bool = group["capturable"] or group["differentiable"]
        self.step = step
        self.age = age
        weight_decay = group["weight_decay"]
        self.has_decay = not isinstance(weight_decay, float) or weight_decay != 0
        self.effective_decay = weight_decay if group["peak_lr"] is None else weight_decay * self.lr / self.peak_lr
        correction = group.get("bias_correction", "none")
        self.correction1 = self.correction2_sqrt = 1.0
        if correction == "none":
            return
        first, second = decays
        if first is not None:
            self.correction1 = self.weight_of(first, step)
        if second is not None and correction == "adam":
            # A factor of the step, so it counts the parameter's steps: it does not jump when p leaves 0.
            self.correction1 = self.correction1 / self.weight_of(second, step) ** 0.5
        elif second is not None:
            self.correction2_sqrt = self.weight_of(second, age) ** 0.5

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        group = self._group
        if name in BETAS and "betas" in group:
            value = group["betas"][int(name[-1]) - 1]
        elif name in group:
            value = group[name]
        else:
            known = ", ".join(key for key in group if key not in ("params", "param_names"))
            raise AttributeError(f"no hyperparameter {name!r} in the param group; it has {known}")
        if isinstance(value, Tensor):
            value = value.reshape(()) if self._keeps_tensors else value.item()
        self.__dict__[name] = value
        return value

    def value(self, scalar: Any) -> Any:
        """The number in a 0-dim tensor of the state; it stays a tensor where nothing may wait for it."""
        return scalar if self.capturable else scalar.item()

    @staticmethod
    def when(condition: Any, chosen: Any, otherwise: Any) -> Any:
        """`chosen` where a comparison holds, `otherwise` elsewhere, element by element, in every mode.

        Args:
            condition: a comparison, such as `grad * exp_avg > 0` or `hyper.step > 5`.
            chosen: a tensor or a number.
            otherwise: the same.

        Example:
            >>> Hyper.when(torch.tensor([1.0, -1.0]) > 0, 1.0, 0.0)
            tensor([1., 0.])
        """
        if isinstance(condition, bool):
            return chosen if condition else otherwise
        for operand in (condition, chosen, otherwise):
            if hasattr(operand, "choose"):  # what stands in for a tensor
                return operand.choose(condition, chosen, otherwise)
        return torch.where(condition, chosen, otherwise)

    def weight_of(self, decay: str, step: Any) -> Any:
        """1 − βᵗ, the sum of the weights in an average after t steps, with the digits that a subtraction would lose.

        Args:
            decay: the name of β.
            step: t, a number or what stands for one.
        """
        rate = getattr(self, decay)
        if isinstance(rate, int | float):
            log = math.log(rate) if rate > 0 else -math.inf
            return -math.expm1(step * log) if isinstance(step, float) else -(step * log).expm1()
        return -(step * rate.log()).expm1()
