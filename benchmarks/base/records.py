"""What is kept of a run, as typed lines of JSON: a head, a record per epoch, and an end that seals them."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

FORMAT = 2
"""Of the files. Files of format 1, which had no number and no seal, are read as well."""

Number = float | None
"""A number of a record; None where it is not finite, which JSON cannot say, or does not exist."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """A line of a run's file."""


class Evaluation(msgspec.Struct, frozen=True):
    """The metrics of the model after an epoch, by name, in evaluation mode on the data held out.

    Args:
        running: with the running statistics of batch norm, as usual.
        recalibrated: with statistics estimated anew for the current weights; None without batch norm.
        ema: of the exponential average of the weights; None without one.
    """

    running: dict[str, Number]
    recalibrated: dict[str, Number] | None = None
    ema: dict[str, Number] | None = None

    def of(self, statistics: str) -> Mapping[str, Number]:
        """The metrics under ``"running"``, ``"recalibrated"`` or ``"ema"``; none where there are none."""
        found: Mapping[str, Number] | None = getattr(self, statistics)
        return found or {}


class Cost(msgspec.Struct, frozen=True):
    """What an epoch took.

    Args:
        train_s: seconds of training, without evaluation.
        eval_s: seconds of evaluation.
        step_ms: milliseconds of a step.
        optimizer_ms: of it the optimizer's, on a CPU.
        peak_memory_bytes: of the process (CPU) or the device.
        state_bytes_per_param: bytes of optimizer state per parameter.
        mode: ``"eager"`` or ``"graph"``.
    """

    train_s: Number = None
    eval_s: Number = None
    step_ms: Number = None
    optimizer_ms: Number = None
    peak_memory_bytes: Number = None
    state_bytes_per_param: Number = None
    mode: str | None = None


class Epoch(Record, frozen=True, tag="epoch", kw_only=True):
    """The state of a run after an epoch.

    Args:
        epoch: its number, from 1.
        step: steps taken so far.
        lr: the learning rate of its last step, of the first parameter group.
        train: ``online_…``: means over the epoch's batches as they were trained on (train mode, augmented);
            ``clean_…``: the model after the epoch, in evaluation mode, on at most 5,000 training examples.
        test: on the data held out.
        distance: Euclidean distance of all parameters from where they started.
        effective_step: quantiles over the coordinates of lr / s^(2p).
        floor_share: share of scales s within twice epsilon.
        time: what the epoch took.
        diverged: the loss has stopped being finite, and the run is over.
    """

    epoch: int
    step: int = 0
    lr: Number = None
    train: dict[str, Number] = msgspec.field(default_factory=dict)
    test: Evaluation
    distance: Number = None
    effective_step: dict[str, Number] = msgspec.field(default_factory=dict)
    floor_share: Number = None
    time: Cost = Cost()
    diverged: bool = False


class Head(Record, frozen=True, tag="run", kw_only=True):
    """What was run, on which data, and where."""

    identity: str = ""
    config: dict[str, Any]
    fingerprint: str
    environment: dict[str, Any] = msgspec.field(default_factory=dict)
    format: int = 1


class End(Record, frozen=True, tag="end", kw_only=True):
    """How the run ended, and the SHA-256 of all bytes above this line."""

    status: str
    sha256: str = ""


Line = Head | Epoch | End


def number(value: Number) -> float:
    """A number of a record, NaN where there is none."""
    return math.nan if value is None else float(value)


def finite(values: Mapping[str, float]) -> dict[str, Number]:
    """The numbers with None for those that JSON does not have."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
