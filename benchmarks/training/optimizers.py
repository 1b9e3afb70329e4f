"""The optimizers of a run: their settings resolved and checked, and the optimizer built over a model's parameters."""

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.base.errors import nearest
from benchmarks.training.catalogue import PRESETS, REGISTRY, Entry, OptimizerError, find

__all__ = [
    "PRESETS",
    "REGISTRY",
    "Entry",
    "OptimizerError",
    "build",
    "captures",
    "check",
    "find",
    "needs_closure",
    "preset_of",
    "resolve",
]

BETAS = ("beta1", "beta2")
"""The entries of ``betas``, as schedules name them."""

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


def normalized_weight_decay(decay: float, lr: float, batch_size: int, examples: int, epochs: int) -> float:
    """torch.optim.AdamW's `weight_decay` for a normalized decay.

    Loshchilov & Hutter (2017) define λ = λ_norm·√(b/(B·T)) for batch size b, B training examples and T epochs, and
    decay by ηₜλθ a step, η being the schedule alone. torch decays by lr·ηₜ·weight_decay·θ, hence weight_decay = λ/lr.
    The paper's 0.025 on CIFAR is 0.025·√(128/(50000·200))/0.001 = 0.0894.
    """
    return decay * math.sqrt(batch_size / (examples * epochs)) / lr


def resolve(
    name: str,
    preset: str,
    overrides: Mapping[str, Any],
    *,
    batch_size: int,
    examples: int,
    epochs: int,
    trusted: bool = False,
) -> dict[str, Any]:
    """The full keyword arguments of a run: documented defaults, then the preset, then `overrides`.

    Args:
        name: the optimizer.
        preset: a key of `PRESETS` that covers the optimizer; of one that is not the benchmark's own, ``"default"``.
        overrides: keyword arguments of the optimizer, or ``normalized_weight_decay`` in place of ``weight_decay``.
        batch_size: examples per step, for a normalized weight decay.
        examples: training examples, for the same.
        epochs: epochs of the run, for the same.
        trusted: whether the optimizer is known to take such settings, so that it need not be built to see.
    """
    entry = find(name)
    chosen = dict(preset_of(entry, preset))
    if {"weight_decay", "normalized_weight_decay"} & overrides.keys():
        chosen.pop("weight_decay", None)
        chosen.pop("normalized_weight_decay", None)
    stated = {key: value for key, value in entry.defaults.items() if key in _STATED and _plain(value)}
    hyper = {**stated, **entry.fixed, **chosen, **overrides}
    decay = hyper.pop("normalized_weight_decay", None)
    if decay is not None:
        if "weight_decay" in overrides:
            raise OptimizerError(f"{name}: weight_decay and normalized_weight_decay exclude each other")
        if "lr" not in hyper:
            raise OptimizerError(f"{name}: normalized_weight_decay is defined by lr, which it does not have")
        hyper["weight_decay"] = normalized_weight_decay(decay, hyper["lr"], batch_size, examples, epochs)
    if not trusted:
        check(name, hyper)
    return {key: entry.plain(key, value) for key, value in hyper.items()}


def preset_of(entry: Entry, preset: str) -> Mapping[str, Any]:
    """The settings that a preset has for an optimizer: none of ``"default"`` for one that is not the benchmark's own.

    Raises:
        OptimizerError: there is no such preset, or it does not cover the optimizer.
    """
    if preset not in PRESETS:
        raise OptimizerError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}")
    settings = PRESETS[preset] if not entry.foreign or preset != "default" else {entry.name: {}}
    if entry.name not in settings:
        raise OptimizerError(f"preset {preset!r} has no setting for {entry.name!r}; it has {', '.join(settings)}")
    return settings[entry.name]


def _plain(value: Any) -> bool:
    """Whether JSON has the value."""
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def check(name: str, hyper: Mapping[str, Any], groups: Sequence[Mapping[str, Any]] = ()) -> None:
    """Raise `OptimizerError` unless the optimizer `name` can be built with `hyper`.

    Args:
        name: the optimizer.
        hyper: its keyword arguments.
        groups: hyperparameters of parameter groups of their own.
    """
    entry = find(name)
    _check_names(entry, hyper)
    for key in hyper.keys() & entry.fixed.keys():
        if hyper[key] != entry.fixed[key]:
            raise OptimizerError(f"{name}: {key} is {entry.fixed[key]!r} by definition, got {hyper[key]!r}")
    for key, default in entry.defaults.items():
        given = hyper.get(key, default)
        if isinstance(default, tuple) and not (isinstance(given, list | tuple) and len(given) == len(default)):
            raise OptimizerError(f"{name}: {key} must be {len(default)} values, as in {list(default)}, got {given!r}")
    for own in groups:
        member = own.get("member") if entry.family else None
        if member is None:
            check(name, {**hyper, **own})  # torch's classes look at no group's values, only at those of the constructor
        elif member in REGISTRY and REGISTRY[member].family:
            _check_names(REGISTRY[member], {key: value for key, value in own.items() if key != "member"})
    example(name, hyper, groups)


def example(name: str, hyper: Mapping[str, Any], groups: Sequence[Mapping[str, Any]] = ()) -> torch.optim.Optimizer:
    """The optimizer over parameters of nobody's, with a last group for what `groups` do not take.

    Raises:
        OptimizerError: it cannot be built.
    """
    rest = torch.zeros(1, requires_grad=True)
    listed = [{"params": [torch.zeros(2, 2, requires_grad=True)], **own} for own in groups]
    try:
        return build(name, [*listed, {"params": [rest]}] if groups else [rest], hyper)
    except OptimizerError:
        raise
    except Exception as error:  # whatever a class of somebody else raises
        raise OptimizerError(f"{name}: {str(error) or repr(error)}") from error


def _check_names(entry: Entry, hyper: Mapping[str, Any]) -> None:
    for key in hyper:
        if key not in entry.parameters and not entry.open:
            raise OptimizerError(f"{entry.name}: unknown hyperparameter {key!r}{nearest(key, entry.parameters)}")


def build(
    name: str,
    params: Iterable[Tensor] | Iterable[dict[str, Any]],
    hyper: Mapping[str, Any],
    *,
    capturable: bool = False,
    moving: Iterable[str] = (),
) -> torch.optim.Optimizer:
    """The optimizer `name` over `params`.

    Args:
        name: a name of the catalogue, or ``"module:class"``.
        params: the parameters to train, or groups of them with their own hyperparameters.
        hyper: keyword arguments of its constructor.
        capturable: make the step fit for a CUDA graph where `captures`: the learning rate becomes a tensor, so that a
            schedule that fills it in place is seen by the next replay.
        moving: hyperparameters that a schedule moves, which become tensors as well.
    """
    entry = find(name)
    arguments = _arguments(hyper) | dict(entry.fixed)
    given: list[Any] = [_arguments(one) if isinstance(one, dict) else one for one in params]
    groups = given if isinstance(given[0], dict) else [{"params": given}]
    if capturable and entry.capturable:
        moving = {"lr", *moving}
        keys = {"betas" if name in BETAS else name for name in moving}
        arguments = {key: entry.defaults[key] for key in keys if key in entry.defaults} | arguments
        for values in (arguments, *groups):
            _as_tensors(values, moving, groups[0]["params"][0].device)
        # torch's SGD has no such switch; of its kernels only the fused one reads the rate on the device.
        arguments["capturable" if "capturable" in entry.parameters else "fused"] = True
    optimizer = entry.cls(given, **arguments)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise OptimizerError(f"optimizer {name!r} must make a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return optimizer


def captures(name: str, moving: Iterable[str] = ()) -> bool:
    """Whether the step can be captured in a CUDA graph while schedules move these hyperparameters.

    What moves is read from a tensor: torch's optimizers have one for the learning rate alone.
    """
    entry = find(name)
    return entry.capturable and set(moving) <= ({"lr", "partial", *BETAS} if entry.family else {"lr"})


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step has to evaluate the model again, as L-BFGS's does."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _arguments(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments from a configuration, in which tuples are lists."""
    return {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in hyper.items()}


def _as_tensors(values: dict[str, Any], names: Iterable[str], device: torch.device) -> None:
    """Make the hyperparameters of these names tensors; `beta1` and `beta2` are the entries of `betas`."""
    for name in names:
        if name in BETAS and "betas" in values:
            betas = list(values["betas"])
            place = BETAS.index(name)
            betas[place] = torch.tensor(float(betas[place]), device=device)
            values["betas"] = tuple(betas)
        elif name in values:
            values[name] = torch.tensor(float(values[name]), device=device)
