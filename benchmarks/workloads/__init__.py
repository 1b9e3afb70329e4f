"""The registry of workloads: a model on a data set, by name."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.workloads import data
from benchmarks.workloads.classification import Images, Text
from benchmarks.workloads.gan import Adversarial, Ring
from benchmarks.workloads.imagenet import ImageNet
from benchmarks.workloads.models import small
from benchmarks.workloads.models.resnet import resnet18, wrn_16_4_authors
from benchmarks.workloads.models.vgg import VGG16
from benchmarks.workloads.models.wide_resnet import WideResNet
from benchmarks.workloads.task import Task, Workload

__all__ = ["REGISTRY", "Task", "Workload", "WorkloadError", "find", "fingerprint"]


class WorkloadError(BenchmarkError, ValueError):
    """A workload, or an option of one, that does not exist."""


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision.models import get_model

    model: nn.Module = get_model(name, **options)
    return model


def _cifar() -> list[Workload]:
    nets: dict[str, tuple[str, Callable[..., nn.Module]]] = {
        "vgg16": ("VGG-16 with batch norm, as in the authors' code", VGG16),
        "resnet18": ("ResNet-18, CIFAR form", resnet18),
        "wrn16-4": ("WRN-16-4 as in the authors' code: post-activation, 64-wide stem", wrn_16_4_authors),
        "wrn16-4-original": ("WRN-16-4 as published: pre-activation", WideResNet),
    }
    return [
        Workload(
            name=f"{dataset}-{net}",
            description=f"{title}, on CIFAR-{classes}",
            dataset=dataset,
            task="classification",
            metric="top1",
            build=partial(build, classes=classes),
            task_class=Images,
            options=("width",),
        )
        for dataset, classes in (("cifar10", 10), ("cifar100", 100))
        for net, (title, build) in nets.items()
    ]


def _imagenet() -> list[Workload]:
    return [
        Workload(
            name=f"imagenet-{name}",
            description=f"torchvision's {model}, on ImageNet",
            dataset="imagenet",
            task="classification",
            metric="top1",
            build=partial(_torchvision, model),
            task_class=ImageNet,
            options=("size",),
        )
        for name, model in (("vgg16", "vgg16_bn"), ("resnet18", "resnet18"))
    ]


_WORKLOADS = (
    Workload(
        name="digits-mlp",
        description="two hidden layers on the 8x8 digits inside scikit-learn",
        dataset="digits",
        task="classification",
        metric="top1",
        build=partial(small.mlp, inputs=64, classes=10),
        task_class=Images,
        options=("hidden",),
    ),
    Workload(
        name="fashion-cnn",
        description="two convolutions with batch norm, on Fashion-MNIST",
        dataset="fashion",
        task="classification",
        metric="top1",
        build=partial(small.cnn, classes=10),
        task_class=Images,
        options=("width",),
    ),
    *_cifar(),
    *_imagenet(),
    Workload(
        name="text-lstm",
        description="character LSTM on the manual inside Python's standard library",
        dataset="text",
        task="language",
        metric="perplexity",
        build=partial(small.CharLSTM, classes=data.DATASETS["text"].classes),
        task_class=Text,
        options=("hidden",),
    ),
    Workload(
        name="ring-gan",
        description="a GAN on eight Gaussians in the plane",
        dataset="ring",
        task="gan",
        metric="distance",
        build=small.ring_gan,
        task_class=Ring,
        options=("hidden",),
    ),
    Workload(
        name="fashion-dcgan",
        description="a small DCGAN on Fashion-MNIST",
        dataset="fashion",
        task="gan",
        metric="distance",
        build=small.dcgan,
        task_class=Adversarial,
        options=("width",),
    ),
)

REGISTRY: Mapping[str, Workload] = MappingProxyType({workload.name: workload for workload in _WORKLOADS})


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {close[0]!r}?" if close else "") + f" Known: {', '.join(known) or 'none'}."


def find(name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Workload:
    """The workload `name`, once it is known to take `options`."""
    if name not in REGISTRY:
        raise WorkloadError(f"unknown workload {name!r}{_nearest(name, sorted(REGISTRY))}")
    workload = REGISTRY[name]
    for option in options:
        if option not in workload.options:
            raise WorkloadError(f"unknown option {option!r} of {name}{_nearest(option, sorted(workload.options))}")
    return workload


def fingerprint(config: RunConfig, data_dir: Path) -> str:
    """A hash of the data that a run trains on and is judged by.

    Raises:
        WorkloadError: there is no such workload.
        benchmarks.workloads.data.DataError: the data set is missing and cannot be downloaded, or is corrupt.
    """
    return data.fingerprint(find(config.workload).dataset, data_dir)
