"""A model, a data set and a workload of one's own: used, checked, fingerprinted and resumed like the benchmark's."""

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from benchmarks import workloads
from benchmarks.base.config import RunConfig
from benchmarks.base.errors import BenchmarkError
from benchmarks.base.records import Cost, Epoch
from benchmarks.base.references import ReferenceLookupError
from benchmarks.training.engine import train
from benchmarks.workloads import WorkloadError, fingerprint, metrics, of, sources
from benchmarks.workloads.cost import examples, flops_per_example
from benchmarks.workloads.data import DataError, load

CPU = torch.device("cpu")

MODULE = '''
import numpy as np
import torch
from torch import nn
from benchmarks.workloads.metrics import Metric
from benchmarks.workloads.workload import Workload

calls = []

def blobs(n=60, shift=0.0):
    """Two clouds of float64 points as a mapping of arrays."""
    calls.append(n)
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, 3)) + 4 * y[:, None] + shift
    return {"x_train": x[10:], "y_train": y[10:], "x_test": x[:10], "y_test": y[:10]}

def line():
    """Tensors of float32, a tuple, and a target of shape [n]."""
    x = torch.linspace(-1, 1, 64)[:, None]
    return x[::2], 3 * x[::2, 0] + 1, x[1::2], 3 * x[1::2, 0] + 1

def tokens():
    """Sequences that count, of a dtype that torch does not index with."""
    x = (np.arange(40)[:, None] + np.arange(12)).astype(np.uint16) % 7
    y = (x + 1) % 7
    return x[:30], y[:30], x[30:], y[30:]

def images(n=30):
    """Bytes of the shape of CIFAR-10."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8), (np.arange(n) % 10).astype(np.uint8)
    return x, y, x[:8], y[:8]

def drifting():
    """Other points at each call."""
    calls.append(0)
    return blobs(shift=len(calls))

class Net(nn.Sequential):
    """A perceptron with dropout."""
    def __init__(self, width=8, dropout=0.3, inputs=3, outputs=2):
        hidden = nn.Linear(inputs, width), nn.Dropout(dropout), nn.Tanh()
        super().__init__(nn.Flatten(), *hidden, nn.Linear(width, outputs))

class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 16)
        self.out = nn.Linear(16, 7)
    def forward(self, x):
        return self.out(self.embedding(x))

def picture_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def encoder():
    return nn.TransformerEncoderLayer(8, 2, dropout=0.1)

ERROR = Metric("rmse", "distance from the line", False)
own = Workload("own", "a line", "own_parts:line", "regression", ERROR,
               "own_parts:straight", "benchmarks.workloads.own:Regression")

def straight():
    return nn.Linear(1, 1)

def make():
    return own

nothing = 5
'''


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's module `own_parts`, importable for one test."""
    (tmp_path / "own_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    caches = (sources._given, workloads._given)
    for cache in caches:
        cache.cache_clear()
    yield
    sys.modules.pop("own_parts", None)
    for cache in caches:
        cache.cache_clear()


def _config(workload: str, **options: Any) -> RunConfig:
    return RunConfig(workload, "adam", {"lr": 0.03}, **{"epochs": 3, "batch_size": 10, **options})


BLOBS = _config("classification", model="own_parts:Net", data="own_parts:blobs")
LINE = _config("regression", model="own_parts:straight", data="own_parts:line", epochs=40)
TOKENS = _config("language", model="own_parts:Counter", data="own_parts:tokens", epochs=15)


def _train(config: RunConfig, folder: Path, **options: Any) -> list[Epoch] | None:
    return train(config, data_dir=folder, device=CPU, checkpoint=folder / "checkpoint.pt", **options)


@pytest.mark.parametrize(
    ("config", "metric", "target"), [(BLOBS, "top1", 100), (LINE, "rmse", 0.1), (TOKENS, "perplexity", 1.3)]
)
def test_own_model_and_data(tmp_path: Path, config: RunConfig, metric: str, target: float) -> None:
    """Arrays or tensors, named or in order, of any dtype, with labels, targets or next tokens: each is learned."""
    records = _train(config, tmp_path)
    assert records is not None
    reached = metrics.score(records[-1], config.workload)
    assert metrics.metric(config.workload) == metric
    assert reached == target if metric == "top1" else reached < target
    assert (flops_per_example(config) or 0) > 0
    if metric == "rmse":
        test = records[-1].test.running
        assert test["rmse"] == pytest.approx(math.sqrt(test["loss"] or 0))
        variance = (3 * torch.linspace(-1, 1, 64)[1::2]).var(correction=0).item()
        assert test["r2"] == pytest.approx(1 - (test["loss"] or 0) / variance, rel=1e-4)


def test_own_model_with_dropout_resumes_exactly(tmp_path: Path) -> None:
    """Dropout of the user's model draws from the run's generator: stopped after every step, the run ends the same."""
    records, rounds = None, 0
    while records is None:
        records = _train(BLOBS, tmp_path, should_stop=lambda: True)
        rounds += 1
    assert rounds == 15
    (tmp_path / "checkpoint.pt").unlink()
    torch.manual_seed(5)
    whole = _train(BLOBS, tmp_path)
    assert whole is not None
    timeless = [[msgspec.structs.replace(record, time=Cost()) for record in one] for one in (records, whole)]
    assert timeless[0] == timeless[1]
    other = _train(dataclasses.replace(BLOBS, workload_options={"dropout": 0.0}, seed=0), tmp_path / "..")
    assert other is not None
    assert other[0].train != whole[0].train


def test_own_model_on_a_named_workload(tmp_path: Path) -> None:
    """`model` alone replaces the network of any workload, takes its options, and keeps its data and metric."""
    config = _config(
        "digits-mlp", model="own_parts:Net", workload_options={"inputs": 64, "outputs": 10, "dropout": 0.0}
    )
    records = _train(config, tmp_path)
    assert records is not None
    assert metrics.score(records[-1], "digits-mlp") > 50
    assert fingerprint(config, tmp_path) == fingerprint(_config("digits-mlp"), tmp_path)


def test_own_data_on_a_named_workload(tmp_path: Path) -> None:
    """`data` alone replaces the data set where the shapes fit, augmentation included, and is refused where not."""
    config = _config("cifar10-fast", data="own_parts:images", epochs=1, workload_options={"width": 1 / 8})
    task: Any = of(config).task_class(of(config), config, tmp_path, CPU)
    assert (task.examples, task.margin) == (30, 4)
    assert _train(config, tmp_path) is not None
    assert fingerprint(config, tmp_path) != fingerprint(dataclasses.replace(config, data_options={"n": 20}), tmp_path)
    with pytest.raises(DataError, match=r"own_parts:blobs.*items \[32, 32, 3\].*got float32\[50, 3\]"):
        fingerprint(_config("cifar10-fast", data="own_parts:blobs"), tmp_path)


@pytest.mark.parametrize("reference", ["own_parts:own", "own_parts:make"])
def test_own_workload(tmp_path: Path, reference: str) -> None:
    """A Workload, or a function that returns one, trains, and its metric is read by its reference."""
    config = dataclasses.replace(LINE, workload=reference, model="", data="")
    records = _train(config, tmp_path)
    assert records is not None
    assert metrics.score(records[-1], reference) < 0.1
    assert metrics.title(reference) == "distance from the line"
    assert metrics.sign(reference) == -1


def test_cost_of_what_cannot_be_run_without_data_is_unknown(tmp_path: Path) -> None:
    """A model that looks at numbers, or does not exist, has no known cost; examples are counted without files."""
    (tmp_path / "looking.py").write_text(
        "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self):\n        super().__init__(3, 2)\n"
        "    def forward(self, x):\n        return super().forward(x) if x.sum().item() else x\n"
    )
    for model in ("looking:Net", "nowhere:Net"):
        assert flops_per_example(dataclasses.replace(BLOBS, model=model)) is None
    assert examples(BLOBS) == 50
    assert examples(dataclasses.replace(BLOBS, data="nowhere:points")) is None
    assert examples(_config("digits-mlp")) == 1437
    assert examples(_config("prose-lstm")) == len(load("prose", tmp_path).x_train)
    assert examples(_config("digits-mlp", split="validation")) == 1294


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    """Equal arrays have one fingerprint, other arguments or numbers another; 10,000 runs make the data twice."""
    first = fingerprint(BLOBS, tmp_path)
    for i in range(10_000):
        assert fingerprint(dataclasses.replace(BLOBS, hyper={"lr": i}), tmp_path) == first
    assert sys.modules["own_parts"].calls == [60, 60]
    shifted = dataclasses.replace(BLOBS, data_options={"shift": 1e-6})
    assert fingerprint(shifted, tmp_path) != first
    same = dataclasses.replace(BLOBS, data_options={"shift": 0.0})
    assert fingerprint(same, tmp_path) == first


def _given(function: str, **options: Any) -> dict[str, Any]:
    return {"workload": "classification", "model": "own_parts:Net", "data": f"own_parts:{function}", **options}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"workload": "classification", "data": "own_parts:blobs"},
            "classification needs a model of your own: give model = 'module:object'",
        ),
        (
            {"workload": "regression", "model": "own_parts:Net"},
            "regression needs a data of your own|needs data of your",
        ),
        ({"workload": "own_parts:nothing"}, "'own_parts:nothing' must be or return a Workload, got int"),
        ({"workload": "own_part:own"}, "'own_part:own': there is no module 'own_part'"),
        (_given("blob"), "'own_parts:blob': module 'own_parts' has no 'blob'; did you mean 'blobs'"),
        (_given("nothing"), "data 'own_parts:nothing' must be a function, got int"),
        (_given("drifting"), "data 'own_parts:drifting' must give the same arrays at every call"),
        (_given("blobs", data_options={"m": 3}), "data 'own_parts:blobs' does not take data_options {'m': 3}"),
        (_given("blobs", model="own_parts:nothing"), "model 'own_parts:nothing'"),
        (_given("blobs", workload_options={"wide": 3}), "model 'own_parts:Net' does not take {'wide': 3}"),
        (
            _given("blobs", workload_options={"inputs": 4}),
            r"model 'own_parts:Net' fails on a batch \[2, 3\] of float32",
        ),
        (
            _given("blobs", workload_options={"outputs": 1}),
            r"gives \[2, 1\] .*\[2, 'classes'\] with at least 2 classes",
        ),
        (_given("line"), "labels must be whole numbers from 0, got torch.float32"),
        (_given("blobs", model="own_parts:encoder"), r"self_attn \(MultiheadAttention\) draws at random"),
        ({"workload": "digits-mlp", "data_options": {"n": 1}}, "the data set 'digits' takes no data_options"),
        ({"workload": "imagenet-vgg16", "data": "own_parts:images"}, "imagenet-vgg16 reads a folder of images"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """Every misfit is one clear line that names the function at fault, before a step is taken."""
    config = RunConfig(optimizer="adam", hyper={"lr": 0.1}, epochs=1, **settings)

    def run() -> None:  # as the runner does
        fingerprint(config, tmp_path)
        _train(config, tmp_path)

    with pytest.raises(BenchmarkError, match=message) as caught:
        run()
    assert isinstance(caught.value, WorkloadError | DataError | ReferenceLookupError)
    assert not (tmp_path / "checkpoint.pt").exists()


GOOD = {"x_train": [[1.0], [2.0]], "y_train": [0, 1], "x_test": [[3.0]], "y_test": [1]}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (5, "must return x_train, y_train, x_test, y_test, got a int"),
        ((1, 2, 3), "got a tuple of 3"),
        ({"x_train": 1}, "must have the keys x_train, y_train, x_test, y_test, got x_train"),
        ({**GOOD, "y_train": [0]}, "x_train and y_train must be equally long, got 2 and 1"),
        ({**GOOD, "x_test": [], "y_test": []}, "x_test and y_test must be equally long|must have examples"),
        ({**GOOD, "x_test": [[3.0, 4.0]]}, r"x_train and x_test must have examples of one dtype and shape"),
        ({**GOOD, "x_train": [[1.0], [math.nan]]}, "x_train has numbers that are not finite in float32"),
        ({**GOOD, "x_train": [[1.0], [1e300]]}, "x_train has numbers that are not finite in float32"),
        ({**GOOD, "x_train": [["a"], ["b"]]}, "x_train must be an array of real numbers, got <U1"),
        ({**GOOD, "x_train": 3.0}, "x_train must be an array of real numbers"),
    ],
)
def test_arrays_that_cannot_be_trained_on(tmp_path: Path, arrays: object, message: str) -> None:
    """Whatever a data function gives is checked: keys, lengths, shapes, dtypes and numbers."""
    __import__("own_parts").given = lambda: arrays
    with pytest.raises(DataError, match=f"data 'own_parts:given'.*{message}|data 'own_parts:given':.*{message}"):
        fingerprint(_config("classification", model="own_parts:Net", data="own_parts:given"), tmp_path)
