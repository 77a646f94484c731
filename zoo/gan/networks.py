"""Convolutional generators and critics of images.

No layer looks at other examples of the batch. A sample is therefore a function of its own code alone, in training too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.nn.patches import PATCH, Patches, patches_of

GROUPS = 8  # groups of channels that are normalised


class Residual(nn.Module):
    """x + conv(leaky_relu(norm(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.normalization = nn.GroupNorm(GROUPS, channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(nn.functional.leaky_relu(self.normalization(x), 0.2))


class Generator(nn.Sequential):
    """A generator: z, [B, inputs] -> images, [B, C, H, W], in [0, 1].

    The convolutions work at a quarter of the resolution, where they are efficient. The last one makes patches of 4x4
    pixels.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4.
        inputs: Dimension of z.
        channels: Number of channels of the convolutions; a multiple of 8, the number of groups that are normalised.
        hidden: Number of units of a fully connected layer between code and convolutions; None for no such layer. Each
            of its units affects the whole image, and a unit of a convolution affects only a part.
    """

    def __init__(self, event_shape: Sequence[int], inputs: int, channels: int, *, hidden: int | None = None) -> None:
        base = (channels, *patches_of(event_shape))
        if channels % GROUPS:
            raise ConfigError(f"channels: expected a multiple of {GROUPS}, found {channels}")
        if math.prod(base) == GROUPS:  # each group would be one number, and normalised to 0
            raise ConfigError(f"channels: expected at least {2 * GROUPS} for images of one patch, found {channels}")
        super().__init__(
            *((nn.Linear(inputs, hidden), nn.LeakyReLU(0.2)) if hidden else ()),
            nn.Linear(hidden or inputs, math.prod(base)),
            nn.Unflatten(1, base),
            Residual(channels),
            Residual(channels),
            nn.GroupNorm(GROUPS, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, PATCH**2 * event_shape[0], 3, padding=1),
            nn.PixelShuffle(PATCH),
            nn.Sigmoid(),
        )


class Features(nn.Sequential):
    """The convolutions of a critic: images [B, C, H, W], H and W multiples of 4 -> [B, channels, H/4, W/4]."""

    def __init__(self, event_shape: Sequence[int], channels: int) -> None:
        super().__init__(
            Patches(),
            nn.Conv2d(PATCH**2 * event_shape[0], channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
        )


class Critic(nn.Sequential):
    """A critic: images, [B, C, H, W] -> logits, [B, outputs].

    Args:
        event_shape: (C, H, W); H and W are multiples of 4.
        channels: Number of channels of the convolutions.
        outputs: Number of logits.
        hidden: Number of units of a fully connected layer before the logits; None for no such layer.
        bias: Whether the logits have a bias; it cancels in losses that depend only on differences of logits.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        channels: int,
        *,
        outputs: int = 1,
        hidden: int | None = None,
        bias: bool = True,
    ) -> None:
        size = math.prod((channels, *patches_of(event_shape)))
        super().__init__(
            Features(event_shape, channels),
            nn.Flatten(),
            *((nn.Linear(size, hidden), nn.LeakyReLU(0.2)) if hidden else ()),
            nn.Linear(hidden or size, outputs, bias=bias),
        )
