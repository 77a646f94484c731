"""The networks of diffusion models: (noisy example, c_noise, label) -> an output of the example's shape.

There is a U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) for images, and a multilayer perceptron for
points. The noise level and the label reach every block as a scale and a shift of its normalised input (FiLM, Perez et
al. 2018, https://arxiv.org/abs/1709.07871). The last layer of every block starts at zero, so that the block starts as
the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, silu

from zoo.errors import ConfigError
from zoo.nn.sides import check_sides

MAX_FREQUENCY = 100.0  # of the noise level's features, in radians


class Condition(nn.Module):
    """Maps noise levels, [B], and, after `add_classes`, labels, [B], to features, [B, width]."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.classes: nn.Embedding | None = None
        count = width // 4
        frequencies = MAX_FREQUENCY ** (torch.arange(count) / max(1, count - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.first = nn.Linear(2 * count, width)
        self.second = nn.Linear(width, width)

    def add_classes(self, num_classes: int) -> None:
        """Lets the features depend on labels; the label `num_classes`, or None, stands for no label."""
        self.classes = nn.Embedding(num_classes + 1, self.width)

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        angles = c_noise[:, None] * self.frequencies  # [B, width/4]
        features = self.second(silu(self.first(torch.cat([angles.cos(), angles.sin()], 1))))
        if self.classes is not None:
            if labels is None:
                labels = torch.full((c_noise.shape[0],), self.classes.num_embeddings - 1, device=c_noise.device)
            features = features + self.classes(labels)
        return silu(features)


class ConvBlock(nn.Module):
    """x + conv(silu(conv(FiLM(norm(x))))), with each pixel normalised over its channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.film = nn.Linear(width, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.film(features)[:, :, None, None].chunk(2, 1)
        return x + self.second(silu(self.first(torch.addcmul(shift, normalized(x), 1 + scale))))


class UNet(nn.Module):
    """A U-Net in which each level has half the resolution of the level before, and channels of its own width.

    Each level has one block on the way down and one on the way up; the coarsest level has three blocks.

    Args:
        event_shape: (C, H, W), H and W multiples of 2^(levels - 1).
        channels: Width of each level, from the finest.
        width: Width of the features of noise level and label.
    """

    def __init__(self, event_shape: Sequence[int], channels: Sequence[int], width: int) -> None:
        super().__init__()
        check_sides(event_shape, 2 ** (len(channels) - 1), f" for {len(channels)} levels")
        self.condition = Condition(width)
        self.inputs = nn.Conv2d(event_shape[0], channels[0], 3, padding=1)
        pairs = list(pairwise(channels))  # (finer, coarser)
        self.before = nn.ModuleList(ConvBlock(fine, width) for fine, _ in pairs)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.middle = nn.ModuleList(ConvBlock(channels[-1], width) for _ in range(3))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.after = nn.ModuleList(ConvBlock(fine, width) for fine, _ in pairs)
        self.outputs = zeroed(nn.Conv2d(channels[0], event_shape[0], 1))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.condition(c_noise, labels)
        h = self.inputs(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for block, down in zip(self.before, self.down, strict=True):
            kept.append(h := block(h, features))
            h = down(h)
        for block in self.middle:
            h = block(h, features)
        for up, block in zip(reversed(self.up), reversed(self.after), strict=True):
            h = block(kept.pop() + interpolate(up(h), scale_factor=2), features)
        return self.outputs(h)


class MLPBlock(nn.Module):
    """x + linear(silu(linear(FiLM(norm(x)))))."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.film = nn.Linear(width, 2 * hidden)
        self.first = nn.Linear(hidden, hidden)
        self.second = zeroed(nn.Linear(hidden, hidden))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.film(features).chunk(2, 1)
        x_normalized = layer_norm(x, x.shape[1:])
        return x + self.second(silu(self.first(torch.addcmul(shift, x_normalized, 1 + scale))))


class MLP(nn.Module):
    """A residual network for points [B, D].

    Args:
        event_shape: (D,).
        channels: Width of each block; all equal.
        width: Width of the features of noise level and label.
    """

    def __init__(self, event_shape: Sequence[int], channels: Sequence[int], width: int) -> None:
        super().__init__()
        if len(set(channels)) > 1:
            raise ConfigError(f"channels: expected blocks of one width for points, found {list(channels)}")
        self.condition = Condition(width)
        self.inputs = nn.Linear(event_shape[0], channels[0])
        self.blocks = nn.ModuleList(MLPBlock(hidden, width) for hidden in channels)
        self.outputs = zeroed(nn.Linear(channels[0], event_shape[0]))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        features = self.condition(c_noise, labels)
        h = self.inputs(x)
        for block in self.blocks:
            h = block(h, features)
        return self.outputs(h)


def network(event_shape: Sequence[int], channels: Sequence[int], width: int) -> UNet | MLP:
    """The network for examples of a shape: a `UNet` for images (C, H, W), an `MLP` for points (D,)."""
    if len(event_shape) not in (1, 3):
        raise ConfigError(f"event_shape: expected (D,) for points or (C, H, W) for images, found {list(event_shape)}")
    return (UNet if len(event_shape) == 3 else MLP)(event_shape, channels, width)


def normalized(x: Tensor) -> Tensor:
    """Normalises each pixel of x, [B, C, H, W], to mean 0 and variance 1 over its channels."""
    rows = x.permute(0, 2, 3, 1)  # contiguous in channels_last, where group norm would be four times slower
    return layer_norm(rows, rows.shape[3:]).permute(0, 3, 1, 2)


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Sets the weights and biases of a layer to zero and returns it."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
