"""Transformers: sizes, what a position may see, how weights begin; and the patches of the vision transformer."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks.workloads import REGISTRY
from benchmarks.workloads.models.transformer import Block, CharTransformer, ViT, rotate, shift

SIZES = {"small": 107_136, "medium": 410_880, "large": 1_608_192}


@pytest.mark.parametrize(("size", "parameters"), SIZES.items())
def test_sizes(size: str, parameters: int) -> None:
    """The three sizes have about 0.1, 0.4 and 1.6 million parameters; untied logits have weights of their own."""
    tied, untied = (REGISTRY[f"prose-transformer-{size}"].build(tied=tied) for tied in (True, False))
    count = {model: sum(p.numel() for p in model.parameters()) for model in (tied, untied)}
    assert count[tied] == parameters
    assert count[untied] - count[tied] == untied.decoder.weight.numel()


def _model(**options: Any) -> CharTransformer:
    return CharTransformer(classes=128, width=32, layers=2, heads=4, **options)


@pytest.mark.parametrize("tied", [True, False])
def test_a_position_sees_what_came_before_it(tied: bool) -> None:
    """Another character at position 20 changes the logits there and after it, and none before."""
    model = _model(tied=tied).eval()
    text = torch.randint(128, (2, 40))
    other = text.clone()
    other[:, 20] = (other[:, 20] + 1) % 128
    changed = (model(text) - model(other)).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [False] * 20 + [True] * 20


def test_positions_are_relative() -> None:
    """Products of rotated queries and keys depend on the distance of their positions alone, and lengths stay."""
    model = _model()
    cos, sin = model.cos, model.sin
    q, k = torch.randn(2, 8)
    products = rotate(q.expand(128, 8), cos, sin) @ rotate(k.expand(128, 8), cos, sin).T
    for distance in (-30, 0, 7):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert products.diagonal(7)[0] != pytest.approx(products.diagonal(0)[0].item(), rel=1e-3)
    torch.testing.assert_close(rotate(q.expand(128, 8), cos, sin).norm(dim=1), q.norm().expand(128))


def test_attention_by_hand() -> None:
    """A block is what its formula says, written out with a softmax and a mask."""
    block = Block(width=12, heads=3, layers=2, causal=True)
    x = torch.randn(2, 5, 12)
    q, k, v = block.qkv(shift(block.norm1(x))).split(12, -1)
    heads = []
    for i in range(3):
        mine = slice(4 * i, 4 * i + 4)
        scores = q[..., mine] @ k[..., mine].transpose(1, 2) / 2
        masked = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        heads.append(masked.softmax(-1) @ v[..., mine])
    y = x + block.out(torch.cat(heads, -1))
    expected = y + block.down(F.gelu(block.up(shift(block.norm2(y)))))
    torch.testing.assert_close(block(x), expected)


def test_half_of_the_channels_come_from_the_position_before() -> None:
    """The first half is one position late and starts with zeros, the second half stays; only causal blocks shift."""
    x = torch.randn(2, 5, 6)
    expected = x.clone()
    expected[:, 0, :3] = 0
    expected[:, 1:, :3] = x[:, :-1, :3]
    assert torch.equal(shift(x), expected)
    for causal in (True, False):
        entered = Block(width=6, heads=1, layers=2, causal=causal).enter(x)
        assert torch.equal(entered, expected if causal else x)


def test_dropout_in_training_alone() -> None:
    """A tenth of each branch's outputs is left out in training, nothing in evaluation, and none in a ViT."""
    model = _model()
    assert [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)] == [0.1, 0.1]
    text = torch.randint(128, (2, 40))
    assert not torch.equal(model(text), model(text))
    model.eval()
    assert torch.equal(model(text), model(text))
    vit = ViT(classes=10, size=8, patch=2, width=16, layers=1)
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in vit.modules())


def test_weights_begin_as_in_gpt2() -> None:
    """Standard deviation 0.02, over the root of twice the layers where a branch ends; an untrained loss is log C."""
    model = CharTransformer(classes=128, width=128, layers=8, heads=4)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            expected = 0.02 / 4 if ".out." in name or ".down." in name else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.05), name
    text = torch.randint(128, (8, 65))
    loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(128), abs=0.1)


def test_patches_tile_the_image() -> None:
    """Embedded patches are a convolution with a stride of their size, in the same order as the positions."""
    model = ViT(classes=10, size=8, patch=2, channels=3, width=16, layers=1)
    images = torch.randn(2, 3, 8, 8)
    weight = model.embedding.weight.view(16, 3, 2, 2)
    expected = F.conv2d(images, weight, model.embedding.bias, 2).flatten(2).transpose(1, 2)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert model(images).shape == (2, 10)
    torch.testing.assert_close(seen[0], expected + model.positions)
