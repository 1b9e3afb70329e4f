"""Training of small models in some environment, beside the same training on one process with plain tensors."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from family import maker
from torch import Tensor, nn
from torch.optim import Optimizer

from partial_adaptive.testing.harness import same, values

STEPS = 3
ROWS = 8  # of a batch, over all processes
FEATURES = 6
EXACT = 1e-12  # of the largest element: gradients are summed in another order
CLIP = 0.01  # of the gradients' norm, which is larger

ON_CPU = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream(), "record_event"), reason="FSDP2 of this torch is for accelerators only"
)

Mode = dict[str, Any]
Hook = Callable[[], object]


class Net(nn.Module):
    """Weights with an even and an uneven number of rows, and one with fewer than there are processes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.even = nn.Linear(FEATURES, 4, dtype=torch.float64)
        self.uneven = nn.Linear(4, 5, dtype=torch.float64)
        self.single = nn.Linear(5, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.single(torch.tanh(self.uneven(torch.tanh(self.even(x))))).square().mean()


class Block(nn.Module):
    """What tensor parallelism takes: a norm, up, down."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        hidden = 5  # uneven
        self.norm = nn.LayerNorm(FEATURES, dtype=torch.float64)
        self.up = nn.Linear(FEATURES, hidden, dtype=torch.float64)
        self.down = nn.Linear(hidden, FEATURES, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(self.norm(x)))).square().mean()


def batch(step: int, part: int = 0, parts: int = 1, micro: int = 0) -> Tensor:
    """The rows of a batch that are one process's; of its micro-batches one."""
    generator = torch.Generator().manual_seed(100 * step + micro)
    rows = torch.randn(ROWS, FEATURES, dtype=torch.float64, generator=generator)
    return rows.chunk(parts)[part]


def mine(step: int, micro: int = 0) -> Tensor:
    """Of a batch what is this process's."""
    return batch(step, dist.get_rank(), dist.get_world_size(), micro)


@cache
def expected(name: str, *, model: type[nn.Module] = Net, accumulate: bool = False, clip: bool = False) -> list[Tensor]:
    """Where training on one process ends."""
    net = model()
    optimizer = maker(name)(net.parameters(), foreach=False)
    for step in range(STEPS):
        optimizer.zero_grad()
        for micro in range(2 if accumulate else 1):
            net(batch(step, micro=micro)).backward()
        if clip:
            assert nn.utils.clip_grad_norm_(net.parameters(), CLIP) > CLIP, "nothing is clipped"
        optimizer.step()
    return values(net.parameters())


def train(net: nn.Module, optimizer: Optimizer, between: Hook = lambda: None) -> None:
    """Train on this process's part of each batch, with a function called between gradients and step."""
    for step in range(STEPS):
        optimizer.zero_grad()
        net(mine(step)).backward()
        between()
        optimizer.step()


def whole(params: Iterable[Tensor]) -> Iterator[Tensor]:
    """Plain tensors, gathered where they are distributed."""
    for param in params:
        yield (param.full_tensor() if hasattr(param, "full_tensor") else param).detach()


def assert_as_expected(params: Iterable[Tensor], right: list[Tensor], tolerance: float = EXACT) -> None:
    """Raise AssertionError where training has ended elsewhere."""
    same([*whole(params)], right, "training on several processes ends elsewhere", tolerance)
