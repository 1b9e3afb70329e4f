"""Small tasks, and one short training run on them at a constant learning rate."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.workloads.data import Arrays, DataError, load
from benchmarks.workloads.models.small import mlp
from partial_adaptive import PartialAdam

BATCH = 64
EXAMPLES = 2_000  # at most, of those that the loss and the accuracy at the end are taken from
CONTEXT = 8  # characters from which the next one is told
CHARACTERS = 128


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set and networks for it.

    Args:
        name: of the data set.
        build: a network, from the width of its hidden layers.
        train: examples and labels.
        test: the same.
        steps: of a run.
    """

    name: str
    build: Callable[[int], nn.Sequential]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    steps: int


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Args:
        loss: the mean cross-entropy of training examples; infinite where it is not finite, or worse than a guess.
        accuracy: of the test examples, in percent.
    """

    loss: float
    accuracy: float


def digits(data_dir: Path, steps: int) -> Task:
    """scikit-learn's digits for a perceptron with two hidden layers."""
    train, test = _images(load("digits", data_dir), 16)
    return Task("digits", lambda width: mlp(64, 10, width), train, test, steps)


def fashion(data_dir: Path, steps: int) -> Task:
    """Fashion-MNIST for the same, which is missing where it is not in the data directory and cannot be downloaded."""
    train, test = _images(load("fashion", data_dir), 255)
    return Task("fashion", lambda width: mlp(784, 10, width), train, test, steps)


def text(data_dir: Path, steps: int) -> Task:
    """The next character of the standard library's manual, from the eight before it."""
    data = load("text", data_dir)
    train, test = (_contexts(x, y) for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)))

    def build(width: int) -> nn.Sequential:
        read = (nn.Embedding(CHARACTERS, 16), nn.Flatten(), nn.Linear(16 * CONTEXT, width), nn.ReLU())
        return nn.Sequential(*read, nn.Linear(width, CHARACTERS))

    return Task("text", build, train, test, steps)


def available(data_dir: Path) -> tuple[Task, ...]:
    """The tasks on which a learning rate is carried from one p to another: those whose data are there."""
    found = []
    for make, steps in ((digits, 300), (fashion, 900), (text, 900)):
        try:
            found.append(make(data_dir, steps))
        except DataError as error:
            print(f"left out: {error}", flush=True)
    return tuple(found)


def optimizer_of(model: nn.Module, lr: float, partial: float) -> PartialAdam:
    """The member that is Adam at p = 1/2."""
    return PartialAdam(model.parameters(), lr=lr, partial=partial)


def started(task: Task, lr: float, partial: float, width: int, seed: int, steps: int) -> tuple[nn.Module, PartialAdam]:
    """A network after some steps, its last gradients in place: runs of a seed have the same start and batches."""
    torch.manual_seed(seed)
    model = task.build(width)
    optimizer = optimizer_of(model, lr, partial)
    x, y = task.train
    generator = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(1 + steps * BATCH // len(x))])
    for batch in order.split(BATCH)[:steps]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    return model, optimizer


def run(task: Task, lr: float, partial: float, width: int, seed: int) -> Result:
    """Train, and measure."""
    model, _ = started(task, lr, partial, width, seed, task.steps)
    with torch.no_grad():
        (x, y), (x_test, y_test) = task.train, task.test
        logits = model(x[:EXAMPLES])
        loss = nn.functional.cross_entropy(logits, y[:EXAMPLES]).item()
        right = model(x_test[:EXAMPLES]).argmax(1) == y_test[:EXAMPLES]
    guess = math.log(logits.shape[1])
    return Result(loss if loss < guess else math.inf, 100 * right.float().mean().item())


def _images(data: Arrays, largest: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def pair(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(x).flatten(1).float().div(largest), torch.from_numpy(y).long()

    return pair(data.x_train, data.y_train), pair(data.x_test, data.y_test)


def _contexts(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
    contexts = torch.from_numpy(x).long().reshape(-1, CONTEXT)
    return contexts, torch.from_numpy(y).long().reshape(-1, CONTEXT)[:, -1]
