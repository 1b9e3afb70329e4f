"""Images and characters to classify, resident on the device."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.base.config import RunConfig
from benchmarks.workloads import augment, data
from benchmarks.workloads.resident import Supervised
from benchmarks.workloads.task import Task, mean_over, memory_format
from benchmarks.workloads.workload import Workload


def accuracies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Top-1 and top-5 hits, 100 or 0, of each label (top-5 of fewer than five classes counts them all)."""
    ranked = logits.topk(min(5, logits.shape[-1]), -1).indices == labels[..., None]
    return 100.0 * ranked[..., 0], 100.0 * ranked.any(-1)


@torch.no_grad()
def judge(task: Task, model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean loss and accuracies of the model, in evaluation mode, over all batches of all processes."""
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=task.device)
    for inputs, labels in batches:
        with task.autocast():
            logits = model(inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
        top1, top5 = accuracies(logits, labels)
        sums += torch.stack([loss.sum(), top1.sum(), top5.sum(), torch.full_like(loss, loss.numel())[0]])
    model.train()
    return mean_over(sums, ("loss", "top1", "top5"))


def training_loss(task: Task, model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of a batch, with smoothed labels where the run asks for it, and the means that are recorded."""
    with task.autocast():
        logits = model(inputs)
        smoothing = task.config.label_smoothing
        loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=smoothing)
    hits = (logits.argmax(-1) == labels).float()
    return loss, torch.stack([loss.detach().float(), 100 * hits.mean()])


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How images enter the net: normalised per channel, in units of 255, after a crop from a margin of zeros."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    margin: int = 0


class Labelled(Supervised):
    """Examples with one class each, or with one at every position, which a model gives logits for."""

    columns = ("loss", "top1")

    @override
    def objective(
        self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        (index,) = batch
        examples = self.inputs(model, self.drawn(index, generator))
        return training_loss(self, model, examples, self.data.y_train[index].long())

    @override
    def judge(self, model: nn.Module, stored: Tensor, labels: Tensor) -> dict[str, float]:
        return judge(self, model, ((x, y.long()) for x, y in self.parts(model, stored, labels)))

    @property
    def classes(self) -> int:
        """One more than the greatest label."""
        return 1 + max(int(labels.max()) for labels in (self.data.y_train, self.data.y_test))

    @override
    def wanted(self, outputs: Tensor, labels: Tensor) -> str:
        fits = outputs.shape[:-1] == labels.shape and outputs.shape[-1] >= self.classes
        return "" if fits else f"{[*labels.shape, 'classes']} with at least {self.classes} classes"


class Images(Labelled):
    """Labelled images: pad, crop and flip in pixel space where the data set has a margin, then normalise."""

    pixels: ClassVar[dict[str, Pixels]] = {
        "digits": Pixels((0.0192,), (0.0236,)),
        "fashion": Pixels((0.2860,), (0.3530,)),
        "cifar10": Pixels((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), margin=4),
        "cifar100": Pixels((0.507, 0.487, 0.441), (0.267, 0.256, 0.276), margin=4),
    }

    def __init__(self, workload: Workload, config: RunConfig, data_dir: Path, device: torch.device) -> None:
        pixels = self.pixels[workload.dataset]
        super().__init__(workload, config, data_dir, device, pixels.margin)
        self.mean = 255 * torch.tensor(pixels.mean, device=device).view(-1, 1, 1)
        self.std = 255 * torch.tensor(pixels.std, device=device).view(-1, 1, 1)

    @override
    @classmethod
    def specimen(cls, workload: Workload, config: RunConfig) -> tuple[Mapping[str, Any], tuple[Tensor, ...]]:
        height, width, *channels = data.DATASETS[workload.dataset].shape
        return config.workload_options, (torch.empty(2, *(channels or [1]), height, width, device="meta"),)

    @override
    def inputs(self, model: nn.Module, stored: Tensor) -> Tensor:
        images = stored[:, None] if stored.dim() == 3 else stored.permute(0, 3, 1, 2)
        images = images.contiguous(memory_format=memory_format(model, self.device))
        return images.float().sub_(self.mean).div_(self.std)

    @override
    def drawn(self, index: Tensor, generator: torch.Generator) -> Tensor:
        if not self.margin:
            return self.data.x_train[index]
        where = augment.draw(len(index), self.margin, generator)
        return augment.crop_flip(self.data.x_train, index, where, self.margin)


class Text(Labelled):
    """Windows of characters, each position to be told the next character."""

    @override
    @classmethod
    def specimen(cls, workload: Workload, config: RunConfig) -> tuple[Mapping[str, Any], tuple[Tensor, ...]]:
        window = data.DATASETS[workload.dataset].shape
        return config.workload_options, (torch.empty(2, *window, dtype=torch.int64, device="meta"),)

    @override
    def inputs(self, model: nn.Module, stored: Tensor) -> Tensor:
        return stored.long()

    @override
    def judge(self, model: nn.Module, stored: Tensor, labels: Tensor) -> dict[str, float]:
        return with_perplexity(super().judge(model, stored, labels))


class Prose(Text):
    """Longer windows, of which fewer training examples say as much."""

    clean = 500


def with_perplexity(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, and the exponential of the loss."""
    return {**metrics, "perplexity": math.exp(min(metrics["loss"], 700.0))}
