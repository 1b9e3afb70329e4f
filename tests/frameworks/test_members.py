"""Every member in the wrappers of the frameworks: a checkpoint of theirs goes on bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from accelerate import Accelerator
from family import in_modes, maker
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments

import partial_adaptive as pa
from partial_adaptive.testing import Make

STEPS = 3  # before the checkpoint, and after it


class Model(lightning.LightningModule):
    """A small regression, as Lightning and the Trainer call it."""

    def __init__(self, make: Make, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))
        self.make = make

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.layers(inputs) - labels).square().mean()}

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return self(*batch)["loss"]

    def configure_optimizers(self) -> Any:
        optimizer = self.make(pa.param_groups(self, weight_decay=0.01))
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2), "interval": "step"}]


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(8 * STEPS, 4, generator=generator), torch.randn(8 * STEPS, 2, generator=generator))


def by_lightning(model: Model, folder: Path, resume: bool) -> None:
    trainer = lightning.Trainer(
        max_epochs=2,
        gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(folder / ("resumed" if resume else "whole"), filename="{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    checkpoint = folder / "whole" / "epoch=0.ckpt" if resume else None
    trainer.fit(model, DataLoader(data(), batch_size=8), ckpt_path=checkpoint)


def by_accelerate(model: Model, folder: Path, resume: bool) -> None:
    accelerator = Accelerator(cpu=True)
    (optimizer,), (schedule,) = model.configure_optimizers()
    loader = DataLoader(data(), batch_size=8)
    prepared, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, schedule["scheduler"])
    if resume:
        accelerator.load_state(folder / "half")
    for epoch in (1,) if resume else (0, 1):
        for batch in loader:
            accelerator.backward(prepared(*batch)["loss"])
            accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if epoch == 0:
            accelerator.save_state(folder / "half")


def by_trainer(model: Model, folder: Path, resume: bool) -> None:
    arguments = TrainingArguments(
        folder / ("resumed" if resume else "whole"),
        max_steps=2 * STEPS,
        save_steps=STEPS,
        per_device_train_batch_size=8,
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    (optimizer,), (schedule,) = model.configure_optimizers()
    rows = [{"inputs": inputs, "labels": labels} for inputs, labels in data()]
    trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, schedule["scheduler"]))
    trainer.train(resume_from_checkpoint=str(folder / "whole" / f"checkpoint-{STEPS}") if resume else None)


@pytest.mark.parametrize(("name", "mode"), in_modes(list(pa.MEMBERS), [{"foreach": False}, {"fused": True}]))
@pytest.mark.parametrize("train", [by_lightning, by_accelerate, by_trainer])
def test_resumed(train: Callable[..., None], name: str, mode: dict[str, Any], tmp_path: Path) -> None:
    """A new model and a new optimizer get to the bits of the run that was not interrupted."""
    make = maker(name, lr=0.01, **mode)
    whole, resumed = Model(make, seed=0), Model(make, seed=1)
    train(whole, tmp_path, resume=False)
    train(resumed, tmp_path, resume=True)
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))
