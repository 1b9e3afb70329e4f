"""One run of the benchmark, as data: everything that determines its result, and the hash that names it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from benchmarks.base.references import is_reference

Precision = Literal["fp32", "bf16", "fp16"]
Split = Literal["test", "validation"]
_LATER = ("model", "data", "data_options", "schedules", "clip_norm", "label_smoothing", "ema", "groups")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines the result of one run, and nothing that does not.

    Args:
        workload: a name of ``list``, e.g. ``"cifar10-vgg16"``, or ``"module:object"``.
        optimizer: a name of ``list``, e.g. ``"padam"``, or ``"module:class"``.
        hyper: the optimizer's keyword arguments, fully resolved (presets already applied).
        epochs: number of epochs, at least 1.
        batch_size: examples per step, at least 1; the last partial batch is kept.
        milestones: epochs after which the learning rate is multiplied by `gamma`.
        gamma: factor of the step decay, in (0, 1].
        seed: fixes the initial weights, the data order and the augmentation: equal across optimizers.
        precision: arithmetic of forward and backward; ``"bf16"`` and ``"fp16"`` are autocast over float32 parameters,
            the second with a gradient scaler.
        split: ``"test"`` trains on the whole training set; ``"validation"`` holds out its last tenth and
            evaluates on that instead of the test set.
        recalibrate: train-mode batches used to re-estimate the batch-norm statistics for the second
            evaluation; 0 for none.
        max_steps: stop an epoch after so many steps; 0 for all. For rehearsals.
        workload_options: passed to the model's builder, e.g. ``{"width": 0.125}``.
        model: ``"module:object"`` that builds the model, in place of the workload's own.
        data: ``"module:object"`` that gives the data set, in place of the workload's own.
        data_options: passed to `data`.
        schedules: by hyperparameter (``"lr"``, ``"partial"``, …) how it moves from step to step: a ``kind`` of
            `benchmarks.training.schedules` or ``"module:object"``, and its options. That of ``"lr"`` excludes
            `milestones`.
        clip_norm: the norm of all gradients together above which they are scaled down to it; 0 for no clipping.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).
        ema: decay per step of an average of the weights that is evaluated as well, in [0, 1); 0 for none.
        groups: parameter groups: what each takes (by role, type or name) and its own hyperparameters; what none takes
            goes by `hyper`.
    """

    workload: str
    optimizer: str
    hyper: Mapping[str, Any]
    epochs: int
    batch_size: int = 128
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    seed: int = 0
    precision: Precision = "fp32"
    split: Split = "test"
    recalibrate: int = 60
    max_steps: int = 0
    workload_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: str = ""
    data: str = ""
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schedules: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    clip_norm: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    groups: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types, keys in a fixed order.

        What came after the first records is left out where it is not used, so that a run keeps its identity.
        """
        values = dataclasses.asdict(self)
        for name in _LATER:
            if not values[name]:
                del values[name]
        plain: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True))
        return plain

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules outside the benchmark that the run makes use of."""
        named = [self.workload, self.optimizer, self.model, self.data]
        named += [str(schedule.get("kind", "")) for schedule in self.schedules.values()]
        for group in self.groups:
            match = group.get("match", "")
            named += [part for one in ([match] if isinstance(match, str) else match) for part in one.split(" and ")]
        return tuple(dict.fromkeys(name.partition(":")[0] for name in named if is_reference(name)))

    @property
    def subject(self) -> str:
        """What is trained on what: runs of one subject can be compared, others cannot.

        The workload, and the model and the data where they are given in place of its own.
        """
        parts = [self.workload]
        if self.model:
            parts.append(f"model {self.model}")
        if self.data:
            parts.append(f"data {self.data}")
        if self.data_options:
            parts.append(json.dumps(self.data_options, sort_keys=True))
        return ", ".join(parts)

    def identity(self, fingerprint: str) -> str:
        """A 16-digit hash of the configuration and the data it runs on: the run's name in the store."""
        return identity(self.to_dict(), fingerprint)


def identity(config: Mapping[str, Any], fingerprint: str) -> str:
    """`RunConfig.identity` of a configuration as plain JSON types."""
    text = json.dumps([config, fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unseeded(config: Mapping[str, Any]) -> str:
    """All of a configuration as plain JSON types but its seed: equal for the runs of one arm."""
    return json.dumps({**config, "seed": 0}, sort_keys=True)


def workload_of(subject: str) -> str:
    """The workload that a `RunConfig.subject` is a form of."""
    return subject.partition(", ")[0]
