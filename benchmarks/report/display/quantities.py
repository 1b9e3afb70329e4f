"""What a study can draw over the epochs: a number of each record, its name and what it is, without any drawing."""

import dataclasses
from collections.abc import Callable, Mapping

from benchmarks.base.records import Epoch, number
from benchmarks.report.results import clean_loss, online_loss
from benchmarks.workloads import metrics


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something drawn over the epochs.

    Args:
        label: its axis label for a workload.
        value: its value in a record.
        meaning: what it is, in a sentence.
        log: whether its axis is logarithmic.
        late: whether the axis is made for the later epochs; the first ones, and what goes badly wrong, are cut off.
    """

    label: Callable[[str], str]
    value: Callable[[Epoch, str], float]
    meaning: str
    log: bool = False
    late: bool = False


def error(statistics: str = "running", key: str | None = None) -> Callable[[Epoch, str], float]:
    """What is held out as something to be small where it is an accuracy: 100 less it; else as it is."""

    def value(record: Epoch, workload: str) -> float:
        name = key or metrics.metric(workload)
        score = number(record.test.of(statistics).get(name))
        return 100 - score if name.startswith("top") else score

    return value


def error_label(note: str = "") -> Callable[[str], str]:
    """The axis label of `error` for a workload."""

    def label(workload: str) -> str:
        return ("test error, %" if metrics.metric(workload) == "top1" else metrics.title(workload)) + note

    return label


QUANTITIES: Mapping[str, Quantity] = {
    "train_loss": Quantity(
        lambda workload: "train loss, evaluated",
        lambda record, workload: number(clean_loss(record)),
        "Train loss of the model after each epoch: in evaluation mode, without augmentation, on the first 5,000 "
        "training examples.",
        log=True,
    ),
    "online_loss": Quantity(
        lambda workload: "train loss, online",
        lambda record, workload: number(online_loss(record)),
        "Train loss as the paper has it: the mean over the epoch's batches as they were trained on, in train mode and "
        "augmented, while the weights moved.",
        log=True,
    ),
    "error": Quantity(error_label(), error(), "What was held out, after each epoch.", late=True),
    "error_recalibrated": Quantity(
        error_label(", recalibrated"),
        error("recalibrated"),
        "What was held out, with batch norm's statistics estimated anew for the current weights.",
        late=True,
    ),
    "error_ema": Quantity(
        error_label(", average of weights"),
        error("ema"),
        "What was held out, of the exponential average of the weights.",
        late=True,
    ),
    "top5_error": Quantity(
        lambda workload: "top-5 error, %", error(key="top5"), "What was held out, after each epoch.", late=True
    ),
    "distance": Quantity(
        lambda workload: "‖θ − θ₀‖₂",
        lambda record, workload: number(record.distance),
        "Euclidean distance of all parameters from where they started.",
    ),
    "effective_step": Quantity(
        lambda workload: "α·s^(−2p), median",
        lambda record, workload: number(record.effective_step.get("q50")),
        "Median over the coordinates of α·s^(−2p), what the numerator is multiplied by; a bias correction that is "
        "not part of s, as Adam's, is not in it.",
        log=True,
    ),
    "map": Quantity(error_label(", final"), error(), "The final score over learning rate and p."),
}
"""What a study can ask for in `figures`. All are curves over the epochs but ``map``: learning rate × p, by colour."""
