"""A small fast network for 32x32 colour images, in the spirit of airbench (Jordan 2024, arXiv 2404.00498).

Taken over: a 2x2 convolution first, three groups of convolution, pooling, norm, GELU, convolution, norm, GELU, a last
maximum over what is left of the image, logits scaled down by 9, and 3x3 convolutions that begin as the identity where
they can. Not taken over: whitening and freezing the first layer, norms without a scale, alternating flips, test-time
augmentation, averaged weights; and it has half the channels.
"""

import torch
from torch import Tensor, nn

CHANNELS = (48, 96, 128)
STEM = 24


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, passing its inputs on unchanged to as many outputs; the other outputs are drawn as torch does."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[: layer.in_channels])
    return layer


class FastNet(nn.Module):
    """Seven convolutions and one linear layer; 416,248 parameters for 10 classes.

    Args:
        classes: number of outputs.
        width: factor on every channel count.
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = round(STEM * width)
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 2), nn.GELU()]
        for outputs in (round(width * c) for c in CHANNELS):
            layers += [_convolution(channels, outputs), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.GELU()]
            layers += [_convolution(outputs, outputs), nn.BatchNorm2d(outputs), nn.GELU()]
            channels = outputs
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten())
        self.classifier = nn.Linear(channels, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.classifier(self.layers(x)) / 9
        return logits
