"""Small networks: perceptrons, a convolutional net, a character LSTM and two generative adversarial pairs."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


def mlp(inputs: int, classes: int, hidden: int = 64) -> nn.Sequential:
    """Two hidden layers over flattened pixels."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def cnn(classes: int, width: float = 1.0, batch_norm: bool = True) -> nn.Sequential:
    """Two convolutions with batch norm, or without, and pooling, then one hidden layer, for 28x28 grey images."""
    first, second, hidden = round(16 * width), round(32 * width), round(128 * width)

    def convolution(inputs: int, outputs: int) -> list[nn.Module]:
        norms = [nn.BatchNorm2d(outputs)] if batch_norm else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm), *norms, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *convolution(1, first),
        *convolution(first, second),
        *(nn.Flatten(), nn.Linear(7 * 7 * second, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )


def softmax_regression(inputs: int, classes: int, bias: bool = True) -> nn.Linear:
    """One linear layer that starts at 0."""
    layer = nn.Linear(inputs, classes, bias)
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class CharLSTM(nn.Module):
    """Next-character logits at every position of a window of text, from a zero state."""

    def __init__(self, classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = nn.Linear(hidden, classes)

    def forward(self, text: Tensor) -> Tensor:
        """Character codes to logits."""
        logits: Tensor = self.decoder(self.lstm(self.embedding(text))[0])
        return logits


class GAN(nn.Module):
    """A generator and a discriminator whose losses can be summed: neither net's loss has a gradient in the other.

    Args:
        generator: noise ``[batch, latent]`` to samples.
        discriminator: samples to one logit each.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator

    def forward(self, real: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's logits for real samples, for fakes (trains it), and for fakes (trains the generator)."""
        fake = self.generator(noise)
        frozen: Mapping[str, Tensor] = {k: p.detach() for k, p in self.discriminator.named_parameters()}
        fooled: Tensor = functional_call(self.discriminator, dict(frozen), (fake,))
        return self.discriminator(real), self.discriminator(fake.detach()), fooled


def ring_gan(latent: int, hidden: int = 128) -> GAN:
    """Two perceptrons for points in the plane."""

    def net(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    return GAN(net(latent, 2), net(2, 1))


def dcgan(latent: int, width: float = 1.0) -> GAN:
    """A small DCGAN for 28x28 grey images in [-1, 1], initialized as its paper does."""
    few, many = round(32 * width), round(64 * width)
    generator = nn.Sequential(
        *(
            nn.Linear(latent, many * 7 * 7, bias=False),
            nn.BatchNorm1d(many * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(1, (many, 7, 7)),
        ),
        *(nn.ConvTranspose2d(many, few, 4, 2, padding=1, bias=False), nn.BatchNorm2d(few), nn.ReLU()),
        *(nn.ConvTranspose2d(few, 1, 4, 2, padding=1), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(nn.Conv2d(1, few, 4, 2, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(few, many, 4, 2, padding=1), nn.LeakyReLU(0.2)),
        *(nn.Flatten(), nn.Linear(many * 7 * 7, 1)),
    )
    model = GAN(generator, discriminator)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
    return model
