"""The original wide residual network: pre-activation blocks, a narrow stem, He initialization."""

import torch.nn.functional as F
from torch import Tensor, nn


class PreActivationBlock(nn.Module):
    """Norm and activation before each of two 3x3 convolutions; a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches."""
        active = F.relu(self.bn1(x))
        y: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.projection is None else self.projection(active))


class WideResNet(nn.Module):
    """WRN-`depth`-`widen`; WRN-16-4 has 2,748,890 parameters for 10 classes.

    Args:
        classes: number of outputs.
        depth: 6 n + 4 layers, n blocks in each of three stages.
        widen: the published widening factor.
        width: a further factor on every channel count, for rehearsals.
    """

    def __init__(self, classes: int, depth: int = 16, widen: int = 4, width: float = 1.0) -> None:
        super().__init__()
        inputs = round(16 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, inputs, 3, padding=1, bias=False)]
        for stage in range(3):
            outputs = round(16 * 2**stage * widen * width)
            for block in range((depth - 4) // 6):
                layers.append(PreActivationBlock(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        logits: Tensor = self.classifier(F.relu(self.norm(self.layers(x))).mean((2, 3)))
        return logits
