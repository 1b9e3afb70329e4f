"""An exponential average of the weights, to be judged beside them."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """A copy of a model that follows it: θ̄ ← decay·θ̄ + (1 − decay)·θ after each step, from the initial weights on.

    The statistics of batch norm are averaged as the weights are; whole numbers among the buffers are copied. Its update
    runs on the device alone, so that it can be captured in a CUDA graph, which
    `torch.optim.swa_utils.AveragedModel` cannot: its number of averaged models is looked at on the host.

    Args:
        model: the model to follow.
        decay: per step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self._update = get_ema_multi_avg_fn(decay)
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averaged = [
            [pair for pair in floating if pair[0].dtype == dtype] for dtype in {pair[0].dtype for pair in floating}
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model by a step."""
        for pairs in self._averaged:
            ours, theirs = zip(*pairs, strict=True)
            self._update(ours, theirs, 0)
        for mine, original in self._copied:
            mine.copy_(original)

    def state_dict(self) -> dict[str, Any]:
        """The average, for a checkpoint."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's average."""
        self.model.load_state_dict(state)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in model.parameters()), *model.buffers()]
