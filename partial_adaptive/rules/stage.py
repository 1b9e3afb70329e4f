"""What the parts of the update rule have in common: a declaration of what they must see, keep and read."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import torch
from torch import Tensor

from partial_adaptive.rules.hyperparameters import (
    BETAS,
    COMMON,
    HYPERPARAMETERS,
    NUMBERS,
    Hyper,
    Hyperparameter,
    nearest,
)

LAWS = {
    "linear": "at p = 0 the steps are linear in the gradients",
    "units": "at p = 1/2 the steps do not depend on the units of the gradients",
    "position": "the steps do not depend on where the parameter is",
}
RENAMED = {
    "buffers": "`slots`, a dict of names and `Slot`s",
    "initial": "`Slot(first=…)`",
    "follow": "a `Transform` in `after`",
}
COMPENSATION = "compensation"  # what a parameter in 16 bits has lost in rounding
RESERVED = ("param", "grad", "step", "estimator_step", COMPENSATION)


class Needs(enum.Enum):
    """How much of a tensor a stage must see at once.

    ELEMENT: nothing but the element itself. Tensors may be joined, split and compiled; methods that look at more (a
    norm, a shape) are refused.
    TENSOR: the whole parameter. The stage gets each parameter as it is, in every mode but `fused`.
    """

    ELEMENT = "element"
    TENSOR = "tensor"


ELEMENT, TENSOR = Needs.ELEMENT, Needs.TENSOR


class Codec(Protocol):
    """How a tensor of state is stored: what the checkpoint holds, from what the arithmetic sees, and back.

    It must be hashable, and equal only to what stores alike: a frozen dataclass, or any class without `__eq__`.
    """

    def __hash__(self) -> int: ...

    def encode(self, value: Tensor, step: Any = 0) -> Mapping[str, Tensor]:
        """The tensors to store, by the suffix of their names in the state.

        Args:
            value: what the arithmetic has come to.
            step: how many steps the parameter has taken, as a number or a 0-dim tensor, for codes with noise.
        """

    def decode(self, parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
        """The value, of this shape, as a new tensor."""


def like(shape: torch.Size) -> Sequence[int]:
    """The parameter's own shape, and for a complex parameter complex."""
    return shape


@dataclass(frozen=True)
class Slot:
    """A tensor of state for each parameter.

    Args:
        shape: its shape, from the parameter's; `like` by default. A complex parameter counts as a real one with a last
            dimension of 2. Any other shape than the parameter's needs the whole TENSOR.
        first: what it starts with: a number, or the name of the hyperparameter that holds it.
        codec: how it is stored; as it is where None.
        dtype: in which it is stored; None for the parameter's, float32 where that has 16 bits; "param" for the
            parameter's in any case.
        nonnegative: whether its values never are below 0, so that a code needs no signs.
        coarse: whether a code that keeps few digits will do; not where a difference of nearly equal values is taken.

    Example:
        >>> def per_row(shape):
        ...     return (*shape[:1], *(1 for _ in shape[1:]))
        >>> Slot(shape=per_row).shape(torch.Size([4, 3]))
        (4, 1)
    """

    shape: Callable[[torch.Size], Sequence[int]] = like
    first: float | str = 0.0
    codec: Codec | None = None
    dtype: torch.dtype | Literal["param"] | None = None
    nonnegative: bool = False
    coarse: bool = True

    @property
    def follows(self) -> bool:
        """Whether it is stored as the parameter is: its shape, complex where that is."""
        return self.shape is like and self.codec is None


class Stage:
    """A part of the update rule. It declares all that it needs and never remembers anything itself.

    Attributes:
        needs: ELEMENT, or TENSOR where an element's result depends on others or on the shape.
        slots: its state, by name, passed to its methods in this order. Names are torch's where torch has the same.
        hyperparameters: the names that it reads from the library's own table.
        own: the hyperparameters that are its own, by name, with default, range and meaning.
        batched: whether TENSOR arithmetic may run on many tensors of one shape at once, under `torch.vmap`: no line
            asks for a value (`item`, `if x > 0`), and all that is changed in place is a slot or the stage's own.
        reads: names of other stages' slots that its methods also take, after its own.
        sparse: whether an element with zero gradient leaves its state as it is, so that sparse gradients are exact.
        decay: the hyperparameter whose powers bias its average towards zero (dividing by 1 − decayᵗ corrects it), None
            where nothing is biased.
        together: whether its state means something only as a whole: where one entry is missing all of it starts afresh.
        breaks: the `LAWS` that do not hold with it, which the conformance suite then leaves out.
    """

    needs: Needs = ELEMENT
    batched: bool = False
    slots: Mapping[str, Slot] = {}
    hyperparameters: tuple[str, ...] = ()
    own: Mapping[str, Hyperparameter] = {}
    reads: tuple[str, ...] = ()
    sparse: bool = False
    decay: str | None = None
    together: bool = False
    breaks: tuple[str, ...] = ()

    def select(self, group: Mapping[str, Any]) -> Self:
        """The stage to use for a param group: itself; a `Switch` chooses. `lr`, which moves, has no say in it."""
        return self

    @property
    def alternatives(self) -> tuple[Self, ...]:
        """All that `select` may give."""
        return (self,)

    def refuses(self, shape: torch.Size) -> str | None:
        """Why a parameter of this shape is none for this stage, as the end of a sentence; None where it is one."""
        return None

    def check(self) -> None:
        """Raise TypeError for a declaration that cannot be meant so."""
        name = type(self).__name__
        for attribute in ("hyperparameters", "reads", "breaks"):
            value = getattr(self, attribute)
            if (
                not isinstance(value, Sequence)
                or isinstance(value, str)
                or not all(isinstance(item, str) for item in value)
            ):
                raise TypeError(f"{name}.{attribute} must be a tuple of names, got {value!r}; did you forget a comma?")
        if not isinstance(self.slots, Mapping) or not all(isinstance(slot, Slot) for slot in self.slots.values()):
            raise TypeError(f"{name}.slots must be a dict of names and `Slot`s, got {self.slots!r}")
        if not isinstance(self.needs, Needs):
            raise TypeError(f"{name}.needs must be ELEMENT or TENSOR, got {self.needs!r}")
        own = isinstance(self.own, Mapping)
        if not own or not all(isinstance(entry, Hyperparameter) for entry in self.own.values()):
            raise TypeError(f"{name}.own must be a dict of names and `Hyperparameter`s, got {self.own!r}")
        for law in self.breaks:
            if law not in LAWS:
                raise TypeError(f"{name}.breaks must name some of {', '.join(LAWS)}, got {law!r}")
        for old, new in RENAMED.items():
            if hasattr(self, old):
                raise TypeError(f"{name} has {old!r}, which is now {new}")
        known = {*HYPERPARAMETERS, *self.own}
        for hyperparameter in self.hyperparameters:
            if hyperparameter not in known:
                raise TypeError(
                    f"{name} reads the hyperparameter {hyperparameter!r}, which the library does not have"
                    f"{nearest(hyperparameter, known)}; declare it in `own`, with default, range and meaning"
                )
        self._check_decay(name)
        for entry in sorted(self.own.keys() & NUMBERS):
            raise TypeError(f"{name}.own has {entry!r}, by which `hyper` knows something else; choose another name")
        for entry in sorted(self.own.keys() & {*COMMON, *self.hyperparameters} & HYPERPARAMETERS.keys()):
            raise TypeError(
                f"{name}.own has {entry!r}, which is the library's; read it by naming it in `hyperparameters`"
            )
        for slot in self.slots:
            if slot in RESERVED:
                raise TypeError(f"{name}.slots has {slot!r}, a reserved name ({', '.join(RESERVED)}); choose another")
        if self.needs is ELEMENT:
            for slot, declared in self.slots.items():
                if declared.shape is not like:
                    raise TypeError(
                        f"{name}.slots[{slot!r}] has a shape of its own, so {name} must declare needs = TENSOR"
                    )

    def _check_decay(self, name: str) -> None:
        if self.decay is None:
            return
        rates = [entry for entry in (*self.hyperparameters, *self.own) if entry not in ("betas", "bias_correction")]
        rates += [*BETAS] if "betas" in self.hyperparameters else []
        if self.decay not in rates:
            known = ", ".join(rates) or "none, so far"
            raise TypeError(f"{name}.decay must name a number that it reads ({known}), got {self.decay!r}")
        if "bias_correction" not in self.hyperparameters:
            raise TypeError(
                f"{name} declares decay = {self.decay!r} but does not name 'bias_correction' in `hyperparameters`, "
                "so that nothing would be corrected"
            )


S = TypeVar("S", bound=Stage)
S_co = TypeVar("S_co", bound=Stage, covariant=True)


@dataclass(frozen=True)
class Switch(Generic[S_co]):
    """One of two stages, by an entry of the param group (torch's `amsgrad`, `centered`, `momentum`).

    Args:
        option: key in the param group.
        on: the stage where it is true, or not zero.
        off: the stage where it is false, or zero; None for no stage at all, where there need not be one.

    Example:
        >>> from partial_adaptive.rules.second_moments import AmsgradMax, ExpAvgSq
        >>> type(Switch("amsgrad", AmsgradMax(), ExpAvgSq()).select({"amsgrad": True})).__name__
        'AmsgradMax'
    """

    option: str
    on: S_co
    off: S_co | None

    @property
    def alternatives(self) -> tuple[S_co | None, ...]:
        """Both stages."""
        return (self.on, self.off)

    def select(self, group: Mapping[str, Any]) -> S_co | None:
        """The stage for a param group."""
        return self.on if group[self.option] else self.off


Selectable: TypeAlias = S | Switch[S]  # a stage, or a choice between two


class Tensors(NamedTuple):
    """What a stage of one's own may look at besides what it changes.

    Args:
        param: θ, as it was before the step.
        grad: g, with decay, `maximize` and the gradient stages so far in it.
        numerator: n; the gradient itself before momentum.
    """

    param: Any
    grad: Any
    numerator: Any


class Transform(Stage, ABC):
    """A stage of one's own: from x to x, before momentum (x is the gradient) or after P (x is the direction).

    Attributes:
        decays: whether decoupled weight decay is in what it returns, so that the rule does not decay as well.
    """

    decays: bool = False

    @abstractmethod
    def apply(self, x: Tensor, hyper: Hyper, tensors: Tensors, *slots: Any) -> Tensor:
        """What goes on in the place of `x`; neither `x` nor what is in `tensors` is to be changed in place."""


def average_(buffer: Tensor, value: Tensor, decay: Any) -> Tensor:
    """Take `value` into the exponential moving average `buffer`, in place.

    Args:
        buffer: the average, m ← decay·m + (1 − decay)·value.
        value: of the same shape.
        decay: in [0, 1]; a number, or what stands for one.
    """
    if isinstance(decay, Tensor):
        return buffer.mul_(decay).add_(value.mul(1 - decay))
    return buffer.lerp_(value, 1 - decay)


def average_square_(buffer: Tensor, value: Tensor, decay: Any) -> Tensor:
    """Take value² into the exponential moving average `buffer`, in place; see `average_`."""
    if isinstance(decay, Tensor):
        return average_(buffer, value.mul(value), decay)
    return buffer.mul_(decay).addcmul_(value, value, value=1 - decay)
