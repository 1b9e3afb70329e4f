"""Images and characters to classify, resident on the device."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.base import distributed
from benchmarks.base.config import RunConfig
from benchmarks.workloads import augment
from benchmarks.workloads.resident import ResidentTask, crop
from benchmarks.workloads.task import CLEAN, EVALUATION_BATCH, Task, Workload, mean_over, memory_format


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


class Images(ResidentTask):
    """Labelled images: pad, crop and flip in pixel space where the data set has a margin, then normalise."""

    columns = ("loss", "top1")
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

    def inputs(self, model: nn.Module, pixels: Tensor) -> Tensor:
        """uint8 ``[batch, height, width(, channels)]``, normalised and laid out for `model`, channels before height."""
        images = pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)
        images = images.contiguous(memory_format=memory_format(model, self.device))
        return images.float().sub_(self.mean).div_(self.std)

    @override
    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        (index,) = batch
        if self.margin:
            where = augment.draw(len(index), self.margin, generator)
            pixels = augment.crop_flip(self.data.x_train, index, where, self.margin)
        else:
            pixels = self.data.x_train[index]
        return training_loss(self, model, self.inputs(model, pixels), self.data.y_train[index].long())

    @override
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self._judge(model, self.data.x_test, self.data.y_test)

    @override
    def evaluate_clean(self, model: nn.Module) -> dict[str, float]:
        images = crop(self.data.x_train[:CLEAN], self.margin)
        return self._judge(model, images, self.data.y_train[:CLEAN])

    def _judge(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
        parts = zip(*(torch.split(distributed.shard(x), EVALUATION_BATCH) for x in (images, labels)), strict=True)
        return judge(self, model, ((self.inputs(model, x), y.long()) for x, y in parts))


class Text(ResidentTask):
    """Windows of characters, each position to be told the next character."""

    columns = ("loss", "top1")

    @override
    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        (index,) = batch
        return training_loss(self, model, self.data.x_train[index].long(), self.data.y_train[index].long())

    @override
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self._judge(model, self.data.x_test, self.data.y_test)

    @override
    def evaluate_clean(self, model: nn.Module) -> dict[str, float]:
        return self._judge(model, self.data.x_train[:CLEAN], self.data.y_train[:CLEAN])

    def _judge(self, model: nn.Module, text: Tensor, following: Tensor) -> dict[str, float]:
        parts = zip(*(torch.split(distributed.shard(x), EVALUATION_BATCH) for x in (text, following)), strict=True)
        metrics = judge(self, model, ((x.long(), y.long()) for x, y in parts))
        return {**metrics, "perplexity": math.exp(min(metrics["loss"], 700.0))}
