"""One run of the benchmark, as data: everything that determines its result, and the hash that names it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

Precision = Literal["fp32", "bf16"]
Split = Literal["test", "validation"]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that determines the result of one run, and nothing that does not.

    Args:
        workload: name in `benchmarks.workloads.REGISTRY`, e.g. ``"cifar10-vgg16"``.
        optimizer: name in `benchmarks.optimizers.REGISTRY`, e.g. ``"padam"``.
        hyper: the optimizer's keyword arguments, fully resolved (presets already applied).
        epochs: number of epochs, at least 1.
        batch_size: examples per step, at least 1; the last partial batch is kept.
        milestones: epochs after which the learning rate is multiplied by `gamma`.
        gamma: factor of the step decay, in (0, 1].
        seed: fixes the initial weights, the data order and the augmentation: equal across optimizers.
        precision: arithmetic of forward and backward; ``"bf16"`` is autocast over float32 parameters.
        split: ``"test"`` trains on the whole training set; ``"validation"`` holds out its last tenth and
            evaluates on that instead of the test set.
        recalibrate: train-mode batches used to re-estimate the batch-norm statistics for the second
            evaluation; 0 for none.
        max_steps: stop an epoch after so many steps; 0 for all. For rehearsals.
        workload_options: passed to the workload's builder, e.g. ``{"width": 0.125}``.
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

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types, keys in a fixed order."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), sort_keys=True))
        return plain

    def identity(self, fingerprint: str) -> str:
        """A 16-digit hash of the configuration and the data it runs on: the run's name in the store."""
        text = json.dumps([self.to_dict(), fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
