"""Tasks for a model and a data set of one's own, of any shape."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.base.config import RunConfig
from benchmarks.workloads.classification import Labelled, with_perplexity
from benchmarks.workloads.data import DataError
from benchmarks.workloads.resident import Supervised
from benchmarks.workloads.task import mean_over
from benchmarks.workloads.workload import Workload

CPU = torch.device("cpu")


class Own(Supervised):
    """Examples that a function gives, so that they are there before anything is run.

    A model takes floats as they are, bytes divided by 255, truth values as 0.0 and 1.0, whole numbers as int64.
    """

    @override
    @classmethod
    def specimen(cls, workload: Workload, config: RunConfig) -> tuple[Mapping[str, Any], tuple[Tensor, ...]]:
        made = cls(workload, config, Path(), CPU)
        return made.arguments(), (made.inputs(nn.Identity(), made.data.x_train[:2]).to("meta"),)

    @override
    def inputs(self, model: nn.Module, stored: Tensor) -> Tensor:
        if stored.dtype == torch.uint8:
            return stored.float().div_(255)
        return stored.float() if stored.dtype == torch.bool else stored


class Classification(Own, Labelled):
    """Examples of any shape with whole numbers from 0 as labels: one each, or one at every position."""

    def __init__(self, workload: Workload, config: RunConfig, data_dir: Path, device: torch.device) -> None:
        super().__init__(workload, config, data_dir, device)
        for labels in (self.data.y_train, self.data.y_test):
            if labels.is_floating_point() or int(labels.min()) < 0:
                raise DataError(
                    f"data {self.source.name!r}: labels must be whole numbers from 0, got {labels.dtype} from "
                    f"{labels.min().item():g}"
                )


class Language(Classification):
    """Sequences of whole numbers, at every position of which the label is to be told, usually the next number."""

    @override
    def inputs(self, model: nn.Module, stored: Tensor) -> Tensor:
        return stored if stored.is_floating_point() else stored.long()

    @override
    def judge(self, model: nn.Module, stored: Tensor, labels: Tensor) -> dict[str, float]:
        return with_perplexity(super().judge(model, stored, labels))


class Regression(Own):
    """Examples of any shape with numbers as targets; the loss is the mean squared error."""

    columns = ("loss",)

    @override
    def objective(
        self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        (index,) = batch
        targets = self.data.y_train[index].float()
        with self.autocast():
            predictions = model(self.inputs(model, self.drawn(index, generator)))
        loss = F.mse_loss(predictions.float().view_as(targets), targets)
        return loss, loss.detach()[None]

    @torch.no_grad()
    @override
    def judge(self, model: nn.Module, stored: Tensor, labels: Tensor) -> dict[str, float]:
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for examples, targets in self.parts(model, stored, labels.float()):
            with self.autocast():
                predictions = model(examples)
            squares = (predictions.float().view_as(targets) - targets).double().square()
            sums += torch.stack([squares.sum(), torch.full_like(squares.sum(), targets.numel())])
        model.train()
        loss = mean_over(sums, ("loss",))["loss"]
        spread = float((labels.double() - labels.double().mean(0)).square().mean())
        return {"loss": loss, "rmse": math.sqrt(loss), "r2": 1 - loss / spread if spread else math.nan}

    @override
    def wanted(self, outputs: Tensor, labels: Tensor) -> str:
        return "" if outputs.numel() == labels.numel() else f"{list(labels.shape)}"
