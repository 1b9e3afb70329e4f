"""Pad, crop and flip in one gather, against torchvision's transforms."""

import numpy as np
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from benchmarks.workloads import augment

PADDING = 4
EPOCH = 20_000


def _padded(images: Tensor) -> Tensor:
    return torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))


def test_same_draw_same_pixels_as_torchvision() -> None:
    """Every corner and both orientations give exactly the pixels of torchvision's pad, crop and horizontal flip."""
    images = torch.randint(256, (7, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    corners = torch.cartesian_prod(torch.arange(9), torch.arange(9), torch.arange(2))
    index = torch.arange(len(corners)) % len(images)
    ours = augment.crop_flip(_padded(images), index, augment.Draw(*corners.T), PADDING)
    for (top, left, flip), i, got in zip(corners.tolist(), index.tolist(), ours, strict=True):
        expected = F.crop(F.pad(images[i].permute(2, 0, 1), [PADDING] * 4), top, left, 32, 32)
        expected = F.horizontal_flip(expected) if flip else expected
        assert torch.equal(got, expected.permute(1, 2, 0)), (top, left, flip)


def _draws(images: Tensor) -> np.ndarray:
    """Which of the 162 outcomes each augmented image of row and column numbers is, told from its pixels alone."""
    row, column, beside = images[:, 16, 16, 0].int(), images[:, 16, 16, 1].int(), images[:, 16, 17, 1].int()
    flip = (beside < column).int()
    left = torch.where(flip == 1, column - 16, column - 17) + PADDING
    top = row - 17 + PADDING
    return np.bincount(((top * 9 + left) * 2 + flip).numpy(), minlength=162)


def test_same_distribution_as_torchvision_over_an_epoch() -> None:
    """Crops and flips of an epoch are uniform, and indistinguishable from those of torchvision's transforms."""
    numbers = torch.arange(1, 33, dtype=torch.uint8)
    image = torch.stack([numbers[:, None].expand(32, 32), numbers.expand(32, 32), torch.zeros(32, 32)], -1).byte()
    where = augment.draw(EPOCH, PADDING, torch.Generator().manual_seed(1))
    ours = augment.crop_flip(_padded(image[None]), torch.zeros(EPOCH, dtype=torch.int64), where, PADDING)
    transform = v2.Compose([v2.RandomCrop(32, padding=PADDING), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng():
        torch.manual_seed(2)
        theirs = torch.stack([transform(image.permute(2, 0, 1)).permute(1, 2, 0) for _ in range(EPOCH // 4)])
    counts = _draws(ours), _draws(theirs)
    assert scipy.stats.chisquare(counts[0]).pvalue > 1e-3
    assert scipy.stats.chi2_contingency(np.stack(counts)).pvalue > 1e-3
