"""Data sets small enough to lie on the device as a whole."""

import abc
import dataclasses
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.workloads import sources
from benchmarks.workloads.sources import Source
from benchmarks.workloads.task import CLEAN, EVALUATION_BATCH, Task
from benchmarks.workloads.workload import Workload

_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Resident:
    """A data set on the device, the training images with a margin of zeros that crops may reach into."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    def split(self, validation: bool) -> "Resident":
        """The same, or with the last tenth of the training set in place of the test set."""
        if not validation:
            return self
        cut = len(self.x_train) - len(self.x_train) // 10
        margin = (self.x_train.shape[1] - self.x_test.shape[1]) // 2 if self.x_train.dim() > 1 else 0
        return Resident(self.x_train[:cut], self.y_train[:cut], crop(self.x_train[cut:], margin), self.y_train[cut:])


def crop(images: Tensor, margin: int) -> Tensor:
    """The images without their margin."""
    return images[:, margin:-margin, margin:-margin] if margin else images


def resident(source: Source, data_dir: Path, device: torch.device, margin: int) -> Resident:
    """The data set on the device, shared by all runs of this process."""
    with _lock:
        return _resident(source, data_dir, device, margin)


@functools.lru_cache(maxsize=4)
def _resident(source: Source, data_dir: Path, device: torch.device, margin: int) -> Resident:
    arrays = sources.load(source, data_dir)
    x_train = torch.from_numpy(arrays.x_train)
    if margin:
        x_train = nn.functional.pad(x_train, (0, 0, margin, margin, margin, margin))
    rest = (torch.from_numpy(x) for x in (arrays.y_train, arrays.x_test, arrays.y_test))
    return Resident(x_train.to(device), *(x.to(device) for x in rest))


class ResidentTask(Task):
    """A task whose batches are indices into a data set on the device.

    Args:
        workload: the model and its data set, in place of which `config` may name another.
        config: the run.
        data_dir: where the data set lies.
        device: where it goes.
        margin: zeros around every training image.
    """

    def __init__(
        self, workload: Workload, config: RunConfig, data_dir: Path, device: torch.device, margin: int = 0
    ) -> None:
        super().__init__(workload, config, data_dir, device)
        self.margin = margin
        self.source = sources.source(workload, config)
        self.data = resident(self.source, data_dir, device, margin).split(config.split == "validation")

    @property
    @override
    def examples(self) -> int:
        return len(self.data.x_train)

    @override
    def batches(self, order: Tensor, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        return ((index,) for index in torch.split(order.to(self.device), batch_size))


class Supervised(ResidentTask):
    """Examples with labels: what a model makes of the first is compared with the second."""

    clean: ClassVar[int] = CLEAN
    """Training examples, at most, on which the model is judged."""

    @abc.abstractmethod
    def inputs(self, model: nn.Module, stored: Tensor) -> Tensor:
        """What `model` is called with, of examples as they are stored."""

    def drawn(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """The training examples of a batch, as they are stored, augmented."""
        return self.data.x_train[index]

    @abc.abstractmethod
    def judge(self, model: nn.Module, stored: Tensor, labels: Tensor) -> dict[str, float]:
        """The metrics of the model on these examples."""

    @override
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.judge(model, self.data.x_test, self.data.y_test)

    @override
    def evaluate_clean(self, model: nn.Module) -> dict[str, float]:
        return self.judge(model, crop(self.data.x_train[: self.clean], self.margin), self.data.y_train[: self.clean])

    def parts(self, model: nn.Module, stored: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the examples, in batches, with their labels."""
        parts = zip(*(torch.split(distributed.shard(x), EVALUATION_BATCH) for x in (stored, labels)), strict=True)
        return ((self.inputs(model, x), y) for x, y in parts)

    @override
    def misfit(self, model: nn.Module) -> str:
        examples = self.inputs(model, crop(self.data.x_train[:2], self.margin))
        batch = f"a batch {list(examples.shape)} of {str(examples.dtype).removeprefix('torch.')}"
        model.eval()
        try:
            with torch.no_grad(), self.autocast():
                outputs: object = model(examples)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return f"fails on {batch}: {error}"
        model.train()
        if not isinstance(outputs, Tensor):
            return f"gives a {type(outputs).__name__} for {batch}; a tensor is needed"
        wanted = self.wanted(outputs, self.data.y_train[:2])
        return f"gives {list(outputs.shape)} for {batch}; {wanted} is needed" if wanted else ""

    @abc.abstractmethod
    def wanted(self, outputs: Tensor, labels: Tensor) -> str:
        """The shape that is wanted of a model's outputs; empty where they go with the labels."""
