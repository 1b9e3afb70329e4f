"""VGG-16 for 32x32 images, as in the authors' code: 13 convolutions with batch norm and one linear layer."""

from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """VGG-16 with batch norm; 14,728,266 parameters for 10 classes.

    Args:
        classes: number of outputs.
        width: factor on every channel count.
    """

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for stage in STAGES:
            for outputs in (round(width * c) for c in stage):
                layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
