"""What has been published: the tables of the paper and its replication, and the settings behind them."""

import dataclasses
import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base.config import RunConfig
from benchmarks.training import optimizers
from benchmarks.workloads.catalogue import EXAMPLES

_CIFAR = {"epochs": 200, "batch_size": 128, "milestones": (50, 100, 150), "gamma": 0.1}
_IMAGENET = {"epochs": 100, "batch_size": 256, "milestones": (30, 60, 80), "gamma": 0.1}
# Section 5.1 names PyTorch 0.4.1, which trained in float32; the passes over the training set in train mode before each
# test are in the released code alone.
_COMMON = {"precision": "fp32", "split": "test", "max_steps": 0, "workload_options": {}}
_DATASETS = ("cifar10", "cifar100", "imagenet")
_FIELDS = {
    "epochs": "epochs",
    "batch_size": "batch size",
    "milestones": "decay after epochs",
    "gamma": "decay factor",
    "precision": "arithmetic",
    "split": "judged on",
    "max_steps": "steps per epoch at most (0: all)",
    "workload_options": "changes to the network",
}
# What section C.3 says of a network where the released code, which is what we run, has something else.
_NETWORKS = {
    "vgg16": ("classifier", "two fully connected layers of 512", "one linear layer, as in the released code"),
    "wrn16-4": ("network", "Wide ResNet (Zagoruyko & Komodakis)", "post-activation blocks, as in the released code"),
    "wrn16-4-original": ("network", "post-activation blocks in the released code", "pre-activation blocks"),
}


# What we call by a name of the paper's, or might be taken for it.
_TRAIN_LOSS = (
    "train loss",
    "mean over the epoch's batches, in train mode",
    "evaluated: evaluation mode, the first 5,000 examples; the paper's own is called online",
)
_EFFECTIVE_STEP = (
    "effective step",
    "α·(√c₂/c₁)·s^(−2p) (released code)",
    "α·s^(−2p): without √c₂/c₁, which tends to 1",
)


@dataclasses.dataclass(frozen=True)
class Deviation:
    """A setting that is not the paper's: what it is, in the paper, with us, and in which arms."""

    setting: str
    paper: str
    ours: str
    arms: str


@functools.cache
def tables() -> Mapping[str, Any]:
    """`published.toml`: by data set and source the accuracy of VGG-16, and the epochs it was taken at."""
    return tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))


def accuracy(config: RunConfig, source: str) -> Mapping[int, tuple[float, float]]:
    """Published mean and sd by epoch for this run: empty unless network, schedule and optimizer were published.

    Args:
        config: a run of ours.
        source: ``"paper"`` or ``"replication"``, which states no sd (NaN).
    """
    dataset, _, network = config.workload.partition("-")
    row = tables().get(dataset, {}).get(source, {}).get(config.optimizer)
    if network != "vgg16" or config.milestones != _CIFAR["milestones"] or config.split != "test" or row is None:
        return {}
    sds = row.get("std", [math.nan] * len(row["mean"]))
    rows = zip(tables()["epochs"], row["mean"], sds, strict=True)
    return {epoch: (mean, sd) for epoch, mean, sd in rows if epoch <= config.epochs}


def deviations(arms: Sequence[tuple[str, RunConfig]]) -> list[Deviation]:
    """Every setting in which these arms differ from the paper's; none for workloads that the paper does not have.

    Args:
        arms: titles and configurations.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    compared = [(title, config) for title, config in arms if _in_paper(config.workload)]
    for title, config in compared:
        for difference in _differences(config):
            found.setdefault(difference, []).append(title)
    return [Deviation(*difference, _which(titles, len(compared))) for difference, titles in found.items()]


def _in_paper(workload: str) -> bool:
    """Whether the paper has the data set and the network, in one form or the other."""
    dataset, _, network = workload.partition("-")
    return dataset in _DATASETS and network.startswith(("vgg16", "resnet18", "wrn16-4"))


def _which(titles: Sequence[str], total: int) -> str:
    if len(titles) == total:
        return "all"
    names = list(dict.fromkeys(titles))
    return ", ".join(names) if len(names) <= 5 else f"{len(titles)} of {total} arms"


def _differences(config: RunConfig) -> list[tuple[str, str, str]]:
    """Name, the paper's value and ours for each setting of one run that differs."""
    dataset, _, network = config.workload.partition("-")
    protocol: Mapping[str, Any] = {**(_IMAGENET if dataset == "imagenet" else _CIFAR), **_COMMON}
    differences = [
        (name, _text(protocol[field]), _text(getattr(config, field)))
        for field, name in _FIELDS.items()
        if getattr(config, field) != protocol[field]
    ]
    if network in _NETWORKS and dataset != "imagenet":
        differences.append(_NETWORKS[network])
    batches = math.ceil(EXAMPLES[dataset] / protocol["batch_size"])
    if config.recalibrate != batches:
        differences.append(
            ("batches that re-estimate batch norm before a test", f"{batches} (released code)", str(config.recalibrate))
        )
    differences.append(_TRAIN_LOSS)
    if config.hyper.get("bias_correction") == "adam":
        differences.append(_EFFECTIVE_STEP)
    preset = "paper-imagenet" if dataset == "imagenet" else "paper"
    if config.optimizer not in optimizers.PRESETS[preset]:
        return [*differences, ("optimizer", "not run", config.optimizer)]
    paper = optimizers.resolve(
        config.optimizer,
        preset,
        {},
        batch_size=protocol["batch_size"],
        examples=EXAMPLES[dataset],
        epochs=protocol["epochs"],
    )
    differences += [
        (key, _text(value), _text(config.hyper.get(key)))
        for key, value in paper.items()
        if _text(config.hyper.get(key)) != _text(value)
    ]
    return differences


def _text(value: Any) -> str:
    """A setting as it is printed."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_text(item)}" for key, item in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
