"""Param groups by the kind of layer: no decay on norms and biases, and an exponent p for each type of module."""

from collections.abc import Mapping
from typing import Any

from torch import nn

NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    partial: float | Mapping[type[nn.Module], float] | None = None,
    no_decay: tuple[type[nn.Module], ...] = NORMS,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into named param groups by what their layers call for.

    Args:
        model: its parameters, tied ones once, go into the groups with their names.
        weight_decay: decay of everything but biases and the parameters of `no_decay` modules, which get 0.
        partial: the exponent p for all, or by type of module (the first that matches; `nn.Module` for all others). The
            parameters of modules without one take the optimizer's.
        no_decay: types of modules, their subclasses included, whose own parameters do not decay.

    Returns:
        Param groups for any optimizer of the family, empty ones left out.

    Example:
        >>> from partial_adaptive import Padam
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
        >>> groups = param_groups(model, weight_decay=5e-4, partial={nn.Linear: 1 / 16})
        >>> [(group["weight_decay"], group.get("partial"), len(group["params"])) for group in groups]
        [(0.0005, None, 1), (0.0, None, 3), (0.0005, 0.0625, 1), (0.0, 0.0625, 1)]
        >>> optimizer = Padam(groups, lr=0.1)
    """
    by_type = partial if isinstance(partial, Mapping) else {} if partial is None else {nn.Module: partial}
    groups: dict[tuple[float, float | None], dict[str, Any]] = {}
    seen = set()
    for prefix, module in model.named_modules():
        p = next((p for kind, p in by_type.items() if isinstance(module, kind)), None)
        for name, param in module.named_parameters(prefix, recurse=False):
            if param in seen:
                continue
            seen.add(param)
            is_bias = "bias" in name.rpartition(".")[2].split("_")  # bias, in_proj_bias, bias_ih_l0
            decay = 0.0 if is_bias or isinstance(module, no_decay) else weight_decay
            group = groups.setdefault((decay, p), {"params": [], "weight_decay": decay})
            group["params"].append((name, param))
            if p is not None:
                group["partial"] = p
    return list(groups.values())
