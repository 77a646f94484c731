"""Convolutional networks over patches of 4x4 pixels, between images and vectors.

Most of the work is matrix products at a quarter of the resolution. A digit costs about a million multiplications, so
that one CPU core trains on a thousand digits per second.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.nn.sides import check_sides

PATCH = 4


def patches_of(event_shape: Sequence[int]) -> tuple[int, int]:
    """Number of rows and columns of patches in an image (C, H, W).

    Raises:
        ConfigError: H or W is not a multiple of 4.
    """
    _, height, width = event_shape
    check_sides(event_shape, PATCH)
    return height // PATCH, width // PATCH


class Patches(nn.Module):
    """Cuts images into patches: [B, C, H, W] -> [B, 16 C, H/4, W/4]."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:  # torch's function returns an empty batch as it is
            return x.reshape(0, PATCH**2 * x.shape[1], *patches_of(x.shape[1:]))
        return nn.functional.pixel_unshuffle(x, PATCH)


class Residual(nn.Module):
    """x + conv(silu(x)): [B, channels, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(nn.functional.silu(x))


def patch_encoder(event_shape: Sequence[int], channels: int, hidden: int, outputs: int) -> nn.Sequential:
    """A network from images [B, C, H, W] to vectors [B, outputs].

    Args:
        event_shape: (C, H, W); H and W are multiples of 4.
        channels: Number of channels of the convolutions.
        hidden: Number of units of the layer after the convolutions.
        outputs: Number of outputs.
    """
    rows, columns = patches_of(event_shape)
    return nn.Sequential(
        Patches(),
        nn.Conv2d(PATCH**2 * event_shape[0], channels, 3, padding=1),
        Residual(channels),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(channels * rows * columns, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


def patch_decoder(inputs: int, hidden: int, channels: int, event_shape: Sequence[int]) -> nn.Sequential:
    """A network from vectors [B, inputs] to images [B, C, H, W], the mirror image of `patch_encoder`."""
    rows, columns = patches_of(event_shape)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, channels * rows * columns),
        nn.Unflatten(1, (channels, rows, columns)),
        Residual(channels),
        nn.SiLU(),
        nn.Conv2d(channels, PATCH**2 * event_shape[0], 3, padding=1),
        nn.PixelShuffle(PATCH),
    )
