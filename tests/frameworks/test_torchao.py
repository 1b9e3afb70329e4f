"""Every member in torchao's CPUOffloadOptimizer, with the CPU in the place of the GPU."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from family import in_modes, maker
from torch import nn
from torchao.optim import CPUOffloadOptimizer, cpu_offload

import partial_adaptive as pa


class Stream:
    """What happens on it has happened at once."""

    def wait_stream(self, _: "Stream") -> None: ...

    def synchronize(self) -> None: ...

    def record_event(self) -> "Stream":
        return self


class Torch:
    """The module torch, with streams and pinned memory that need no GPU."""

    cuda = SimpleNamespace(Stream=Stream, current_stream=Stream, stream=lambda _: nullcontext())

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def empty_like(tensor: torch.Tensor, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return torch.empty_like(tensor, **options)


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [{"foreach": False}, {"fused": True}]))
def test_members(name: str, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It steps each large parameter by an optimizer of its own: the values are those of one for all, to the bit."""
    monkeypatch.setattr(cpu_offload, "torch", Torch())
    monkeypatch.setattr(cpu_offload, "get_available_devices", lambda: ["cpu", "cuda"])
    models = []
    for offloaded in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 4))
        groups = pa.param_groups(model, weight_decay=0.01)
        for group in groups:
            group["params"] = [param for _, param in group["params"]]
        make = maker(name, lr=0.01, **mode)
        optimizer: Any = CPUOffloadOptimizer(groups, make, minimal_size=64) if offloaded else make(groups)
        if offloaded:
            assert len(optimizer.optim_dict) == 2
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        for step in range(5):
            model(torch.randn(4, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        models.append(model)
    assert all(map(torch.equal, *(model.parameters() for model in models)))
