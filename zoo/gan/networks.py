"""Convolutional generators and critics of images.

No layer looks at other examples of the batch: a sample is a function of its own code alone, in training too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.nn.patches import PATCH, patches_of


class Residual(nn.Module):
    """x + conv(leaky_relu(norm(x)))."""

    def __init__(self, channels: int, *, normalized: bool) -> None:
        super().__init__()
        self.normalization = nn.GroupNorm(8, channels) if normalized else nn.Identity()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(nn.functional.leaky_relu(self.normalization(x), 0.2))


class Generator(nn.Sequential):
    """z [B, inputs] -> images [B, C, H, W] in [0, 1]; H and W multiples of 4.

    Convolutions at a quarter of the resolution, where they are efficient; the last makes patches of 4x4 pixels.

    Args:
        channels: a multiple of 8, the groups of the normalisation.
        hidden: units of a layer between the code and the convolutions, each of which sees a part of the image; or None.
    """

    def __init__(self, event_shape: Sequence[int], inputs: int, channels: int, *, hidden: int | None = None) -> None:
        if channels % 8:
            raise ConfigError(f"channels: expected a multiple of 8, found {channels}")
        base = (channels, *patches_of(event_shape))
        super().__init__(
            *((nn.Linear(inputs, hidden), nn.LeakyReLU(0.2)) if hidden else ()),
            nn.Linear(hidden or inputs, math.prod(base)),
            nn.Unflatten(1, base),
            Residual(channels, normalized=True),
            Residual(channels, normalized=True),
            nn.GroupNorm(8, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, PATCH**2 * event_shape[0], 3, padding=1),
            nn.PixelShuffle(PATCH),
            nn.Sigmoid(),
        )


class Features(nn.Sequential):
    """Images [B, C, H, W], H and W multiples of 4 -> [B, channels, H/4, W/4]: the convolutions of a critic."""

    def __init__(self, event_shape: Sequence[int], channels: int) -> None:
        super().__init__(
            nn.PixelUnshuffle(PATCH),
            nn.Conv2d(PATCH**2 * event_shape[0], channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
        )


class Critic(nn.Sequential):
    """Images [B, C, H, W], H and W multiples of 4 -> logits [B, outputs].

    Args:
        hidden: units of a layer that sees the whole image, before the logits; or None.
        bias: of the logits; it would cancel in a loss of differences.
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
