"""The registry, and every kind of workload small enough to train here."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import cifar10, imagenet
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks import workloads
from benchmarks.base.config import RunConfig
from benchmarks.speed import overhead
from benchmarks.training.engine import train
from benchmarks.workloads import REGISTRY, WorkloadError, find
from benchmarks.workloads.imagenet import Dropout
from benchmarks.workloads.models.resnet import resnet18
from benchmarks.workloads.resident import crop
from benchmarks.workloads.task import memory_format

CPU = torch.device("cpu")
ADAM = {"lr": 1e-3}


def test_registry_has_what_the_issue_lists() -> None:
    """All workloads of the benchmark are there by name, each with a description."""
    cifar = {f"cifar{n}-{net}" for n in (10, 100) for net in ("vgg16", "resnet18", "wrn16-4", "wrn16-4-original")}
    others = {
        "digits-mlp",
        "fashion-cnn",
        "imagenet-vgg16",
        "imagenet-resnet18",
        "text-lstm",
        "ring-gan",
        "fashion-dcgan",
    }
    assert set(REGISTRY) == cifar | others
    assert all(name == w.name and w.description for name, w in REGISTRY.items())


def test_unknown_names_are_answered_with_the_nearest() -> None:
    """A typo in a workload or an option is an error that suggests what was meant."""
    with pytest.raises(WorkloadError, match="unknown workload 'cifar10-vgg'; did you mean 'cifar10-vgg16'"):
        find("cifar10-vgg")
    with pytest.raises(WorkloadError, match="unknown option 'widht' of cifar10-vgg16; did you mean 'width'"):
        find("cifar10-vgg16", {"widht": 1})


@pytest.mark.parametrize(
    ("workload", "options"),
    [
        ("digits-mlp", {"hidden": 16}),
        ("cifar10-vgg16", {"width": 1 / 16}),
        ("cifar10-wrn16-4", {"width": 1 / 8}),
        ("cifar10-wrn16-4-original", {"width": 1 / 8}),
        ("text-lstm", {"hidden": 8}),
        ("ring-gan", {"hidden": 8}),
    ],
)
def test_an_epoch_of_each(tmp_path: Path, workload: str, options: dict[str, Any]) -> None:
    """Every kind of workload trains, and its records have the metric that its tables show."""
    config = RunConfig(
        workload, "adam", ADAM, epochs=1, batch_size=32, max_steps=4, recalibrate=2, workload_options=options
    )
    folder = cifar10(tmp_path)
    records = train(config, data_dir=folder, device=CPU, checkpoint=tmp_path / "checkpoint.pt")
    assert records is not None
    test = records[0]["test"]["running"]
    assert math.isfinite(test[REGISTRY[workload].metric])
    assert math.isfinite(records[0]["train"]["online_loss"])
    if workload == "text-lstm":
        assert test["perplexity"] == pytest.approx(math.exp(test["loss"]))


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

    narrow = dataclasses.replace(REGISTRY["imagenet-resnet18"], build=lambda num_classes: resnet18(num_classes, 1 / 16))
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
