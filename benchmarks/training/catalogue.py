"""Every optimizer under test by name, as data: read without torch, which is imported once a class is asked for."""

import dataclasses
import functools
import importlib.metadata
import inspect
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.base.errors import BenchmarkError
from benchmarks.base.references import OPTIMIZERS, Catalogue, Item, ReferenceLookupError, load

if TYPE_CHECKING:
    from torch.optim import Optimizer


class OptimizerError(BenchmarkError, ValueError):
    """An optimizer, preset or hyperparameter that does not exist, or a value that it does not take."""


def _release(version: str) -> tuple[int, ...]:
    """The major and minor number of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part)


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer under test.

    Args:
        name: its name in studies.
        title: its name in tables and figures.
        reference: the class built, as ``"module:class"``.
        fixed: the arguments that make it what its name says.
        family: whether it belongs to `partial_adaptive`.
        since: the first torch that has it, e.g. ``"2.9"``; "" for all.
    """

    name: str
    title: str
    reference: str
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    family: bool = False
    since: str = ""

    @property
    def missing(self) -> str:
        """Why this torch cannot build it; "" if it can."""
        here = importlib.metadata.version("torch")
        if _release(here) >= _release(self.since):
            return ""
        return f"{self.name} needs torch {self.since}, this is {here}"

    @property
    def foreign(self) -> bool:
        """Whether it is none of the benchmark's own."""
        return self.name == self.reference

    @functools.cached_property
    def cls(self) -> "Callable[..., Optimizer]":
        """The class built."""
        try:
            cls: Callable[..., Optimizer] = load(self.reference)
        except ReferenceLookupError as error:
            raise OptimizerError(f"optimizer {error}") from error
        if not callable(cls):
            raise OptimizerError(f"optimizer {self.name!r} must be a class, got {cls!r}")
        return cls

    @functools.cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The keyword arguments of the constructor, those that it takes as ``**options: Unpack[…]`` included."""
        found: dict[str, inspect.Parameter] = {}
        for parameter in list(inspect.signature(self.cls).parameters.values())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                for typed in typing.get_args(parameter.annotation):
                    for name, annotation in typing.get_type_hints(typed).items():
                        found[name] = inspect.Parameter(name, parameter.KEYWORD_ONLY, annotation=annotation)
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found[parameter.name] = parameter
        return found

    @functools.cached_property
    def open(self) -> bool:
        """Whether the constructor takes keyword arguments that nobody has declared."""
        parameters = inspect.signature(self.cls).parameters.values()
        return any(one.kind is one.VAR_KEYWORD and not typing.get_args(one.annotation) for one in parameters)

    @property
    def defaults(self) -> dict[str, Any]:
        """The keyword arguments that have a default, with it."""
        return {name: one.default for name, one in self.parameters.items() if one.default is not one.empty}

    def plain(self, name: str, value: Any) -> Any:
        """A value as it is stated: 1 and 1.0 are one setting, and are to be one run; what counts stays whole."""
        if type(value) is not int or name not in self.parameters:
            return value
        parameter = self.parameters[name]
        annotation = parameter.annotation
        if self.foreign:  # nobody has looked at it, so only what is declared a float is one
            return float(value) if type(parameter.default) is float or "float" in str(annotation) else value
        return value if annotation is int else float(value)

    @property
    def capturable(self) -> bool:
        """Whether its step can be captured in a CUDA graph with a learning rate that changes between replays."""
        return not self.foreign and ("capturable" in self.parameters or self.reference == "torch.optim:SGD")


_BASELINES = (
    Entry("sgd", "SGD (momentum)", "torch.optim:SGD"),
    Entry("sgd_nesterov", "SGD (Nesterov)", "torch.optim:SGD", {"nesterov": True}),
    Entry("adam", "Adam", "torch.optim:Adam"),
    Entry("amsgrad", "Amsgrad", "torch.optim:Adam", {"amsgrad": True}),
    Entry("adamw", "AdamW", "torch.optim:AdamW"),
    Entry("nadam", "NAdam", "torch.optim:NAdam"),
    Entry("radam", "RAdam", "torch.optim:RAdam"),
    Entry("rmsprop", "RMSprop", "torch.optim:RMSprop"),
    Entry("adagrad", "Adagrad", "torch.optim:Adagrad"),
    Entry("adamax", "Adamax", "torch.optim:Adamax"),
    Entry("adadelta", "Adadelta", "torch.optim:Adadelta"),
    Entry("muon", "Muon (matrices), AdamW (rest)", "benchmarks.training.muon:MuonAndAdamW", since="2.9"),
)
_FAMILY = (
    ("padam", "Padam"),
    ("partial_adam", "PartialAdam"),
    ("partial_nadam", "PartialNAdam"),
    ("partial_rmsprop", "PartialRMSprop"),
    ("partial_adagrad", "PartialAdagrad"),
    ("partial_adamax", "PartialAdaMax"),
    ("partial_adadelta", "PartialAdadelta"),
    ("partial_adabelief", "PartialAdaBelief"),
    ("partial_yogi", "PartialYogi"),
    ("partial_sign", "PartialSign"),
    ("partial_adam_mini", "PartialAdamMini"),
    ("partial_adafactor", "PartialAdafactor"),
    ("partial_sm3", "PartialSM3"),
    ("partial_muon", "PartialMuon"),
    ("partial_shampoo", "PartialShampoo"),
    ("partial_soap", "PartialSOAP"),
)
_ENTRIES = (*_BASELINES, *(Entry(name, cls, f"partial_adaptive:{cls}", family=True) for name, cls in _FAMILY))

REGISTRY: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})

_ADAM = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 1e-4}
_ADAMW = {"lr": 1e-3, "betas": (0.9, 0.99)}
_PAPER: Mapping[str, Mapping[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adam": _ADAM,
    "amsgrad": _ADAM,
    "adamw": {**_ADAMW, "normalized_weight_decay": 2.5e-2},
    # "adam" is how the authors' released code corrects the bias; the text only says "as in Adam".
    "padam": {"lr": 0.1, "partial": 1 / 8, "betas": (0.9, 0.999), "weight_decay": 5e-4, "bias_correction": "adam"},
}
# Padam's setting carried over to its siblings, which the paper names but does not run. The heavy ball of RMSprop sums
# what Padam's first moment averages, hence a tenth of the step.
_SIBLING = {"lr": 0.1, "partial": 1 / 8, "weight_decay": 5e-4}
_SIBLINGS: Mapping[str, Mapping[str, Any]] = {
    "partial_adam": {**_SIBLING, "betas": (0.9, 0.999), "bias_correction": "adam"},
    "partial_nadam": {**_SIBLING, "betas": (0.9, 0.999)},
    "partial_rmsprop": {**_SIBLING, "lr": 0.01, "alpha": 0.99, "momentum": 0.9},
    "partial_adagrad": _SIBLING,
    "partial_adamax": {**_SIBLING, "betas": (0.9, 0.999)},
    "partial_adadelta": _SIBLING,
    "partial_adabelief": {**_SIBLING, "betas": (0.9, 0.999)},
    "partial_yogi": {**_SIBLING, "betas": (0.9, 0.999)},
}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "default": {name: {} for name in REGISTRY}
        | {name: {"momentum": 0.9} for name in ("sgd", "sgd_nesterov")}
        | {name: {"vectors": "diagonal"} for name in ("partial_muon", "partial_shampoo", "partial_soap")},
        "paper": _PAPER,
        "paper-imagenet": {**_PAPER, "adamw": {**_ADAMW, "normalized_weight_decay": 5e-2}},
        "paper-literal": {"adamw": {**_ADAMW, "weight_decay": 2.5e-2}},
        "paper-siblings": _SIBLINGS,
    }
)
"""Settings by preset and optimizer.

``default`` is each optimizer as documented (SGD with momentum 0.9, without which it would be another method; members of
the family as they take parameters of any shape),
``paper`` what the paper arrived at, ``paper-imagenet`` the same for ImageNet, ``paper-literal`` AdamW with the paper's
number read as torch's `weight_decay`, ``paper-siblings`` Padam's setting on the siblings that the paper names but does
not run.
"""


CATALOGUE = Catalogue(
    "optimizer",
    {entry.name: Item(entry.reference, entry.title) for entry in REGISTRY.values()},
    OPTIMIZERS,
)
"""All names, those that installed distributions give by entry points included."""


def find(name: str) -> Entry:
    """The optimizer called `name`, or the one that ``"module:class"`` names, which need not be the benchmark's.

    That of an entry point has the reference for its name, so that a run says by itself what it was trained by.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    try:
        return _foreign(CATALOGUE.reference(name))
    except ReferenceLookupError as error:
        raise OptimizerError(str(error)) from error


@functools.cache
def _foreign(reference: str) -> Entry:
    return Entry(reference, reference.rpartition(":")[2].rpartition(".")[2], reference)
