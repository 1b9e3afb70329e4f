"""A stand-in for a CUDA graph on the CPU: kernels recorded once, then replayed on the same memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Tape(TorchDispatchMode):
    """Records every kernel with the tensors that it reads and writes.

    Reading on the host a value that the step computes is an error, as on a GPU. Values from outside (a learning rate on
    the CPU) may be looked at; a step that keeps what it saw gives itself away when the value changes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.computed: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and _storage(args[0]) in self.computed:
            raise RuntimeError("the captured step waits for a value on the device")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        self.computed |= {_storage(x) for x in tree_leaves(result) if isinstance(x, Tensor)}
        return result

    def replay(self) -> None:
        """Runs the kernels again: no Python of the step, the same memory."""
        with torch.no_grad():
            for func, args, kwargs, result in self.calls:
                inputs = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and _storage(old) not in inputs:
                        old.copy_(new)


def capture_on_cpu(generator: torch.Generator) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Takes the place of `benchmarks.training.step.cuda_graph`. Recording executes, so the first replay does not."""

    def capture(body: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            body()
        replays = 0

        def replay() -> None:
            nonlocal replays
            if replays:
                tape.replay()
            replays += 1

        return replay

    return capture
