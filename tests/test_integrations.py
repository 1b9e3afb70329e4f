"""The family in other libraries' hands: what can be tested without them. The rest is in tests/frameworks."""

import copy
import sys
from typing import Any

import pytest
import torch
from family import in_modes, maker
from torch import nn
from torch.nn import Parameter

import partial_adaptive as pa


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no timm is told what to install."""
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(ImportError, match=r"needs timm's registry: pip install 'timm>=1.0.12'"):
        pa.register_timm()


@pytest.mark.parametrize("name", pa.MEMBERS)
def test_defaults_of_a_wrapper(name: str) -> None:
    """Wrappers keep entries of their own among the defaults and in the groups; loading and copying leave them alone.

    timm's Lookahead does it: to load was a TypeError for an unexpected hyperparameter.
    """
    weight = Parameter(torch.ones(3, 2))
    optimizer = maker(name)([weight])
    optimizer.defaults["lookahead_k"] = 6
    optimizer.param_groups[0]["lookahead_k"] = 5
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    copied = copy.deepcopy(optimizer)
    for each in (optimizer, copied):
        assert (each.defaults["lookahead_k"], each.param_groups[0]["lookahead_k"]) == (6, 5)
        each.step()


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [{"foreach": False}, {"fused": True}]))
def test_step_in_the_backward(name: str, mode: dict[str, Any]) -> None:
    """An optimizer for each parameter, stepped when its gradient is complete, gives the bits of the ordinary loop."""
    make = maker(name, lr=0.01, **mode)
    models = []
    for in_backward in (False, True):
        torch.manual_seed(0)
        tied = nn.Linear(4, 4)
        model = nn.Sequential(tied, nn.Tanh(), tied, nn.LayerNorm(4), nn.Linear(4, 2))
        groups = pa.param_groups(model, weight_decay=0.01)
        whole = None if in_backward else make(groups)
        for group in groups if in_backward else ():
            for named in group["params"]:
                optimizer = make([{**group, "params": [named]}])

                def step(_: Parameter, optimizer: pa.PartialAdaptiveOptimizer = optimizer) -> None:
                    optimizer.step()
                    optimizer.zero_grad()

                named[1].register_post_accumulate_grad_hook(step)
        for index in range(4):
            inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(index))
            model(inputs).square().mean().backward()
            if whole is not None:
                whole.step()
                whole.zero_grad()
            assert all(param.grad is None for param in model.parameters())
        models.append(model)
    assert all(map(torch.equal, *(model.parameters() for model in models)))
