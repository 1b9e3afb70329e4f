"""Data sets small enough to lie on the device as a whole."""

import dataclasses
import functools
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.base.config import RunConfig
from benchmarks.workloads import data
from benchmarks.workloads.task import Task, Workload

_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Resident:
    """A data set on the device as uint8, the training images with a margin of zeros that crops may reach into."""

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


def resident(name: str, data_dir: Path, device: torch.device, margin: int) -> Resident:
    """The data set on the device, shared by all runs of this process."""
    with _lock:
        return _resident(name, data_dir, device, margin)


@functools.lru_cache(maxsize=4)
def _resident(name: str, data_dir: Path, device: torch.device, margin: int) -> Resident:
    arrays = data.load(name, data_dir)
    x_train = torch.from_numpy(arrays.x_train)
    if margin:
        x_train = nn.functional.pad(x_train, (0, 0, margin, margin, margin, margin))
    rest = (torch.from_numpy(x) for x in (arrays.y_train, arrays.x_test, arrays.y_test))
    return Resident(x_train.to(device), *(x.to(device) for x in rest))


class ResidentTask(Task):
    """A task whose batches are indices into a data set on the device.

    Args:
        workload: the model and the name of the data set.
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
        self.data = resident(workload.dataset, data_dir, device, margin).split(config.split == "validation")

    @property
    @override
    def examples(self) -> int:
        return len(self.data.x_train)

    @override
    def batches(self, order: Tensor, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        return ((index,) for index in torch.split(order.to(self.device), batch_size))
