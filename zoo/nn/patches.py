"""Convolutional networks over patches of 4x4 pixels, between images and vectors.

They work on a quarter of the rows and columns, mostly by matrix products: a digit costs about a million
multiplications, and a CPU trains on a thousand of them a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.errors import ConfigError

PATCH = 4


def patches_of(event_shape: Sequence[int]) -> tuple[int, int]:
    """Numbers of rows and columns of patches in an image (C, H, W).

    Raises:
        ConfigError: H or W is not a multiple of 4.
    """
    _, height, width = event_shape
    if height % PATCH or width % PATCH:
        raise ConfigError(f"event_shape: expected a height and a width of multiples of {PATCH}, found {height}x{width}")
    return height // PATCH, width // PATCH


class Residual(nn.Module):
    """x + conv(silu(x)): [B, channels, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(nn.functional.silu(x))


def patch_encoder(event_shape: Sequence[int], channels: int, hidden: int, outputs: int) -> nn.Sequential:
    """A network from images to vectors: [B, C, H, W], H and W multiples of 4 -> [B, outputs].

    Args:
        event_shape: Shape of one image, (C, H, W).
        channels: Width of the convolutions.
        hidden: Units of the layer after them.
        outputs: Length of a vector.
    """
    rows, columns = patches_of(event_shape)
    return nn.Sequential(
        nn.PixelUnshuffle(PATCH),
        nn.Conv2d(PATCH**2 * event_shape[0], channels, 3, padding=1),
        Residual(channels),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(channels * rows * columns, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


def patch_decoder(inputs: int, hidden: int, channels: int, event_shape: Sequence[int]) -> nn.Sequential:
    """A network from vectors to images: [B, inputs] -> [B, C, H, W], H and W multiples of 4; see `patch_encoder`."""
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
