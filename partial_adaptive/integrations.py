"""The family in other libraries' registries. A library is imported where it is asked for, and not before."""

import inspect
from typing import Any

from partial_adaptive.registry import MEMBERS, Member

__all__ = ["register_timm"]


def register_timm() -> tuple[str, ...]:
    """Register every member with timm, so that its `create_optimizer_v2` and its training script make them by name.

    `create_optimizer_v2(model, opt="partialadam", lr=1e-3, partial=1 / 2)` makes one then. Of a name timm reads what
    follows the last underscore, of `partial_adam` it reads `adam`, and gives another optimizer without a word. So names
    have no underscores here: `padam`, `partialadam`, `partialadammini`, …. timm's prefix `lookahead_` works with them.
    PartialMuon, PartialShampoo and PartialSOAP are registered with `vectors="diagonal"`, under which
    they take parameters of any shape. Members with an argument `momentum` get timm's default of it, 0.9.

    Returns:
        The names. To call it again changes nothing.

    Raises:
        ImportError: where there is no timm, or one without a registry of optimizers (before 1.0.12).
        ValueError: where timm has another optimizer of such a name.

    Example:
        >>> try:
        ...     assert "partialadam" in register_timm()
        ... except ImportError as error:
        ...     assert "pip install 'timm>=1.0.12'" in str(error)

    timm: https://huggingface.co/docs/timm.
    """
    try:
        from timm.optim import OptimInfo
        from timm.optim._optim_factory import default_registry
    except ImportError as error:
        raise ImportError(f"register_timm needs timm's registry: pip install 'timm>=1.0.12'; {error}") from error
    infos = [OptimInfo(**_described(member)) for member in MEMBERS.values()]
    known = {name: default_registry.get_optimizer_info(name) for name in default_registry.list_optimizers()}
    taken = [info.name for info in infos if info.name in known and known[info.name] != info]
    if taken:
        raise ValueError(f"register_timm: timm must not have optimizers of these names yet, got {', '.join(taken)}")
    for info in infos:
        if info.name not in known:
            default_registry.register(info)
    return tuple(info.name for info in infos)


def _described(member: Member) -> dict[str, Any]:
    """A member as timm describes an optimizer; it drops `eps` and `betas` for those that do not take them."""
    arguments = inspect.signature(member.cls).parameters
    return {
        "name": member.name.replace("_", ""),
        "opt_class": member.cls,
        "description": member.description,
        **{f"has_{name}": name in arguments for name in ("eps", "betas", "momentum")},
        "defaults": dict(member.options),
    }
