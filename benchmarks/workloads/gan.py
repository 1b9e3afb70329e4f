"""Generative adversarial pairs, judged by how close their samples come to the data."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.base.config import RunConfig
from benchmarks.base.seeds import generator as seeded
from benchmarks.workloads.models.small import GAN
from benchmarks.workloads.resident import ResidentTask
from benchmarks.workloads.workload import Workload

SAMPLES = 2000
PROJECTIONS = 256
MODES = 8
RADIUS = 2.0
SPREAD = 0.1  # standard deviation of a mode of the ring


def sliced_wasserstein(samples: Tensor, data: Tensor) -> float:
    """The mean, over fixed random directions, of the 1-Wasserstein distance between the projections of equal sets."""
    directions = torch.randn(
        PROJECTIONS, samples[0].numel(), generator=seeded(torch.device("cpu"), 0, "directions")
    ).to(samples.device)
    directions /= directions.norm(dim=1, keepdim=True)
    projected = [(x.flatten(1) @ directions.T).sort(0).values for x in (samples, data)]
    return float((projected[0] - projected[1]).abs().mean())


class Adversarial(ResidentTask):
    """Both nets trained at once by the sum of their non-saturating losses; metric: sliced Wasserstein distance."""

    columns = ("loss", "discriminator", "generator")

    latent: ClassVar[int] = 64
    shape: ClassVar[tuple[int, ...]] = (1, 28, 28)

    @override
    def arguments(self) -> Mapping[str, Any]:
        return {"latent": self.latent, **self.config.workload_options}

    @override
    @classmethod
    def specimen(cls, workload: Workload, config: RunConfig) -> tuple[Mapping[str, Any], tuple[Tensor, ...]]:
        noise = torch.empty(2, cls.latent, device="meta")
        return {"latent": cls.latent, **config.workload_options}, (torch.empty(2, *cls.shape, device="meta"), noise)

    def real(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """Stored grey images in [-1, 1]."""
        return examples[:, None].float().sub_(127.5).div_(127.5)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """What the generator net starts from."""
        return torch.randn(count, self.latent, generator=generator, device=self.device)

    @override
    def objective(
        self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        (index,) = batch
        with self.autocast():
            real = self.real(self.data.x_train[index], generator)
            on_real, on_fake, fooled = model(real, self.noise(len(index), generator))
            discriminator = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
            fooling = F.softplus(-fooled).mean()
            loss = discriminator + fooling
        return loss, torch.stack([x.detach().float() for x in (loss, discriminator, fooling)])

    @torch.no_grad()
    @override
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        model.eval()
        generator = seeded(self.device, 0, "evaluation")
        count = min(SAMPLES, len(self.data.x_test))
        with self.autocast():
            samples = cast(GAN, model).generator(self.noise(count, generator)).float()
        model.train()
        return self.judge(samples, self.real(self.data.x_test[:count], generator))

    def judge(self, samples: Tensor, data: Tensor) -> dict[str, float]:
        """The metrics of as many samples as data."""
        return {"distance": sliced_wasserstein(samples, data)}

    @override
    def evaluate_clean(self, model: nn.Module) -> dict[str, float]:
        return {}


def ring(modes: Tensor, noise: Tensor) -> Tensor:
    """Points of the given modes: the mode's centre on a circle plus `SPREAD` times a standard normal draw."""
    angle = modes * (2 * math.pi / MODES)
    return RADIUS * torch.stack([angle.cos(), angle.sin()], -1) + SPREAD * noise


class Ring(Adversarial):
    """Points around eight modes; also counts the modes that are reached and the samples near one."""

    latent = 2
    shape = (2,)

    @override
    def real(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(examples), 2, generator=generator, device=self.device)
        return ring(examples.float(), noise)

    @override
    def judge(self, samples: Tensor, data: Tensor) -> dict[str, float]:
        centres = ring(torch.arange(float(MODES), device=self.device), torch.zeros(MODES, 2, device=self.device))
        distance, mode = torch.cdist(samples, centres).min(1)
        near = distance < 4 * SPREAD
        reached = torch.bincount(mode[near], minlength=MODES) >= len(samples) // (10 * MODES)  # a tenth of its share
        return {
            **super().judge(samples, data),
            "modes": float(reached.sum()),
            "quality": 100 * float(near.float().mean()),
        }
