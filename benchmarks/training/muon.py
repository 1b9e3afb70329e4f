"""torch's Muon for the matrices of a network, and AdamW for everything else, as one optimizer."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

import torch
from torch import Tensor
from typing_extensions import override


class MuonAndAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` on parameters of two dimensions, `torch.optim.AdamW` on all others.

    Muon's update is scaled by default to the size of AdamW's (Liu et al., 2025), so that one learning rate and one
    decay serve both. Each given group becomes up to two, with the matrices in the first.

    Args:
        params: parameters or groups of them.
        lr: learning rate of both, at least 0.
        weight_decay: decoupled decay of both, at least 0.
        momentum: Muon's, in [0, 1).
        nesterov: whether Muon's momentum is Nesterov's.
        ns_steps: Newton–Schulz iterations of Muon, at least 1.
        adjust_lr_fn: how Muon's update is scaled by the shape of a matrix: ``"match_rms_adamw"`` or ``"original"``.
        betas: AdamW's decay rates, in [0, 1).
        eps: AdamW's, at least 0.

    Raises:
        RuntimeError: torch is older than 2.9, and has no Muon.
        ValueError: where torch's classes refuse a value.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(f"torch.optim.Muon came with torch 2.9, this is {torch.__version__}")
        given = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "betas": betas,
            "eps": eps,
        }
        groups = list(params)
        super().__init__(_split(groups if isinstance(groups[0], dict) else [{"params": groups}]), given)
        # Each part has its own class take the step, over the groups and the state of this one.
        self._parts: dict[bool, torch.optim.Optimizer] = {}
        for group in self.param_groups:
            muon = torch.optim.Muon([torch.zeros(1, 1)], **{key: group[key] for key in _MUON})
            adamw = torch.optim.AdamW([torch.zeros(1)], **{key: group[key] for key in _ADAMW})
            if group["matrices"]:
                group["eps"] = muon.defaults["eps"]
            for key, value in (adamw.defaults | muon.defaults).items():
                group.setdefault(key, value)
            self._parts = {True: muon, False: adamw}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @override
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step with both; `closure` evaluates the model again before it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for matrices, part in self._parts.items():
            part.param_groups = [group for group in self.param_groups if group["matrices"] == matrices]
            part.state = self.state
            part.step()
        return loss


_MUON = ("lr", "weight_decay", "momentum", "nesterov", "ns_steps", "adjust_lr_fn")
_ADAMW = ("lr", "weight_decay", "betas", "eps")


def _split(groups: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The groups, each as one of matrices and one of the rest; empty ones left out."""
    for group in groups:
        params: list[Tensor] = list(group["params"])
        for matrices in (True, False):
            chosen = [p for p in params if (p.ndim == 2) == matrices]
            if chosen:
                yield {**group, "params": chosen, "matrices": matrices}
