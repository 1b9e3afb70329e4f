"""Param groups by what a parameter is in its model: decay, exponent, learning rate and member for each role."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

ROLES = ("matrices", "embeddings", "heads", "norms", "biases", "others")


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    partial: float | Mapping[type[nn.Module] | str, float | None] | None = None,
    no_decay: Sequence[Selector] = NORMS,
    lr: float | None = None,
    overrides: Mapping[type[nn.Module] | str, Mapping[str, Any]] | None = None,
    verbose: bool = False,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into named param groups: by role, by type of module, by name.

    A parameter has one of the `ROLES`:

    - biases have the word `bias` in their name;
    - norms are torch's, and modules whose class has "norm" as a word of its name: `LlamaRMSNorm`, `LayerNorm2d`;
    - embeddings are `nn.Embedding` and `nn.EmbeddingBag`, and what has `embed` or `embedding` as a word of its name;
    - heads have `head` or `classifier` as a word of their name or their module's, and so is the model's last matrix;
    - matrices are all others of two or more dimensions, convolutions among them;
    - others are the rest.

    What a parametrization (`weight_norm`, `orthogonal`, …) keeps has the role of the tensor that is made of it, and a
    tied parameter that of the place where it comes first.

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
        lr: learning rate of all groups, times their `lr_factor`; a finite number ≥ 0, None for the optimizer's.
        overrides: further entries of the groups, by role, type of module or pattern of names, of which the first that
            matches a parameter decides: hyperparameters, which win over those above, `member`, and `lr_factor`, by
            which `lr` is multiplied.
        verbose: print what went where, as `describe_groups` has it.

    Returns:
        Param groups for any optimizer of the family, empty ones left out.

    Raises:
        TypeError: where `model`, a number, a key of `partial` or `overrides` or an entry of `no_decay` is of another
            type.
        ValueError: where a number is out of its range, a pattern matches no name, or there is a factor of no `lr`.

    Example:
        >>> from partial_adaptive import Padam
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> groups = param_groups(model, weight_decay=5e-4, partial={nn.Linear: 1 / 16})
        >>> [(group["weight_decay"], group.get("partial"), len(group["params"])) for group in groups]
        [(0.0005, None, 1), (0.0, None, 3), (0.0005, 0.0625, 1), (0.0, 0.0625, 1)]
        >>> optimizer = Padam(groups, lr=0.1)

        Matrices by their singular values, all else by Adam:

        >>> from partial_adaptive import PartialAdam
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 9))
        >>> groups = param_groups(
        ...     model,
        ...     weight_decay=0.1,
        ...     lr=0.01,
        ...     overrides={"matrices": {"member": "partial_muon", "lr_factor": 2.0}, "heads": {"partial": 1 / 2}},
        ...     verbose=True,
        ... )
        group  member        lr    partial  weight_decay  tensors  numbers  names
        0      -             0.01  -        0.1           1        36       0.weight
        1      partial_muon  0.02  -        0.1           1        32       1.weight
        2      -             0.01  -        0             2        17       1.bias, 3.bias
        3      -             0.01  0.5      0.1           1        72       3.weight
        >>> optimizer = PartialAdam(groups)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"param_groups: model must be a torch.nn.Module, got {model!r}")
    roles = list(_with_heads(model))
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

    if lr is not None:
        _check_number("lr", lr, "a finite number ≥ 0, or None")
    overrides = overrides or {}
    _check_overrides(overrides, lr, roles)

    groups: dict[Any, dict[str, Any]] = {}
    for role in roles:
        p = next((p for selector, p in exponents.items() if role.matches(selector)), None)
        decay = 0.0 if role.is_bias or any(map(role.matches, no_decay)) else weight_decay
        override = next((selector for selector in overrides if role.matches(selector)), None)
        group = groups.setdefault((decay, p, override), {"params": [], "weight_decay": decay})
        group["params"].append((role.name, role.param))
        if p is not None:
            group["partial"] = p
        further = {} if override is None else dict(overrides[override])
        factor = further.pop(_FACTOR, None)
        if lr is not None:
            group["lr"] = lr if factor is None else lr * factor
        group |= further
    found = list(groups.values())
    if verbose:
        print(describe_groups(found))  # noqa: T201  # what is asked for
    return found


def describe_groups(groups: Iterable[Mapping[str, Any]]) -> str:
    """What went where, as a table: for each param group its member, its numbers, its size and its names.

    Args:
        groups: what `param_groups` gives, or an optimizer's `param_groups`.

    Example:
        >>> print(describe_groups([{"params": [("weight", nn.Parameter(nn.Linear(2, 3).weight))], "lr": 0.1}]))
        group  member  lr   partial  weight_decay  tensors  numbers  names
        0      -       0.1  -        -             1        6        weight
    """
    rows: list[tuple[str, ...]] = [("group", "member", "lr", "partial", "weight_decay", "tensors", "numbers", "names")]
    for index, group in enumerate(groups):
        params = list(group["params"])
        named = [param if isinstance(param, tuple) else (f"number {i}", param) for i, param in enumerate(params)]
        names = group.get("param_names") or [name for name, _ in named]
        size = sum(0 if is_lazy(param) else param.numel() for _, param in named)
        entries = (group.get(name) for name in rows[0][1:5])
        rows.append((str(index), *map(_shown, entries), str(len(named)), str(size), _shortened(names)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _shown(value: Any) -> str:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    return "-" if value is None else f"{value:g}" if isinstance(value, Real) else str(value)


def _shortened(names: Sequence[str]) -> str:
    """The first names, as many as fit a line."""
    shown = [name for i, name in enumerate(names) if i == 0 or sum(map(len, names[: i + 1])) <= _SHOWN]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(shown) < len(names) else "")


_FACTOR = "lr_factor"
_SHOWN = 60  # characters of the names of a group that are printed


@dataclass(frozen=True)
class _Role:
    """What a parameter is in its model.

    Args:
        param: the parameter.
        name: its name.
        module: the module whose own it is.
        owner: the module that uses it: where it belongs to a parametrization, the one that is parametrized.
        tensor: the name of the tensor that the owner uses.
        last: whether it is the last matrix of the model, or part of what is made into that.
    """

    param: Tensor
    name: str
    module: nn.Module
    owner: nn.Module
    tensor: str
    last: bool = False

    @property
    def is_bias(self) -> bool:
        return self._named("bias")  # bias, in_proj_bias, bias_ih_l0

    @property
    def role(self) -> str:
        if self.is_bias:
            return "biases"
        if any(map(self.matches, NORMS)):
            return "norms"
        if isinstance(self.owner, nn.Embedding | nn.EmbeddingBag) or self._named("embed", "embedding"):
            return "embeddings"
        if self.last or self._named("head", "classifier", parts=2):
            return "heads"
        return "matrices" if self.is_matrix else "others"

    @property
    def is_matrix(self) -> bool:
        return is_lazy(self.param) or self.param.ndim > 1

    def _named(self, *words: str, parts: int = 1) -> bool:
        """Whether one of the words is in the last parts of the name."""
        for name in (self.name, self.tensor):
            last = [part for part in name.split(".") if not part.isdigit()][-parts:]
            if any(word in part.split("_") for part in last for word in words):
                return True
        return False

    def matches(self, selector: Selector) -> bool:
        if isinstance(selector, str) and selector in ROLES:
            return self.role == selector
        if isinstance(selector, str):
            return fnmatchcase(self.name, selector) or fnmatchcase(self.tensor, selector)
        if isinstance(selector, type):
            return isinstance(self.module, selector) or isinstance(self.owner, selector)
        return selector(self.owner, self.param)


def _with_heads(model: nn.Module) -> Iterator[_Role]:
    """Every parameter once, of which the last matrix, as the model has it, is marked."""
    roles = {role.param: role for role in _roles(model)}
    used = (roles[param] for _, param in reversed([*model.named_parameters(remove_duplicate=False)]))
    last = next((role.tensor for role in used if role.is_matrix), None)
    return (replace(role, last=role.tensor == last) for role in roles.values())


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
            if selector not in ROLES and not any(role.matches(selector) for role in roles):
                raise ValueError(
                    f"param_groups: {argument}'s patterns must each match the name of a parameter or be one of "
                    f"{', '.join(ROLES)}, got {selector!r}"
                )
        elif not (isinstance(selector, type) and issubclass(selector, nn.Module)):
            raise TypeError(f"param_groups: {argument} must be {allowed}, got {selector!r}")


def _check_overrides(overrides: Any, lr: Any, roles: Sequence[_Role]) -> None:
    allowed = "entries of param groups by role, type of module or pattern of names"
    if not isinstance(overrides, Mapping) or not all(isinstance(entries, Mapping) for entries in overrides.values()):
        raise TypeError(f"param_groups: overrides must be {allowed}, got {overrides!r}")
    _check_selectors("overrides", allowed, overrides, roles)
    for selector, entries in overrides.items():
        for name in ("params", "param_names"):
            if name in entries:
                raise ValueError(f"param_groups: overrides[{selector!r}] must not have {name!r}, got {entries[name]!r}")
        if _FACTOR in entries:
            _check_number(f"overrides[{selector!r}][{_FACTOR!r}]", entries[_FACTOR], "a finite number ≥ 0")
            if lr is None:
                raise ValueError(f"param_groups: lr must be a number where overrides have an {_FACTOR}, got None")
            if "lr" in entries:
                raise ValueError(
                    f"param_groups: overrides[{selector!r}] must have lr or {_FACTOR}, got {entries['lr']!r} and "
                    f"{entries[_FACTOR]!r}"
                )
