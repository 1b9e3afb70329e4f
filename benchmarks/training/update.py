"""One update of the weights: from the loss of a batch to the optimizer's step, whatever that asks for."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.training.optimizers import OptimizerError, needs_closure

Loss = Callable[[], tuple[Tensor, Tensor]]
"""Evaluates a batch: its loss, and the means that are recorded."""


class PrecisionError(BenchmarkError, RuntimeError):
    """A precision in which this model, device or optimizer does not train."""


class Update:
    """Zeroes the gradients, evaluates the batch, clips, and takes the optimizer's step.

    An optimizer whose step needs a closure may evaluate the batch several times, each time with the same draws. Batch
    norm's statistics and what is recorded are those of the first evaluation, as for every other optimizer.

    Args:
        config: the run, of which `precision` and `clip_norm` count.
        model: what is trained.
        optimizer: over its parameters.
        draws: the generator that a loss draws from.
    """

    def __init__(
        self, config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, draws: torch.Generator
    ) -> None:
        self._model, self._optimizer, self._draws = model, optimizer, draws
        self._name, self._clip_norm = config.optimizer, config.clip_norm
        self._scaler = torch.amp.GradScaler(draws.device.type, enabled=config.precision == "fp16")
        self._repeats = needs_closure(optimizer)
        self.optimizer_s = 0.0
        """Seconds that the optimizer took on the host, without evaluations of the loss."""
        if self._repeats and self._scaler.is_enabled():
            raise PrecisionError(
                f"precision: fp16 scales gradients, which the closures of {config.optimizer} do not allow; use bf16"
            )

    def __call__(self, loss: Loss) -> Tensor:
        """Take one step; the means to be recorded."""
        return self._repeated(loss) if self._repeats else self._once(loss)

    def _once(self, loss: Loss) -> Tensor:
        _, means = self._backward(loss)
        started = time.perf_counter()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.optimizer_s += time.perf_counter() - started
        return means

    def _repeated(self, loss: Loss) -> Tensor:
        draws = self._draws.get_state()
        first: list[Tensor] = []
        buffers: list[Tensor] = []
        evaluating = 0.0

        def closure() -> Tensor:
            nonlocal evaluating
            started = time.perf_counter()
            self._draws.set_state(draws)
            value, means = self._backward(loss)
            if not first:
                first.append(means)
                buffers.extend(buffer.clone() for buffer in self._model.buffers())
            # A line search must come to the same end in all processes.
            value = distributed.add(value.detach().clone()).div_(distributed.world())
            evaluating += time.perf_counter() - started
            return value

        started = time.perf_counter()
        self._optimizer.step(closure)  # type: ignore[arg-type]  # torch's own says float, and is given tensors
        if not first:
            raise OptimizerError(f"{self._name}: step must call the closure that it asks for")
        for buffer, value in zip(self._model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        self.optimizer_s += time.perf_counter() - started - evaluating
        return first[0]

    def _backward(self, loss: Loss) -> tuple[Tensor, Tensor]:
        """The gradients of a batch, clipped."""
        self._optimizer.zero_grad(set_to_none=True)
        with self._explained():
            value, means = loss()
            self._scaler.scale(value).backward()
        if self._clip_norm:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
        return value, means

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Says what an operation that a CPU does not have in float16 means."""
        try:
            yield
        except RuntimeError as error:
            if self._scaler.is_enabled() and self._draws.device.type == "cpu":
                raise PrecisionError(
                    f"precision: fp16 does not train this model on a CPU ({error}); use bf16"
                ) from error
            raise

    def state_dict(self) -> dict[str, Any]:
        """The scale of the gradients, for a checkpoint; empty without one."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a checkpoint's scale."""
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state)


@contextlib.contextmanager
def judging(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the weights are those that an optimizer with `train` and `eval` wants to be judged by."""
    switch(optimizer, "eval")
    try:
        yield
    finally:
        switch(optimizer, "train")


def switch(optimizer: torch.optim.Optimizer, mode: str) -> None:
    """Calls the optimizer's method ``"train"`` or ``"eval"``, as Schedule-Free has them, if it has both."""
    if all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
        getattr(optimizer, mode)()
