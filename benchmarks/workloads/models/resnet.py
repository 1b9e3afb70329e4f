"""Residual networks for 32x32 images with the activation after the sum, as in the authors' code."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions, and a projection on the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 stem, stages of two blocks each, average pooling and one linear layer.

    Args:
        channels: of each stage; the stem has those of the first.
        classes: number of outputs.
        width: factor on every channel count.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: float = 1.0) -> None:
        super().__init__()
        sizes = [round(width * c) for c in channels]
        self.stem = nn.Sequential(
            nn.Conv2d(3, sizes[0], 3, padding=1, bias=False), nn.BatchNorm2d(sizes[0]), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        inputs = sizes[0]
        for stage, outputs in enumerate(sizes):
            blocks += [Block(inputs, outputs, stride=1 if stage == 0 else 2), Block(outputs, outputs, stride=1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def resnet18(classes: int, width: float = 1.0) -> ResNet:
    """ResNet-18 in its CIFAR form; 11,173,962 parameters for 10 classes."""
    return ResNet((64, 128, 256, 512), classes, width)


def wrn_16_4_authors(classes: int, width: float = 1.0) -> ResNet:
    """What the authors' code calls WRN-16-4: post-activation, a 64-wide stem; 2,777,674 parameters for 10 classes."""
    return ResNet((64, 128, 256), classes, width)
