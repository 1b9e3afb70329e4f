"""param_groups: decay and exponent by the kind of layer."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import partial_adaptive as pa
from partial_adaptive import Padam, param_groups


class Scaled(nn.Module):
    """A layer with a parameter of its own beside those of its children."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.inner = nn.Linear(3, 3)


def model() -> nn.Sequential:
    layers = OrderedDict(
        conv=nn.Conv2d(3, 4, 3),
        batch=nn.BatchNorm2d(4),
        group=nn.GroupNorm(2, 4),
        layer=nn.LayerNorm(4),
        rms=nn.RMSNorm(4),
        embed=nn.Embedding(5, 4),
        attention=nn.MultiheadAttention(4, 2),
        lstm=nn.LSTM(4, 3),
        scaled=Scaled(),
        head=nn.Linear(4, 2),
    )
    return nn.Sequential(layers)


def settings(groups: list[dict]) -> dict[str, tuple[float, float | None]]:
    """(weight_decay, partial) by the name of the parameter."""
    return {name: (g["weight_decay"], g.get("partial")) for g in groups for name, _ in g["params"]}


def test_norms_and_biases_do_not_decay() -> None:
    """By the type of the module, not by the shape: a weight of a norm does not decay, an embedding's does."""
    decay = {name: decay for name, (decay, _) in settings(param_groups(model(), weight_decay=0.1)).items()}
    norms = {f"{norm}.weight" for norm in ("batch", "group", "layer", "rms")}
    biases = {name for name in decay if "bias" in name}  # attention has in_proj_bias, the LSTM bias_ih_l0
    assert {name for name, value in decay.items() if value == 0} == norms | biases
    assert decay["scaled.scale"] == decay["embed.weight"] == 0.1


def test_every_parameter_once() -> None:
    """Nothing is lost, and tied weights are one parameter."""
    tied = model()
    tied.extra = nn.Linear(4, 2)
    tied.extra.weight = tied.head.weight
    groups = param_groups(tied, weight_decay=0.1, partial={nn.Conv2d: 0.25, nn.Linear: 0.0})
    params = [param for group in groups for _, param in group["params"]]
    assert len(params) == len(set(params))
    assert set(params) == set(tied.parameters())
    assert all(group["params"] for group in groups)


def test_exponent_by_layer_type() -> None:
    """The first type that matches decides, subclasses included, `nn.Module` stands for all others."""
    by_type = {nn.Conv2d: 0.25, nn.modules.batchnorm._NormBase: 0.5, nn.Module: 0.0}
    found = settings(param_groups(model(), weight_decay=0.1, partial=by_type))
    assert found["conv.weight"] == (0.1, 0.25)
    assert found["conv.bias"] == (0.0, 0.25)
    assert found["batch.weight"] == (0.0, 0.5)
    assert found["head.weight"] == (0.1, 0.0)


def test_one_exponent_for_all() -> None:
    """A number is for every group; without one the optimizer's own holds."""
    assert {p for _, p in settings(param_groups(model(), weight_decay=0.1, partial=0.3)).values()} == {0.3}
    optimizer = Padam(param_groups(model(), weight_decay=0.1), partial=0.4)
    assert {group["partial"] for group in optimizer.param_groups} == {0.4}


def test_no_decay_by_type() -> None:
    """Types of one's own can be spared from decay, whose children are not."""
    found = settings(param_groups(model(), weight_decay=0.1, no_decay=(Scaled,)))
    assert found["scaled.scale"][0] == 0.0
    assert found["scaled.inner.weight"][0] == 0.1
    assert found["layer.weight"][0] == 0.1


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_for_every_member(name: str) -> None:
    """The groups, named as they are, are what every member takes, and training goes by them."""
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    optimizer = pa.create(name, param_groups(net, weight_decay=0.1, partial={nn.LayerNorm: 0.0}))
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
    assert "sum" not in optimizer.state[net[1].weight]
    assert "exp_avg_sq" not in optimizer.state[net[1].weight]
    assert all("param_names" in group for group in optimizer.state_dict()["param_groups"])
