"""ImageNet from a folder of files, decoded and cropped by worker processes as the epoch goes."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from typing_extensions import override

from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.base.seeds import derive
from benchmarks.workloads import data
from benchmarks.workloads.classification import judge, training_loss
from benchmarks.workloads.task import CLEAN, Task, memory_format
from benchmarks.workloads.workload import Workload

Item = tuple[Tensor, int]
SIZE = 224  # pixels of an image's side


def _clean_processes() -> Any:
    """How workers are started: never as a copy of this process, which has threads.

    A copy has one thread and all locks as they were. One that another thread held is never released, and the copy
    hangs before it begins; seen once in about fifty runs of two processes.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


class Seeded(Dataset[Item]):
    """An image folder whose random transform depends on the seed that comes with the index, and on nothing else."""

    def __init__(self, folder: Any, transform: Any) -> None:
        self.folder = folder
        self.transform = transform

    def __getitem__(self, key: tuple[int, int]) -> Item:
        index, seed = key
        path, label = self.folder.samples[index]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(self.folder.loader(path)), label


class ImageNet(Task):
    """Random resized crops and flips to train on, centre crops to be judged on; ``size`` is 224 pixels by default."""

    columns = ("loss", "top1")

    def __init__(self, workload: Workload, config: RunConfig, data_dir: Path, device: torch.device) -> None:
        super().__init__(workload, config, data_dir, device)
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2

        root = data.imagenet(data_dir)
        self.folders = {part: ImageFolder(str(root / part)) for part in ("train", "val")}
        size = int(config.workload_options.get("size", SIZE))
        self.random = v2.Compose(
            [v2.PILToTensor(), v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        )
        self.centre = v2.Compose([v2.PILToTensor(), v2.Resize(size * 256 // 224, antialias=True), v2.CenterCrop(size)])
        self.mean = 255 * torch.tensor((0.485, 0.456, 0.406), device=device).view(-1, 1, 1)
        self.std = 255 * torch.tensor((0.229, 0.224, 0.225), device=device).view(-1, 1, 1)
        # The folder is sorted by class, so a tenth is held out by taking every tenth image.
        every = torch.arange(len(self.folders["train"]))
        held_out = every % 10 == 9
        validating = config.split == "validation"
        self.train_part = every[~held_out] if validating else every
        self.test_part = every[held_out] if validating else torch.arange(len(self.folders["val"]))
        self.test_folder = self.folders["train" if validating else "val"]

    @property
    @override
    def examples(self) -> int:
        return len(self.train_part)

    @override
    def arguments(self) -> Mapping[str, Any]:
        return {"num_classes": len(self.folders["train"].classes)}

    @override
    @classmethod
    def specimen(cls, workload: Workload, config: RunConfig) -> tuple[Mapping[str, Any], tuple[Tensor, ...]]:
        size = int(config.workload_options.get("size", SIZE))
        return {"num_classes": 1000}, (torch.empty(2, 3, size, size, device="meta"),)

    @override
    def batches(self, order: Tensor, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        keys = [(i, derive(self.config.seed, "augmentation", epoch, i)) for i in self.train_part[order].tolist()]
        return self._load(Seeded(self.folders["train"], self.random), keys, batch_size)

    def _load(self, images: Seeded, keys: list[tuple[int, int]], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
        workers = min(8, (os.cpu_count() or 1) // distributed.world(), len(batches) // 2)
        loader: DataLoader[Item] = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            collate_fn=default_collate,
            multiprocessing_context=_clean_processes() if workers else None,
        )
        for batch in loader:
            pixels, labels = (x.to(self.device, non_blocking=True) for x in batch)
            yield pixels, labels

    def inputs(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """uint8 ``[batch, 3, size, size]`` to normalised, laid out for `model`."""
        images = pixels.contiguous(memory_format=memory_format(model, self.device))
        return images.float().sub_(self.mean).div_(self.std)

    @override
    def objective(
        self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        return training_loss(self, model, self.inputs(model, pixels), labels)

    @override
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self._judge(model, self.test_folder, self.test_part)

    @override
    def evaluate_clean(self, model: nn.Module) -> dict[str, float]:
        step = -(-self.examples // CLEAN)
        return self._judge(model, self.folders["train"], self.train_part[::step])

    def _judge(self, model: nn.Module, folder: Any, part: Tensor) -> dict[str, float]:
        keys = [(i, 0) for i in distributed.shard(part).tolist()]
        parts = self._load(Seeded(folder, self.centre), keys, 256)
        return judge(self, model, ((self.inputs(model, x), y) for x, y in parts))
