"""What a workload is: a network, the data it learns, the task that trains it, and the number it is judged by."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.base import references
from benchmarks.base.errors import BenchmarkError, nearest

if TYPE_CHECKING:  # names and options are read without torch
    from torch import nn

    from benchmarks.workloads.task import Task


class WorkloadError(BenchmarkError, ValueError):
    """A workload, model or data set that does not exist or does not fit, or an option that it does not take."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a workload is judged by.

    Args:
        key: its name in a record's evaluation.
        title: what it is called in tables and figures.
        higher_is_better: whether more of it is better.
        bounds: the least and the greatest value that it can take.
    """

    key: str
    title: str
    higher_is_better: bool
    bounds: tuple[float, float] = (0.0, math.inf)

    @property
    def sign(self) -> int:
        """1 where more of it is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def limit(self) -> float:
        """The best value that it can take, times `sign`: 100 of an accuracy, 0 of a loss; infinite if it has none."""
        return self.bounds[1] if self.higher_is_better else -self.bounds[0]

    @property
    def percent(self) -> bool:
        """Whether it is a share in percent."""
        return self.bounds == (0.0, 100.0)


TOP1 = Metric("top1", "test accuracy, %", True, (0.0, 100.0))
PERPLEXITY = Metric("perplexity", "test perplexity", False, (1.0, math.inf))
LOSS = Metric("loss", "test loss", False)
RMSE = Metric("rmse", "root mean squared error", False)
DISTANCE = Metric("distance", "sliced Wasserstein distance", False)


@dataclasses.dataclass(frozen=True)
class Option:
    """A keyword argument of a workload's network: a number, or yes or no.

    Args:
        kind: ``int``, ``float`` (takes whole numbers too) or ``bool``.
        low: the least value.
        high: the greatest value.
    """

    kind: type
    low: float = -math.inf
    high: float = math.inf

    def fits(self, value: object) -> bool:
        """Whether the option takes `value`."""
        if self.kind is bool or isinstance(value, bool):
            return self.kind is type(value)
        if isinstance(value, int) or (self.kind is float and isinstance(value, float)):
            return self.low <= value <= self.high
        return False

    def __str__(self) -> str:
        if self.kind is bool:
            return "true or false"
        return f"{'a whole number' if self.kind is int else 'a number'} from {self.low:g} to {self.high:g}"


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network on a data set.

    Args:
        name: its name in studies.
        description: one line for ``list``.
        dataset: name of the data set, or the ``"module:object"`` that gives it; empty where a run must name one.
        task: what is learned: ``"classification"``, ``"language"``, ``"regression"`` or ``"gan"``.
        metric: what it is judged by.
        network: builds the network from the options, or the ``"module:object"`` that does; empty where a run must name
            one.
        trainer: the `benchmarks.workloads.task.Task` that trains and judges it, or its ``"module:object"``.
        options: the `RunConfig.workload_options` that it takes, by name; None for any.
        fixed: further arguments of `network`.
        train_examples: size of the training set, where it is known without loading the data.
    """

    name: str
    description: str
    dataset: str
    task: str
    metric: Metric
    network: "str | Callable[..., nn.Module]"
    trainer: "str | type[Task]"
    options: Mapping[str, Option] | None = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train_examples: int | None = None

    def build(self, **options: Any) -> "nn.Module":
        """The network with freshly drawn weights."""
        network = references.load(self.network) if isinstance(self.network, str) else self.network
        model: nn.Module = network(**self.fixed, **options)
        return model

    @property
    def task_class(self) -> "type[Task]":
        """The task that trains and judges the network."""
        found: type[Task] = references.load(self.trainer) if isinstance(self.trainer, str) else self.trainer
        return found

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise `WorkloadError` for an option that the network does not take, or a value that the option does not."""
        if self.options is None:
            return
        for name, value in options.items():
            if name not in self.options:
                raise WorkloadError(f"unknown option {name!r} of {self.name}{nearest(name, self.options)}")
            if not self.options[name].fits(value):
                raise WorkloadError(f"option {name} of {self.name} must be {self.options[name]}, got {value!r}")
