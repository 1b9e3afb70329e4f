"""Param groups by the role of a parameter: no decay on norms and biases, an exponent p for each type of module."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

Selector = type[nn.Module] | str | Callable[[nn.Module, Tensor], bool]

_NORM = re.compile(r"([Nn]orm|NORM)(alization)?(?![a-z])")  # LlamaRMSNorm, LayerNorm2d; not Normal, NormedLinear


def named_norm(module: nn.Module, param: Tensor) -> bool:
    """Whether the class has "norm" as a word of its name, and the parameter one dimension at most of more than 1.

    The second leaves the matrix of a `LayerNormLinear` out.
    """
    return bool(_NORM.search(type(module).__name__)) and (is_lazy(param) or sum(size > 1 for size in param.shape) <= 1)


def vector(module: nn.Module, param: Tensor) -> bool:
    """Whether a parameter has fewer than two dimensions, which is what timm and nanoGPT go by; for `no_decay`."""
    return not is_lazy(param) and param.ndim < 2


NORMS: tuple[Selector, ...] = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    named_norm,
)


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    partial: float | Mapping[type[nn.Module] | str, float | None] | None = None,
    no_decay: Sequence[Selector] = NORMS,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into named param groups: biases and norms do not decay, p goes by module or name.

    What counts is a parameter's role, not its shape, which sharding may change. A bias has the word `bias` in its name.
    A norm is one of torch's, or a module whose class has "norm" as a word of its name: `LlamaRMSNorm`, `LayerNorm2d`.
    What a parametrization (`weight_norm`, `orthogonal`, …) keeps has the role of the tensor that is made of it.

    Args:
        model: its parameters, tied ones once and frozen ones too, go into the groups with their names.
        weight_decay: decay of all but the biases and what `no_decay` selects, which get 0; a finite number ≥ 0.
        partial: the exponent p, a number in [0, 1]: one for all, or by type of module or pattern of names, of which
            the first that matches decides (`nn.Module` is for all others). Parameters without one, or with None, take
            the optimizer's.
        no_decay: what else does not decay. Types of modules, their subclasses included, stand for the modules' own
            parameters, strings like `"*.pos_embed"` for the names that match, functions of module and parameter for
            what they return True for. `(*NORMS, "*.pos_embed")` adds to the default, `(*NORMS, vector)` spares all
            vectors; `from partial_adaptive.param_groups import NORMS, vector`.

    Returns:
        Param groups for any optimizer of the family, empty ones left out.

    Raises:
        TypeError: where `model`, a number, a key of `partial` or an entry of `no_decay` is of another type.
        ValueError: where a number is out of its range, or a pattern matches no name.

    Example:
        >>> from partial_adaptive import Padam
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> groups = param_groups(model, weight_decay=5e-4, partial={nn.Linear: 1 / 16})
        >>> [(group["weight_decay"], group.get("partial"), len(group["params"])) for group in groups]
        [(0.0005, None, 1), (0.0, None, 3), (0.0005, 0.0625, 1), (0.0, 0.0625, 1)]
        >>> optimizer = Padam(groups, lr=0.1)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"param_groups: model must be a torch.nn.Module, got {model!r}")
    roles = list(_roles(model))
    exponents: Mapping[Any, Any] = partial if isinstance(partial, Mapping) else {nn.Module: partial}
    _check_number("weight_decay", weight_decay, "a finite number ≥ 0")
    for p in exponents.values():
        if p is not None:
            _check_number("partial", p, "a number in [0, 1]", 1)
    _check_selectors("partial", "a number, or by types of modules and patterns of names", exponents, roles)
    allowed = "a tuple of types of modules, patterns of names and functions of module and parameter"
    if isinstance(no_decay, str) or not isinstance(no_decay, Sequence):
        raise TypeError(f"param_groups: no_decay must be {allowed}, got {no_decay!r}")
    functions = [entry for entry in no_decay if callable(entry) and not isinstance(entry, type | nn.Module)]
    _check_selectors("no_decay", allowed, [entry for entry in no_decay if entry not in functions], roles)

    groups: dict[tuple[float, float | None], dict[str, Any]] = {}
    for role in roles:
        p = next((p for selector, p in exponents.items() if role.matches(selector)), None)
        decay = 0.0 if role.is_bias or any(map(role.matches, no_decay)) else weight_decay
        group = groups.setdefault((decay, p), {"params": [], "weight_decay": decay})
        group["params"].append((role.name, role.param))
        if p is not None:
            group["partial"] = p
    return list(groups.values())


@dataclass(frozen=True)
class _Role:
    """What a parameter is in its model.

    Args:
        param: the parameter.
        name: its name.
        module: the module whose own it is.
        owner: the module that uses it: where it belongs to a parametrization, the one that is parametrized.
        tensor: the name of the tensor that the owner uses.
    """

    param: Tensor
    name: str
    module: nn.Module
    owner: nn.Module
    tensor: str

    @property
    def is_bias(self) -> bool:
        names = (self.name, self.tensor)
        return any("bias" in name.rpartition(".")[2].split("_") for name in names)  # bias, in_proj_bias, bias_ih_l0

    def matches(self, selector: Selector) -> bool:
        if isinstance(selector, str):
            return fnmatchcase(self.name, selector) or fnmatchcase(self.tensor, selector)
        if isinstance(selector, type):
            return isinstance(self.module, selector) or isinstance(self.owner, selector)
        return selector(self.owner, self.param)


def _roles(model: nn.Module) -> Iterator[_Role]:
    """Every parameter once; a tied one as what it is where it comes first."""
    parametrizes: dict[nn.Module, tuple[nn.Module, str]] = {}  # whatever is in a parametrization: owner and tensor
    seen: set[Tensor] = set()
    for prefix, module in model.named_modules():
        if is_parametrized(module):
            for tensor, parametrization in module.parametrizations.items():
                for part in parametrization.modules():
                    parametrizes.setdefault(part, (module, f"{prefix}.{tensor}" if prefix else tensor))
        for name, param in module.named_parameters(prefix, recurse=False):
            if param not in seen:
                seen.add(param)
                yield _Role(param, name, module, *parametrizes.get(module, (module, name)))


def _check_number(name: str, value: Any, allowed: str, high: float = math.inf) -> None:
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    message = f"param_groups: {name} must be {allowed}, got {value!r}"
    if not isinstance(number, Real):
        raise TypeError(message)
    if not (math.isfinite(number) and 0 <= float(number) <= high):
        raise ValueError(message)


def _check_selectors(argument: str, allowed: str, selectors: Iterable[Any], roles: Iterable[_Role]) -> None:
    """Raise an error for what is neither a type of modules nor a pattern that matches some name."""
    for selector in selectors:
        if isinstance(selector, str):
            if not any(role.matches(selector) for role in roles):
                raise ValueError(
                    f"param_groups: {argument}'s patterns must each match the name of a parameter, got {selector!r}"
                )
        elif not (isinstance(selector, type) and issubclass(selector, nn.Module)):
            raise TypeError(f"param_groups: {argument} must be {allowed}, got {selector!r}")
