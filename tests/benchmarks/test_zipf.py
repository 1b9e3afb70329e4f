"""Softmax regression under Zipf's law, against its closed forms."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import studies
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.training.engine import train
from benchmarks.workloads import find, of, zipf
from benchmarks.workloads.models.small import softmax_regression
from benchmarks.workloads.zipf import counts

CPU = torch.device("cpu")
CLASSES = 12


def _data(inputs: str, dimension: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs in float64, labels, and the share of each class."""
    arrays = zipf.classes(CLASSES, 400, inputs=inputs, dimension=dimension)
    x, y = torch.from_numpy(arrays["x_train"]).double(), torch.from_numpy(arrays["y_train"])
    return x, y, torch.bincount(y).double() / len(y)


def _model(inputs: int, bias: bool = False) -> torch.nn.Linear:
    return softmax_regression(inputs, CLASSES, bias).double()


@pytest.mark.parametrize(("classes", "examples", "exponent"), [(2, 8, 0.0), (1000, 20_000, 1.0), (50, 300, 2.0)])
def test_counts(classes: int, examples: int, exponent: float) -> None:
    """All examples are dealt out, commoner classes never have fewer, none has none, and the ratios are Zipf's."""
    found = counts(classes, examples, exponent)
    assert found.sum() == examples
    assert found.min() >= 1
    assert (np.diff(found) <= 0).all()
    assert (found[0] - 1) / (found[1] - 1) == pytest.approx(2**exponent, rel=0.02)


def test_gradient_at_zero() -> None:
    """Class c's gradient at W = 0 is x̄/C - π_c x̄_c, x̄ being the mean input and x̄_c that of the class."""
    x, y, share = _data("gaussian")
    model = _model(5)
    F.cross_entropy(model(x), y).backward()
    means = torch.stack([x[y == c].mean(0) for c in range(CLASSES)])
    expected = x.mean(0) / CLASSES - share[:, None] * means
    torch.testing.assert_close(model.weight.grad, expected, rtol=1e-10, atol=1e-12)


def _block(x: Tensor, y: Tensor, bias: Tensor, c: int) -> Tensor:
    """The Hessian's diagonal block of class c at W = 0."""

    def loss(row: Tensor) -> Tensor:
        weight = torch.zeros(CLASSES, x.shape[1], dtype=torch.float64).index_put((torch.tensor(c),), row)
        return F.cross_entropy(x @ weight.T + bias, y)

    found: Any = torch.autograd.functional.hessian(loss, torch.zeros(x.shape[1], dtype=torch.float64))
    return torch.as_tensor(found)


@pytest.mark.parametrize("c", [0, CLASSES - 1])
def test_hessian_blocks(c: int) -> None:
    """The block of class c is p_c (1 - p_c) E[x xᵀ]: at zero one for all, later as rare as the class."""
    x, y, share = _data("gaussian")
    moment = x.T @ x / len(x)
    for bias, p in ((torch.zeros(CLASSES).double(), 1 / CLASSES), (share.log(), float(share[c]))):
        torch.testing.assert_close(_block(x, y, bias, c), p * (1 - p) * moment, rtol=1e-10, atol=1e-12)


def test_frequencies_alone_leave_their_entropy() -> None:
    """With W = 0 the best biases are the log frequencies, the gradient vanishes there, and the loss is the entropy."""
    x, y, pi = _data("gaussian")
    model = _model(5, bias=True)
    model.bias.data.copy_(pi.log())
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    assert loss.item() == pytest.approx(-(pi * pi.log()).sum().item(), rel=1e-10)
    assert model.bias.grad is not None
    assert model.bias.grad.abs().max() < 1e-12


def _descend(step: Any, steps: int) -> tuple[Tensor, Tensor]:
    """The losses per class along a descent on one-hot inputs with the full batch, and the class frequencies."""
    x, y, share = _data("one-hot")
    model = _model(CLASSES)
    found = []
    for _ in range(steps):
        model.zero_grad()
        losses = F.cross_entropy(model(x), y, reduction="none")
        losses.mean().backward()
        found.append(torch.stack([losses[y == c].mean() for c in range(CLASSES)]).detach())
        assert model.weight.grad is not None
        model.weight.data -= step(model.weight.grad)
    return torch.stack(found), share


def test_sign_descent_learns_all_classes_alike() -> None:
    """On one-hot inputs the loss of every class after t steps of size η is log(1 + (C - 1) exp(-2 η t))."""
    losses, _ = _descend(lambda gradient: 0.1 * gradient.sign(), 30)
    expected = (1 + (CLASSES - 1) * (-0.2 * torch.arange(30.0).double()).exp()).log()
    torch.testing.assert_close(losses, expected[:, None].expand(30, CLASSES), rtol=1e-10, atol=1e-10)


def test_gradient_descent_learns_by_frequency() -> None:
    """On one-hot inputs each class follows a margin of its own, δ ← δ + η π_c C / (C - 1 + e^δ): rare ones crawl."""
    losses, pi = _descend(lambda gradient: 2.0 * gradient, 30)
    margin, expected = torch.zeros(CLASSES).double(), []
    for _ in range(30):
        expected.append((1 + (CLASSES - 1) * (-margin).exp()).log())
        margin = margin + 2 * pi * CLASSES / (CLASSES - 1 + margin.exp())
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-10, atol=1e-10)
    assert losses[-1, -1] > 5 * losses[-1, 0]


def test_groups_are_thirds_by_frequency(tmp_path: Path) -> None:
    """Head, middle and tail have about a third of the examples each, commoner classes first; their losses add up."""
    config = RunConfig("zipf-softmax", "adam", {"lr": 0.1}, epochs=1)
    workload = find("zipf-softmax")
    task: Any = workload.task_class(workload, config, tmp_path, CPU)
    group, labels = task.groups(), task.data.y_train
    assert group.tolist() == sorted(group.tolist())
    shares = torch.bincount(group[labels]) / len(labels)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.07)
    model = task.model()
    torch.nn.init.normal_(model.weight)
    found = task.evaluate(model)
    weights = torch.bincount(group[task.data.y_test]) / len(task.data.y_test)
    parts = [found[f"loss_{name}"] for name in zipf.GROUPS]
    assert found["loss"] == pytest.approx(float(weights @ torch.tensor(parts)), rel=1e-5)


def test_adaptive_steps_learn_the_tail(tmp_path: Path) -> None:
    """With its best learning rate Adam's loss on the rare third is far below SGD's with its best, on the defaults.

    The best of half decades, five epochs at a constant rate, in batches of 256: here two epochs say enough.
    """
    tail = {}
    for optimizer, hyper in (("sgd", {"lr": 10.0, "momentum": 0.9}), ("adam", {"lr": 0.1})):
        config = RunConfig("zipf-softmax", optimizer, hyper, epochs=2, batch_size=256, recalibrate=0)
        records = train(config, data_dir=tmp_path, device=CPU, checkpoint=tmp_path / f"{optimizer}.pt")
        assert records is not None
        tail[optimizer] = records[-1].test.running["loss_tail"] or math.nan
    assert tail["adam"] < tail["sgd"] / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes must be a whole number, at least 2, got 1"),
        ({"examples": 100}, "examples must be a whole number, at least 4000, got 100"),
        ({"exponent": -1.0}, "exponent must be at least 0"),
        ({"inputs": "images"}, "inputs must be 'gaussian' or 'one-hot', got 'images'"),
        ({"clases": 3}, "does not take data_options"),
    ],
)
def test_data_options_out_of_range(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """What the data cannot be made with is refused by name."""
    config = RunConfig("zipf-softmax", "adam", {}, epochs=1, data_options=options)
    with pytest.raises(BenchmarkError, match=message):
        of(config).task_class(of(config), config, tmp_path, CPU)


def test_a_study_sets_the_options_of_generated_data(tmp_path: Path) -> None:
    """`data_options` of a study reach the function that makes the data; one that it does not have is named."""
    text = 'title = "z"\n[[runs]]\nworkload = "zipf-softmax"\noptimizer = "adam"\nepochs = 1\ndata_options.{} = 50\n'
    study = tmp_path / "rare.toml"
    study.write_text(text.format("classes"))
    config = studies.load(str(study)).arms[0].config
    assert of(config).task_class(of(config), config, tmp_path, CPU).model().out_features == 50
    study.write_text(text.format("clases"))
    with pytest.raises(BenchmarkError, match=r"data_options.clases: .*did you mean 'classes'"):
        studies.load(str(study))
