"""What the engine asks of a workload: batches, their loss, and the judgement of the model."""

import abc
import inspect
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.base import distributed, references
from benchmarks.base.config import RunConfig
from benchmarks.base.seeds import derive
from benchmarks.workloads import dropout
from benchmarks.workloads.workload import Workload, WorkloadError

EVALUATION_BATCH = 500
CLEAN = 5000  # training examples, at most, on which the loss without augmentation is measured
BLOCK = 16  # floats of an AVX512 register, the widest block of channels that oneDNN works on

_lock = threading.Lock()  # initial weights come from torch's global generator


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """How images and weights of `model` lie in memory on `device`: channels last, but not where that is unsafe.

    Channels last is what tensor cores want on CUDA. On a CPU it is no slower: a training step of the CIFAR networks
    takes 0.7 to 1.0 times as long as with contiguous tensors, of narrow ones 0.8 (torch 2.14, one thread, AVX2 and
    AVX512).

    But oneDNN on x86 (torch 2.14's, https://github.com/uxlfoundation/oneDNN/issues/6035) writes past its workspace in
    the weight's gradient of a strided 1×1 float32 convolution, if images or weights are channels last and the input has
    fewer channels than a block: 8 with AVX2; 16 with AVX512, where it takes larger images. The process dies or hangs.
    A network with such a convolution, as the narrow ones of rehearsals have, is contiguous on every CPU, whichever
    it is: one rule for all of them.
    """
    unsafe = device.type == "cpu" and any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels < BLOCK
        for layer in model.modules()
    )
    return torch.contiguous_format if unsafe else torch.channels_last


class Task(abc.ABC):
    """One run's data and model on one device: batches to train on, their loss, and the judgement of the model."""

    columns: ClassVar[tuple[str, ...]]
    """What `loss` measures on a batch, by name."""

    def __init__(self, workload: Workload, config: RunConfig, data_dir: Path, device: torch.device) -> None:
        self.workload = workload
        self.config = config
        self.data_dir = data_dir
        self.device = device

    @property
    @abc.abstractmethod
    def examples(self) -> int:
        """Size of the training set."""

    @abc.abstractmethod
    def batches(self, order: Tensor, batch_size: int, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        """What `loss` needs of each batch of the training examples `order`, without waiting for the device."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss to differentiate and the means over the batch of `columns`; runs on the device alone.

        Args:
            model: in train mode.
            batch: one item of `batches`.
            generator: on the device, for augmentation, noise and dropout.
        """
        with dropout.drawing_from(generator, model):
            return self.objective(model, batch, generator)

    @abc.abstractmethod
    def objective(
        self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What `loss` gives, of a model whose dropout is taken care of."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics of the model, in evaluation mode, on the data held out."""

    @abc.abstractmethod
    def evaluate_clean(self, model: nn.Module) -> dict[str, float]:
        """The metrics on at most `CLEAN` training examples without augmentation; empty where they mean nothing."""

    @classmethod
    def specimen(cls, workload: Workload, config: RunConfig) -> tuple[Mapping[str, Any], tuple[Tensor, ...]] | None:
        """The arguments of the network and what it is called with for two examples, on the meta device if possible.

        From these the cost of a step is computed before there is data; None leaves it unknown.
        """
        return None

    def arguments(self) -> Mapping[str, Any]:
        """What the workload's own network is built with: the options of the run, and what only the task knows."""
        return self.config.workload_options

    def misfit(self, model: nn.Module) -> str:
        """Why the model does not fit the data, empty if it does; asked where one of both is the user's own."""
        return ""

    def model(self) -> nn.Module:
        """The model with the initial weights of the run's seed: the same on every device and for every optimizer."""
        config = self.config
        arguments = config.workload_options if config.model else self.arguments()
        with _lock, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive(config.seed, "weights"))
            model = built(config.model, self.workload, arguments)
            dropout.own(model)
        to: Any = model.to  # torch's types do not know `memory_format` together with a device
        placed: nn.Module = to(self.device, memory_format=memory_format(model, self.device))
        why = self.misfit(placed) if config.model or config.data else ""
        if why:
            raise WorkloadError(f"model {config.model or self.workload.name!r} {why}")
        return placed

    def autocast(self) -> torch.autocast:
        """The precision of forward and backward."""
        dtype = torch.float16 if self.config.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.config.precision != "fp32")


def built(reference: str, workload: Workload, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of a workload; where `reference` says that it is the user's own, errors are the user's to set right.

    Raises:
        WorkloadError: the function behind `reference` does not take the arguments, or returns something else.
    """
    if reference:
        try:
            inspect.signature(references.load(reference)).bind(**arguments)
        except TypeError as error:
            raise WorkloadError(f"model {reference!r} does not take {dict(arguments)}: {error}") from error
    model: object = workload.build(**arguments)
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"model {reference or workload.name!r} must give a Module, got {type(model).__name__}")
    if not any(p.requires_grad for p in model.parameters()):
        raise WorkloadError(f"model {reference or workload.name!r} has no parameters to train")
    return model


def mean_over(sums: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    """Means by name from sums, their number last, over all processes."""
    *totals, count = distributed.add(sums).tolist()
    return {name: total / count for name, total in zip(names, totals, strict=True)}
