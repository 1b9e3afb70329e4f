"""The registry, and every kind of workload small enough to train here."""

import dataclasses
import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from synthetic import cifar10, imagenet, text
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks import workloads
from benchmarks.base.config import RunConfig
from benchmarks.base.records import Cost, Epoch, number
from benchmarks.speed import overhead
from benchmarks.training.engine import train
from benchmarks.workloads import REGISTRY, WorkloadError, catalogue, find, metrics, sources
from benchmarks.workloads.cost import flops_per_example
from benchmarks.workloads.dropout import Dropout
from benchmarks.workloads.models.resnet import resnet18
from benchmarks.workloads.resident import crop
from benchmarks.workloads.task import memory_format

CPU = torch.device("cpu")
ADAM = {"lr": 1e-3}


EMBEDDED = [
    ("digits-mlp", {"hidden": 16}),
    ("digits-vit", {"width": 16, "layers": 1}),
    ("cifar10-vgg16", {"width": 1 / 16}),
    ("cifar10-resnet18", {"width": 1 / 16}),
    ("cifar10-wrn16-4", {"width": 1 / 8}),
    ("cifar10-wrn16-4-original", {"width": 1 / 8}),
    ("cifar10-fast", {"width": 1 / 8}),
    ("text-lstm", {"hidden": 8}),
    ("prose-lstm", {"hidden": 8}),
    ("prose-transformer-small", {}),
    ("prose-transformer-medium", {"tied": False}),
    ("prose-transformer-large", {}),
    ("zipf-softmax", {"bias": False}),
    ("friedman-mlp", {"hidden": 16}),
    ("ring-gan", {"hidden": 8}),
]
"""The workloads whose data is embedded, generated or easily imitated, as small as they go."""


def test_registry_has_what_the_issues_list() -> None:
    """All workloads of the benchmark are there by name, each with a description."""
    cifar = {f"cifar{n}-{net}" for n in (10, 100) for net in ("vgg16", "resnet18", "wrn16-4", "wrn16-4-original")}
    own = {"classification", "language", "regression"}
    others = {"fashion-cnn", "fashion-vit", "imagenet-vgg16", "imagenet-resnet18", "fashion-dcgan"}
    assert set(REGISTRY) == cifar | others | own | {name for name, _ in EMBEDDED}
    assert all(name == w.name and w.description for name, w in REGISTRY.items())


def test_names_and_descriptions_are_read_without_torch() -> None:
    """``list`` and ``--help`` stay quick: the catalogue imports nothing of torch."""
    program = "import sys, benchmarks.workloads.metrics as m; m.title('digits-mlp'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=Path(workloads.__file__).parents[2], check=True)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    """A typo in a workload or an option is an error that suggests what was meant."""
    with pytest.raises(WorkloadError, match="unknown workload 'cifar10-vgg'; did you mean 'cifar10-vgg16'"):
        find("cifar10-vgg")
    with pytest.raises(WorkloadError, match="unknown option 'widht' of cifar10-vgg16; did you mean 'width'"):
        find("cifar10-vgg16", {"widht": 1})


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("cifar10-vgg16", "width", -1, "a number from 0.015625 to 16"),
        ("cifar10-vgg16", "width", 0.01, "a number from"),
        ("cifar10-vgg16", "width", math.nan, "a number from"),
        ("cifar10-vgg16", "width", True, "a number from"),
        ("cifar10-vgg16", "width", "wide", "a number from"),
        ("digits-mlp", "hidden", 0, "a whole number from 1 to 65536"),
        ("digits-mlp", "hidden", 16.5, "a whole number"),
        ("prose-transformer-small", "tied", 1, "true or false"),
    ],
)
def test_options_out_of_range(name: str, option: str, value: object, allowed: str) -> None:
    """A width below zero, or a value of another kind, is refused by name before anything is built."""
    with pytest.raises(WorkloadError, match=f"option {option} of {name} must be {allowed}.*, got {value!r}"):
        find(name, {option: value})


@pytest.mark.parametrize("name", [name for name, workload in REGISTRY.items() if workload.options])
def test_options_reach_the_network(name: str) -> None:
    """Every option is a parameter of the network or known to the task, and its least value still builds one."""
    workload = REGISTRY[name]
    for option, kind in (workload.options or {}).items():
        value = True if kind.kind is bool else max(kind.low, 4) if option == "width" and kind.kind is int else kind.low
        config = RunConfig(name, "adam", ADAM, epochs=1, workload_options={option: value})
        assert find(name, config.workload_options) is workload
        assert (flops_per_example(config) or 0) > 0


def _timeless(records: list[Epoch] | None) -> list[Epoch]:
    assert records is not None
    return [msgspec.structs.replace(record, time=Cost()) for record in records]


@pytest.mark.parametrize(("workload", "options"), EMBEDDED)
def test_each_trains_and_resumes(tmp_path: Path, workload: str, options: dict[str, Any]) -> None:
    """Every workload trains, has the metric that its tables show, and ends the same however often it is stopped."""
    config = RunConfig(
        workload, "adam", ADAM, epochs=2, batch_size=4, max_steps=3, recalibrate=2, workload_options=options
    )
    folder = text(text(cifar10(tmp_path), "text"), "prose")
    records = train(config, data_dir=folder, device=CPU, checkpoint=tmp_path / "undisturbed.pt")
    assert records is not None
    metric = metrics.of(workload)
    for record in records:
        assert metric.bounds[0] <= metrics.score(record, workload) <= metric.bounds[1]
    if REGISTRY[workload].task == "language":
        test = records[0].test.running
        assert test["perplexity"] == pytest.approx(math.exp(number(test["loss"])))
    again = None
    while again is None:
        again = train(
            config, data_dir=folder, device=CPU, checkpoint=tmp_path / "stopped.pt", should_stop=_every_third().__next__
        )
    assert _timeless(again) == _timeless(records)


def _every_third() -> Iterator[bool]:
    return itertools.cycle([False, False, True])


@pytest.mark.parametrize(("workload", "options"), [pair for pair in EMBEDDED if pair[0] != "ring-gan"])
def test_the_loss_falls(tmp_path: Path, workload: str, options: dict[str, Any]) -> None:
    """A few steps on one batch lower its loss by a tenth: gradients reach the weights, labels belong to the inputs."""
    config = RunConfig(workload, "adam", ADAM, epochs=1, workload_options=options)
    found = find(workload, options)
    task = found.task_class(found, config, text(text(cifar10(tmp_path), "text"), "prose"), CPU)
    model = task.model()
    optimizer = torch.optim.Adam(model.parameters(), 3e-2 if workload.endswith("lstm") else 1e-2)
    losses = []
    for _ in range(8):
        loss, _ = task.loss(model, (torch.arange(8),), torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.9 * losses[0]


@pytest.mark.parametrize("dataset", ["digits", "ring", "benchmarks.workloads.zipf:classes"])
def test_train_examples(tmp_path: Path, dataset: str) -> None:
    """What the catalogue says of the size of a training set is what loading it gives, where that can be had here."""
    examples = catalogue.EXAMPLES[dataset]
    assert len(sources.load(sources.Source(dataset), tmp_path).x_train) == examples
    assert {w.train_examples for w in REGISTRY.values() if w.dataset == dataset} == {examples}


def test_flops_are_counted() -> None:
    """The perceptron's products are known exactly; the paper's networks have the published arithmetic per epoch."""
    products = 64 * 8 + 8 * 8 + 8 * 10
    config = RunConfig("digits-mlp", "adam", ADAM, epochs=1, workload_options={"hidden": 8})
    assert flops_per_example(config) == 2 * (3 * products - 64 * 8), "the images need no gradient"
    for name, petaflop in (("vgg16", 0.094), ("resnet18", 0.166), ("wrn16-4", 0.126)):
        config = RunConfig(f"cifar10-{name}", "adam", ADAM, epochs=1)
        assert 50_000 * (flops_per_example(config) or 0) == pytest.approx(petaflop * 1e15, rel=0.01)
    whole, half = (
        flops_per_example(RunConfig("cifar10-vgg16", "adam", ADAM, epochs=1, workload_options={"width": width})) or 0
        for width in (1, 0.5)
    )
    assert 3.9 < whole / half < 4


def test_bf16(tmp_path: Path) -> None:
    """Autocast changes the arithmetic of the forward, and leaves the parameters in float32."""
    config = RunConfig("cifar10-resnet18", "adam", ADAM, epochs=1, batch_size=32, workload_options={"width": 1 / 16})
    folder = cifar10(tmp_path)
    losses = []
    for precision in ("fp32", "bf16"):
        workload = find(config.workload)
        task = workload.task_class(workload, dataclasses.replace(config, precision=precision), folder, CPU)
        model = task.model()
        losses.append(task.loss(model, (torch.arange(32),), torch.Generator().manual_seed(0))[0].item())
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_dcgan_samples_have_the_shape_of_the_data(tmp_path: Path) -> None:
    """The generator's images and the distance to the data are computed at 28x28."""
    model = REGISTRY["fashion-dcgan"].build(latent=64, width=1 / 8)
    assert isinstance(model.generator, nn.Module)
    assert model.generator(torch.randn(2, 64)).shape == (2, 1, 28, 28)


def test_gan_metrics(tmp_path: Path) -> None:
    """Real data judged as samples is near, reaches all modes and is of full quality; a collapsed set is not."""
    workload = REGISTRY["ring-gan"]
    task: Any = workload.task_class(workload, RunConfig("ring-gan", "adam", ADAM, epochs=1), tmp_path, CPU)
    draws = torch.Generator().manual_seed(0)
    data, more = (task.real(task.data.x_test, draws) for _ in range(2))
    good, collapsed = task.judge(more, data), task.judge(torch.tensor([[2.0, 0.0]]).expand_as(data), data)
    assert good["distance"] < 0.05 < 0.5 < collapsed["distance"]
    assert (good["modes"], collapsed["modes"]) == (8, 1)
    assert good["quality"] > 99
    assert collapsed["quality"] == 100


def test_validation_split_holds_out_the_last_tenth(tmp_path: Path) -> None:
    """Candidates of a tuned study are judged on the last tenth of the training set and never train on it."""
    folder = cifar10(tmp_path)
    workload = find("cifar10-resnet18")
    config = RunConfig("cifar10-resnet18", "adam", ADAM, epochs=1)
    whole: Any = workload.task_class(workload, config, folder, CPU)
    task: Any = workload.task_class(workload, dataclasses.replace(config, split="validation"), folder, CPU)
    assert (whole.examples, task.examples) == (96, 87)
    assert torch.equal(task.data.x_test, crop(whole.data.x_train, 4)[87:])
    assert torch.equal(task.data.y_test, whole.data.y_train[87:])


def test_normalization_is_torchvisions(tmp_path: Path) -> None:
    """uint8 pixels become what ToTensor and Normalize make of them."""
    from torchvision.transforms import v2

    workload = find("cifar10-vgg16")
    config = RunConfig("cifar10-vgg16", "adam", ADAM, epochs=1)
    task: Any = workload.task_class(workload, config, cifar10(tmp_path), CPU)
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ]
    )
    got = task.inputs(task.model(), task.data.x_test)
    torch.testing.assert_close(
        got[3], transform(task.data.x_test[3].numpy()).as_subclass(torch.Tensor), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("device", "convolution", "expected"),
    [
        ("cpu", nn.Conv2d(15, 32, 1, 2), torch.contiguous_format),
        ("cuda", nn.Conv2d(15, 32, 1, 2), torch.channels_last),
        ("cpu", nn.Conv2d(16, 32, 1, 2), torch.channels_last),
        ("cpu", nn.Conv2d(15, 32, 1), torch.channels_last),
        ("cpu", nn.Conv2d(15, 32, 3, 2), torch.channels_last),
    ],
)
def test_memory_format(device: str, convolution: nn.Module, expected: torch.memory_format) -> None:
    """Channels last, but on a CPU with a strided 1x1 convolution of few channels."""
    assert memory_format(nn.Sequential(nn.Conv2d(3, 15, 3), convolution), torch.device(device)) is expected


@pytest.mark.parametrize(
    "workload", ["cifar10-resnet18", "cifar10-wrn16-4", "cifar10-wrn16-4-original", "imagenet-resnet18"]
)
def test_no_unsafe_convolution_runs_in_channels_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workload: str
) -> None:
    """Neither the image nor the weight of one, on any CPU: in training, in evaluation, and in the hand-written loop."""
    seen = 0

    def look(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        if isinstance(layer, nn.Conv2d) and layer.kernel_size < layer.stride and layer.in_channels < 16:
            seen += 1
            for tensor in (*args, layer.weight):
                assert tensor.stride() == torch.empty(tensor.shape).stride()

    narrow = dataclasses.replace(
        REGISTRY["imagenet-resnet18"], network=lambda num_classes: resnet18(num_classes, 1 / 16), fixed={}
    )
    monkeypatch.setattr(workloads, "REGISTRY", {**REGISTRY, narrow.name: narrow})
    options = {"size": 32} if workload == narrow.name else {"width": 1 / 16}
    config = RunConfig(workload, "sgd", {"lr": 0.01}, epochs=1, batch_size=24, recalibrate=1, workload_options=options)
    folder = imagenet(cifar10(tmp_path))
    hook = register_module_forward_pre_hook(look)
    try:
        train(config, data_dir=folder, device=CPU, checkpoint=tmp_path / "checkpoint.pt")
        if workload != narrow.name:
            overhead.measure(config, folder, rounds=1)
    finally:
        hook.remove()
    assert seen


def test_initial_weights_follow_the_seed(tmp_path: Path) -> None:
    """Equal seeds have equal weights whatever torch's global generator does, other seeds others."""
    weights = []
    for seed in (0, 0, 1):
        torch.rand(3)
        config = RunConfig("digits-mlp", "adam", ADAM, epochs=1, seed=seed)
        workload = find("digits-mlp")
        model = workload.task_class(workload, config, tmp_path, CPU).model()
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_images_are_cropped_and_flipped(tmp_path: Path) -> None:
    """A batch to train on has the size of the images and other pixels; equal draws give equal pixels."""
    workload, config = find("cifar10-vgg16"), RunConfig("cifar10-vgg16", "adam", ADAM, epochs=1)
    task: Any = workload.task_class(workload, config, cifar10(tmp_path), CPU)
    first, again, other = (task.drawn(torch.arange(20), torch.Generator().manual_seed(i)) for i in (1, 1, 2))
    whole = crop(task.data.x_train, task.margin)[:20]
    assert first.shape == whole.shape == (20, 32, 32, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, whole)


def test_dropout_draws_from_its_own_generator() -> None:
    """The same draws for the same generator state, whatever the global one does; nothing dropped in evaluation."""
    layer, x = Dropout(0.25), torch.ones(10_000)
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        layer.generator = torch.Generator().manual_seed(5)
        outputs.append(layer(x))
    assert torch.equal(*outputs)
    assert outputs[0].mean() == pytest.approx(1, abs=0.03)
    assert torch.equal(layer.eval()(x), x)
