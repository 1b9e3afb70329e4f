"""Every optimizer under test by name: the family, torch.optim's baselines, and the settings to run them with."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.base.errors import BenchmarkError, nearest
from partial_adaptive import registry

# What a run's record states of an optimizer even where nobody chose it, so that every record describes itself. A fixed
# list, because torch adds switches to its signatures over time and a run's identity must not change with them.
_STATED = (
    "lr",
    "partial",
    "momentum",
    "betas",
    "alpha",
    "rho",
    "eps",
    "weight_decay",
    "amsgrad",
    "centered",
    "lr_decay",
    "initial_accumulator_value",
    "momentum_decay",
    "bias_correction",
    "blocks",
    "heads",
    "beta2_decay",
    "d",
    "adjust_lr_fn",
    "vectors",
)


class OptimizerError(BenchmarkError, ValueError):
    """An optimizer, preset or hyperparameter that does not exist, or a value that it does not take."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """An optimizer under test.

    Args:
        name: its name in studies.
        title: its name in tables and figures.
        cls: the class built.
        fixed: the arguments that make it what its name says.
        family: whether it belongs to `partial_adaptive`.
    """

    name: str
    title: str
    cls: Callable[..., torch.optim.Optimizer]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    family: bool = False

    @functools.cached_property
    def signature(self) -> Mapping[str, Any]:
        """The keyword arguments of the constructor with their defaults."""
        parameters = list(inspect.signature(self.cls).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    @functools.cached_property
    def counts(self) -> frozenset[str]:
        """The keyword arguments that take whole numbers alone."""
        parameters = inspect.signature(self.cls).parameters.values()
        return frozenset(parameter.name for parameter in parameters if parameter.annotation is int)

    @property
    def capturable(self) -> bool:
        """Whether its step can be captured in a CUDA graph with a learning rate that changes between replays."""
        return "capturable" in self.signature or self.name == "sgd"


_BASELINES = (
    Entry("sgd", "SGD (momentum)", torch.optim.SGD),
    Entry("adam", "Adam", torch.optim.Adam),
    Entry("amsgrad", "Amsgrad", torch.optim.Adam, {"amsgrad": True}),
    Entry("adamw", "AdamW", torch.optim.AdamW),
    Entry("nadam", "NAdam", torch.optim.NAdam),
    Entry("rmsprop", "RMSprop", torch.optim.RMSprop),
    Entry("adagrad", "Adagrad", torch.optim.Adagrad),
    Entry("adamax", "Adamax", torch.optim.Adamax),
    Entry("adadelta", "Adadelta", torch.optim.Adadelta),
)
_FAMILY = tuple(Entry(name, member.cls.__name__, member.cls, family=True) for name, member in registry.MEMBERS.items())

REGISTRY: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in (*_BASELINES, *_FAMILY)})

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
        | {"sgd": {"momentum": 0.9}}
        | {name: member.options for name, member in registry.MEMBERS.items()},
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


def find(name: str) -> Entry:
    """The optimizer called `name`."""
    if name not in REGISTRY:
        raise OptimizerError(f"unknown optimizer {name!r}{nearest(name, REGISTRY)}")
    return REGISTRY[name]


def normalized_weight_decay(decay: float, lr: float, batch_size: int, examples: int, epochs: int) -> float:
    """torch.optim.AdamW's `weight_decay` for a normalized decay.

    Loshchilov & Hutter (2017) define λ = λ_norm·√(b/(B·T)) for batch size b, B training examples and T epochs, and
    decay by ηₜλθ a step, η being the schedule alone. torch decays by lr·ηₜ·weight_decay·θ, hence weight_decay = λ/lr.
    The paper's 0.025 on CIFAR is 0.025·√(128/(50000·200))/0.001 = 0.0894.
    """
    return decay * math.sqrt(batch_size / (examples * epochs)) / lr


def resolve(
    name: str, preset: str, overrides: Mapping[str, Any], *, batch_size: int, examples: int, epochs: int
) -> dict[str, Any]:
    """The full keyword arguments of a run: documented defaults, then the preset, then `overrides`.

    Args:
        name: the optimizer.
        preset: a key of `PRESETS` that covers the optimizer.
        overrides: keyword arguments of the optimizer, or ``normalized_weight_decay`` in place of ``weight_decay``.
        batch_size: examples per step, for a normalized weight decay.
        examples: training examples, for the same.
        epochs: epochs of the run, for the same.
    """
    entry = find(name)
    if preset not in PRESETS:
        raise OptimizerError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}")
    if name not in PRESETS[preset]:
        raise OptimizerError(f"preset {preset!r} has no setting for {name!r}; it has {', '.join(PRESETS[preset])}")
    chosen = dict(PRESETS[preset][name])
    if {"weight_decay", "normalized_weight_decay"} & overrides.keys():
        chosen.pop("weight_decay", None)
        chosen.pop("normalized_weight_decay", None)
    stated = {key: value for key, value in entry.signature.items() if key in _STATED}
    hyper = {**stated, **entry.fixed, **chosen, **overrides}
    decay = hyper.pop("normalized_weight_decay", None)
    if decay is not None:
        if "weight_decay" in overrides:
            raise OptimizerError(f"{name}: weight_decay and normalized_weight_decay exclude each other")
        hyper["weight_decay"] = normalized_weight_decay(decay, hyper["lr"], batch_size, examples, epochs)
    check(name, hyper)
    # 1 and 1.0 are one setting, and are to be one run; what counts something stays a whole number.
    return {
        key: float(value) if type(value) is int and key not in entry.counts else value for key, value in hyper.items()
    }


def check(name: str, hyper: Mapping[str, Any]) -> None:
    """Raise `OptimizerError` unless the optimizer `name` can be built with `hyper`."""
    entry = find(name)
    for key in hyper:
        if key not in entry.signature:
            raise OptimizerError(f"{name}: unknown hyperparameter {key!r}{nearest(key, entry.signature)}")
        if key in entry.fixed and hyper[key] != entry.fixed[key]:
            raise OptimizerError(f"{name}: {key} is {entry.fixed[key]!r} by definition, got {hyper[key]!r}")
    try:
        build(name, [torch.zeros(1, requires_grad=True)], hyper, capturable=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptimizerError(f"{name}: {error}") from error


def build(
    name: str, params: Iterable[torch.Tensor], hyper: Mapping[str, Any], *, capturable: bool
) -> torch.optim.Optimizer:
    """The optimizer `name` over `params`.

    Args:
        name: a key of `REGISTRY`.
        params: the parameters to train.
        hyper: keyword arguments of its constructor.
        capturable: make the step fit for a CUDA graph where `Entry.capturable`: the learning rate becomes a tensor, so
            that a schedule that fills it in place is seen by the next replay.
    """
    entry = find(name)
    params = list(params)
    arguments: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in hyper.items()
    }
    arguments |= entry.fixed
    if capturable and entry.capturable:
        arguments["lr"] = torch.tensor(float(arguments["lr"]), device=params[0].device)
        # torch's SGD has no such switch; of its kernels only the fused one reads the rate on the device.
        arguments["fused" if name == "sgd" else "capturable"] = True
    return entry.cls(params, **arguments)
