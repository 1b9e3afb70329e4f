"""The networks have the published sizes and shapes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.workloads.models import small
from benchmarks.workloads.models.fast import FastNet
from benchmarks.workloads.models.resnet import resnet18, wrn_16_4_authors
from benchmarks.workloads.models.vgg import VGG16
from benchmarks.workloads.models.wide_resnet import WideResNet

CIFAR = {VGG16: 14_728_266, resnet18: 11_173_962, wrn_16_4_authors: 2_777_674, WideResNet: 2_748_890}
CIFAR[FastNet] = 416_248


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("build", CIFAR)
def test_parameter_counts(build: Callable[..., nn.Module]) -> None:
    """Parameter counts are those of the authors' code, of the original WRN-16-4 (2.749 M), and what we say ours is."""
    assert _size(build(classes=10)) == CIFAR[build]
    assert _size(build(classes=100)) > CIFAR[build]


@pytest.mark.parametrize("build", CIFAR)
def test_width_scales_the_channels(build: Callable[..., nn.Module]) -> None:
    """A net of an eighth of the width has about a 64th of the parameters and still maps images to logits."""
    model = build(classes=10, width=1 / 8)
    assert CIFAR[build] / 80 < _size(model) < CIFAR[build] / 50
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_fast_net_begins_as_the_identity() -> None:
    """3x3 convolutions pass their inputs on, and the last maximum is over the whole of the 3x3 image that is left."""
    model = FastNet(classes=10, width=1 / 8)
    seen: list[tuple[int, ...]] = []
    model.layers[-2].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:]))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(3, 3)]
    assert model.layers[-2].kernel_size == 3
    for layer in model.layers:
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            x = torch.randn(1, layer.in_channels, 5, 5)
            torch.testing.assert_close(layer(x)[:, : layer.in_channels], x)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_small_convolutional_net(batch_norm: bool) -> None:
    """With batch norm or without, it maps 28x28 images to logits; a shift per channel is learned either way."""
    model = small.cnn(classes=10, width=1 / 8, batch_norm=batch_norm)
    assert model(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    norms = [layer for layer in model if isinstance(layer, nn.BatchNorm2d)]
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    assert len(norms) == (2 if batch_norm else 0)
    assert [layer.bias is None for layer in convolutions] == [batch_norm] * 2


@pytest.mark.parametrize(("name", "size"), [("vgg16_bn", 138_365_992), ("resnet18", 11_689_512)])
def test_imagenet_nets_are_torchvisions(name: str, size: int) -> None:
    """The ImageNet workloads build torchvision's networks of 1000 classes."""
    from benchmarks.workloads import REGISTRY

    with torch.device("meta"):
        assert _size(REGISTRY[f"imagenet-{name.removesuffix('_bn')}"].build(num_classes=1000)) == size


@pytest.mark.parametrize("model", [small.ring_gan(latent=8), small.dcgan(latent=8, width=1 / 8)], ids=["ring", "dcgan"])
def test_adversarial_losses_do_not_mix(model: small.GAN) -> None:
    """The generator's loss has no gradient in the discriminator, nor the discriminator's in the generator."""
    noise = torch.randn(4, 8)
    real = torch.randn_like(model.generator(noise).detach())
    on_real, on_fake, fooled = model(real, noise)
    fooled.sum().backward()
    assert all(p.grad is None for p in model.discriminator.parameters())
    assert all(p.grad is not None for p in model.generator.parameters())
    model.zero_grad()
    (on_real + on_fake).sum().backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for p in model.discriminator.parameters())
