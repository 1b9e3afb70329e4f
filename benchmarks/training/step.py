"""One training step on static tensors, run eagerly or captured in a CUDA graph and replayed."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

WARM_UP = 3  # eager steps before a capture: they create the optimizer's state and let cuDNN choose its kernels

Batch = tuple[Tensor, ...]
Capture = Callable[[Callable[[], None]], Callable[[], None]]


class Gate:
    """Keeps what launches kernel by kernel apart from captures, among threads that share a device.

    Where cuDNN tries out its kernels it waits for the whole device, which ends every capture under way. Replays wait
    for nothing, and need no gate.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._eager = 0
        self._captures = 0  # waiting, or under way
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def eager(self) -> Iterator[None]:
        """Inside, any number of threads launch kernel by kernel, while nothing is captured."""
        with self._changed:
            self._changed.wait_for(lambda: not self._captures)
            self._eager += 1
        try:
            yield
        finally:
            with self._changed:
                self._eager -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Inside, one thread captures, and nobody launches kernel by kernel. It comes before those that wait to."""
        with self._changed:
            self._captures += 1
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._eager)
            with self._turn:
                yield
        finally:
            with self._changed:
                self._captures -= 1
                self._changed.notify_all()


gate = Gate()
"""Of this process."""


class Step:
    """Copies each batch into static tensors and runs `body` on them.

    The warm-up steps are ordinary steps of the training, so a captured run takes the same steps as an eager one. Each
    shape of batch (the last one of an epoch may be smaller) has its own static tensors and its own graph.

    Args:
        body: the step; it may keep nothing on the host from one call to the next.
        capture: turns a function without arguments into one that replays what it did on the device; None runs eagerly.
    """

    def __init__(self, body: Callable[[Batch], None], capture: Capture | None) -> None:
        self.body = body
        self.capture = capture
        self._slots: dict[tuple[torch.Size, ...], _Slot] = {}

    def __call__(self, batch: Batch) -> None:
        """Takes one step on a copy of `batch`."""
        shapes = tuple(x.shape for x in batch)
        slot = self._slots.get(shapes)
        if slot is None:
            slot = self._slots[shapes] = _Slot(tuple(torch.empty_like(x) for x in batch))
        for static, x in zip(slot.batch, batch, strict=True):
            static.copy_(x, non_blocking=True)
        slot.calls += 1
        if self.capture is None or slot.calls <= WARM_UP:
            with gate.eager():
                self.body(slot.batch)
            return
        if slot.replay is None:
            slot.replay = self.capture(lambda: self.body(slot.batch))
        slot.replay()


class _Slot:
    """The static tensors of one shape of batch, and their graph once it is captured."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.calls = 0
        self.replay: Callable[[], None] | None = None


def cuda_graph(generator: torch.Generator) -> Capture:
    """Capture on the current stream, which must not be the default one, with `generator` advancing at every replay."""

    def capture(body: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        stream = torch.cuda.current_stream()
        # Other threads replay and allocate meanwhile: "thread_local" keeps that from spoiling this thread's capture.
        with gate.capture(), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            body()
        return graph.replay

    return capture
