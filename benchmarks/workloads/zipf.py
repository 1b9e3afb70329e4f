"""Classes whose frequencies follow Zipf's law: the cleanest case in which it matters how far a step is adapted.

The gradient of a class and the blocks of the Hessian both shrink with its frequency, so that a step of gradient descent
that suits the common classes hardly moves the rare ones (Kunstner et al. 2024, arXiv 2402.19449).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.workloads.own import Classification
from benchmarks.workloads.workload import WorkloadError

GROUPS = ("head", "middle", "tail")


def counts(classes: int, examples: int, exponent: float) -> npt.NDArray[np.int64]:
    """How many examples each class has, commonest first: in proportion to rank^(-exponent), and at least one."""
    share = np.arange(1, classes + 1, dtype=np.float64) ** -exponent
    wanted = 1 + (examples - classes) * share / share.sum()
    whole: npt.NDArray[np.int64] = np.floor(wanted).astype(np.int64)
    remainders = np.argsort(whole - wanted, kind="stable")[: examples - whole.sum()]
    whole[remainders] += 1
    return whole


def classes(
    classes: int = 1000,
    examples: int = 20_000,
    exponent: float = 1.0,
    inputs: str = "gaussian",
    dimension: int = 128,
    noise: float = 0.5,
    mean: float = 3.0,
    seed: int = 0,
) -> Mapping[str, npt.NDArray[Any]]:
    """Inputs around one point per class, and a quarter as many examples for testing, with the same frequencies.

    Args:
        classes: how many there are, at least 2.
        examples: for training, at least as many as four times the classes.
        exponent: of Zipf's law, at least 0; 0 has all classes equally frequent.
        inputs: ``"gaussian"``: standard normal points in `dimension` dimensions, divided by its root; ``"one-hot"``:
            the corners of a simplex, without noise or mean, where the classes decouple.
        dimension: of Gaussian inputs, at least 1.
        noise: standard deviation of an input around the point of its class, in units of the points' length.
        mean: length of the mean that all Gaussian inputs share, in the same units. As with pixels and activations, that
            are positive, the loss is steepest along it, which bounds the learning rate.
        seed: of all draws.
    """
    for name, value, least in (
        ("classes", classes, 2),
        ("examples", examples, 4 * classes),
        ("dimension", dimension, 1),
    ):
        if not isinstance(value, int) or value < least:
            raise WorkloadError(f"{name} must be a whole number, at least {least}, got {value!r}")
    for option, number in (("exponent", exponent), ("noise", noise), ("mean", mean)):
        if not number >= 0:
            raise WorkloadError(f"{option} must be at least 0, got {number!r}")
    if inputs not in ("gaussian", "one-hot"):
        raise WorkloadError(f"inputs must be 'gaussian' or 'one-hot', got {inputs!r}")
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((classes, dimension)) / np.sqrt(dimension)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part, size in (("train", examples), ("test", examples // 4)):
        labels = rng.permutation(np.repeat(np.arange(classes), counts(classes, size, exponent)))
        if inputs == "one-hot":
            arrays[f"x_{part}"] = labels[:, None] == np.arange(classes)
        else:
            spread = rng.standard_normal((size, dimension)) / np.sqrt(dimension)
            arrays[f"x_{part}"] = (mean / np.sqrt(dimension) + points[labels] + noise * spread).astype(np.float32)
        arrays[f"y_{part}"] = labels
    return arrays


class Frequencies(Classification):
    """Also tells the loss of the common, the middling and the rare classes, each with a third of the examples."""

    @override
    def arguments(self) -> Mapping[str, Any]:
        return {"inputs": self.data.x_train[0].numel(), "classes": self.classes, **self.config.workload_options}

    @override
    def judge(self, model: nn.Module, stored: Tensor, labels: Tensor) -> dict[str, float]:
        metrics = super().judge(model, stored, labels)
        group = self.groups()[labels.long()]
        for i, name in enumerate(GROUPS):
            chosen = group == i
            metrics[f"loss_{name}"] = super().judge(model, stored[chosen], labels[chosen])["loss"]
        return metrics

    def groups(self) -> Tensor:
        """The number of each class's group: the share of the training examples in commoner classes, in thirds."""
        frequency = torch.bincount(self.data.y_train.long(), minlength=self.classes)
        order = frequency.argsort(descending=True, stable=True)
        commoner = frequency[order].cumsum(0) - frequency[order]
        found = torch.empty_like(order)
        found[order] = (len(GROUPS) * commoner).div(frequency.sum(), rounding_mode="floor").long()
        return found
