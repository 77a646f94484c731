"""Convolutional networks over patches of 4x4 pixels, between images and vectors.

Most of the work is matrix products over a quarter of the rows and columns: a digit costs about a million
multiplications, and a CPU trains on a thousand of them a second.
"""

from __future__ import annotations

from torch import Tensor, nn

PATCH = 4


class Residual(nn.Module):
    """x + conv(silu(x)), [B, channels, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(nn.functional.silu(x))


def patch_encoder(event_shape: list[int], channels: int, hidden: int, outputs: int) -> nn.Sequential:
    """Images [B, C, H, W], H and W multiples of 4 -> [B, outputs].

    Args:
        channels: width of the convolutions.
        hidden: units of the layer after them.
    """
    inputs, height, width = event_shape
    return nn.Sequential(
        nn.PixelUnshuffle(PATCH),
        nn.Conv2d(PATCH**2 * inputs, channels, 3, padding=1),
        Residual(channels),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(channels * (height // PATCH) * (width // PATCH), hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


def patch_decoder(inputs: int, hidden: int, channels: int, event_shape: list[int]) -> nn.Sequential:
    """[B, inputs] -> images [B, C, H, W], H and W multiples of 4; see `patch_encoder`."""
    outputs, height, width = event_shape
    rows, columns = height // PATCH, width // PATCH
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, channels * rows * columns),
        nn.Unflatten(1, (channels, rows, columns)),
        Residual(channels),
        nn.SiLU(),
        nn.Conv2d(channels, PATCH**2 * outputs, 3, padding=1),
        nn.PixelShuffle(PATCH),
    )
