"""Random crops and flips of a whole batch in one gather, equal in law to torchvision's RandomCrop and flip."""

from typing import NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    """Where each image of a batch is cropped (0 to twice the padding) and whether it is mirrored."""

    top: Tensor
    left: Tensor
    flip: Tensor


def draw(count: int, padding: int, generator: torch.Generator) -> Draw:
    """Uniform crop corners and fair flips for `count` images, on the generator's device."""
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device)
    flip = torch.randint(2, (count,), generator=generator, device=generator.device)
    return Draw(top, left, flip)


def crop_flip(padded: Tensor, index: Tensor, where: Draw, padding: int) -> Tensor:
    """The images `index` of a zero-padded set, cropped and mirrored as drawn.

    Args:
        padded: all images, ``[n, height + 2 * padding, width + 2 * padding, channels]``.
        index: the batch's positions in `padded`.
        where: one crop and flip per position.
        padding: zeros on each side of each image.

    Returns:
        Pixels in `padded`'s dtype, ``[batch, height, width, channels]``.
    """
    rows = torch.arange(padded.shape[1] - 2 * padding, device=padded.device)
    columns = torch.arange(padded.shape[2] - 2 * padding, device=padded.device)
    mirrored = torch.where(where.flip[:, None] == 1, columns.flip(0), columns)
    return padded[
        index[:, None, None], (rows + where.top[:, None])[:, :, None], (mirrored + where.left[:, None])[:, None, :]
    ]
