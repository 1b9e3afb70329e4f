"""Transformers: blocks with the norm before each branch, for characters and for small images."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STD = 0.02  # of all weights, as in GPT-2


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of ``[batch, heads, length, size]``: pairs of coordinates turned by their position."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def shift(x: Tensor) -> Tensor:
    """Token shift of ``[batch, length, width]``: the first half of the channels comes from the position before.

    Every branch sees pairs of characters, and no head must learn to find the neighbour (RWKV, Peng et al., 2023).
    """
    half = x.shape[-1] // 2
    return torch.cat([F.pad(x[:, :-1, :half], (0, 0, 1, 0)), x[..., half:]], -1)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the weights that end a branch are 1/√(2 layers) as large.

    A causal block shifts what enters either branch by `shift`.

    Args:
        width: of the residual stream, a multiple of `heads`.
        heads: of the attention.
        layers: blocks of the whole model.
        causal: whether a position sees those before it alone.
        dropout: share of each branch's outputs that is left out in training, in [0, 1).
    """

    def __init__(self, width: int, heads: int, layers: int, causal: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        for layer in (self.qkv, self.up):
            nn.init.normal_(layer.weight, std=STD)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=STD / math.sqrt(2 * layers))

    def enter(self, x: Tensor) -> Tensor:
        """What a branch is given of the normed stream."""
        return shift(x) if self.causal else x

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """``[batch, length, width]`` to the same; `turns` are the cosines and sines of rotary positions."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.enter(self.norm1(x))).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if turns is not None:
            q, k = rotate(q, *turns), rotate(k, *turns)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        y: Tensor = x + self.drop(self.down(F.gelu(self.up(self.enter(self.norm2(x))))))
        return y


class CharTransformer(nn.Module):
    """Next-character logits at every position of a window of text, with rotary positions.

    Args:
        classes: number of characters.
        width: of the residual stream, a multiple of twice `heads`.
        layers: number of blocks.
        heads: of each attention.
        tied: whether the logits are products with the embeddings, in place of weights of their own.
        context: the longest window.
        dropout: share of each branch's outputs that is left out in training, in [0, 1).
    """

    def __init__(
        self,
        classes: int,
        width: int,
        heads: int,
        layers: int = 2,
        tied: bool = True,
        context: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList(Block(width, heads, layers, True, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.decoder = None if tied else nn.Linear(width, classes, bias=False)
        for layer in (self.embedding, self.decoder):
            if layer is not None:
                nn.init.normal_(layer.weight, std=STD)
        size = width // heads
        angles = torch.arange(context)[:, None] * 10_000.0 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def forward(self, text: Tensor) -> Tensor:
        """Character codes to logits."""
        length = text.shape[1]
        x, turns = self.embedding(text), (self.cos[:length], self.sin[:length])
        for block in self.blocks:
            x = block(x, turns)
        weight = self.embedding.weight if self.decoder is None else self.decoder.weight
        return F.linear(self.norm(x), weight)


class ViT(nn.Module):
    """A vision transformer: embedded patches with learned positions, blocks, the mean over patches, one linear layer.

    Args:
        classes: number of outputs.
        size: of the square images, a multiple of `patch`.
        patch: size of the patches.
        channels: of the images.
        width: of the residual stream, a multiple of `heads`.
        layers: number of blocks.
        heads: of each attention.
    """

    def __init__(
        self,
        classes: int,
        size: int,
        patch: int,
        channels: int = 1,
        width: int = 48,
        layers: int = 3,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.embedding = nn.Linear(channels * patch**2, width)
        self.positions = nn.Parameter(STD * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, heads, layers, causal=False) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        y = self.blocks(self.embedding(patches) + self.positions)
        logits: Tensor = self.classifier(self.norm(y).mean(1))
        return logits
