"""Every member under timm's factory, by its registered name."""

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from timm.optim import OptimInfo, create_optimizer_v2
from timm.optim._optim_factory import default_registry
from timm.scheduler import create_scheduler_v2
from torch import nn

import partial_adaptive as pa

NAMES = {member.name: member.name.replace("_", "") for member in pa.MEMBERS.values()}
OPTIONS: dict[str, Any] = {"lr": 0.01, "partial": 1 / 4}


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family in a copy of timm's registry."""
    monkeypatch.setattr(default_registry, "_optimizers", dict(default_registry._optimizers))
    pa.register_timm()


def build() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=4, **sizes)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(2, 3, 16, 16, generator=generator)).square().mean().backward()
        optimizer.step()


def momentum(optimizer: type) -> Iterator[tuple[str, float]]:
    """The value that timm gives it, for those that have one."""
    if "momentum" in optimizer([torch.zeros(1, 1)]).defaults:
        yield "momentum", 0.9


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_members(name: str) -> None:
    """What timm makes is the member: it steps as one does that is made from timm's groups by hand."""
    member = pa.MEMBERS[name]
    model, other = build(), build()
    optimizer = create_optimizer_v2(model, opt=NAMES[name], weight_decay=0.05, **OPTIONS)
    assert type(optimizer) is member.cls
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.05]
    groups = timm.optim.param_groups_weight_decay(other, 0.05, no_weight_decay_list=other.no_weight_decay())
    options = {**member.options, **OPTIONS, **dict(momentum(member.cls))}
    train(model, optimizer, range(3))
    train(other, member.cls(groups, **options), range(3))
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_layer_decay(name: str) -> None:
    """Learning rates are scaled by layer by timm's schedulers, for which the groups keep `lr_scale`."""
    optimizer = create_optimizer_v2(build(), opt=NAMES[name], layer_decay=0.5, **OPTIONS)
    create_scheduler_v2(optimizer, "cosine", num_epochs=4)[0].step(1)
    rates = {group["lr"] / group["lr_scale"] for group in optimizer.param_groups}
    assert len({group["lr"] for group in optimizer.param_groups}) == 3
    assert max(rates) - min(rates) < 1e-12


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_lookahead(name: str) -> None:
    """The wrapper that timm's prefix asks for goes on from a checkpoint bit for bit."""
    model, other = build(), build()
    optimizer = create_optimizer_v2(model, opt=f"lookahead_{NAMES[name]}", **OPTIONS)
    train(model, optimizer, range(3))
    other.load_state_dict(model.state_dict())
    resumed = create_optimizer_v2(other, opt=f"lookahead_{NAMES[name]}", **OPTIONS)
    resumed.load_state_dict(optimizer.state_dict())
    train(model, optimizer, range(3, 7))
    train(other, resumed, range(3, 7))
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_names_with_underscores() -> None:
    """What timm takes `partial_adam` for is torch's Adam, as the page warns; the names here have none."""
    assert type(create_optimizer_v2(build(), opt="partial_adam", lr=0.01)) is torch.optim.Adam


def test_again() -> None:
    """A second registration changes nothing; another optimizer under a name of ours is not replaced."""
    assert pa.register_timm() == tuple(NAMES.values())
    default_registry._optimizers["padam"] = OptimInfo("padam", torch.optim.SGD)
    with pytest.raises(ValueError, match="must not have optimizers of these names yet, got padam"):
        pa.register_timm()
