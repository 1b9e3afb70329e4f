"""Randomness inside a model: dropout that draws from the run's own generator, and a refusal of all that cannot."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.workloads.workload import WorkloadError

_DRAWING = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


class Dropout(nn.Dropout):
    """Dropout that draws from the generator of the batch, not from torch's global one, so that runs can be resumed."""

    generator: torch.Generator | None = None

    @override
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.p
        return x * kept / (1 - self.p)


def own(model: nn.Module) -> None:
    """Put `Dropout` in the place of torch's.

    Raises:
        WorkloadError: another module of the model draws from torch's global generator as it is trained.
    """
    for name, module in list(model.named_modules()):
        for key, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, key, Dropout(child.p))
        derived = isinstance(module, nn.Dropout) and type(module) not in (nn.Dropout, Dropout)
        inside = isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0
        if derived or inside or isinstance(module, _DRAWING):
            raise WorkloadError(
                f"the model's {name or 'top'} ({type(module).__name__}) draws at random from torch's global generator, "
                "so that an interrupted run could not be resumed: set its dropout to 0, or use nn.Dropout"
            )


@contextlib.contextmanager
def drawing_from(generator: torch.Generator, model: nn.Module) -> Iterator[None]:
    """Inside, every `Dropout` of the model draws from `generator`."""
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None
