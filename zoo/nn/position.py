"""A learned bias at each position of a map, and one for the whole map by how much the image is shifted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn.shift import bias_of, shift_biases


class PositionBias(nn.Module):
    """What a convolution, the same everywhere, must be told about where it is.

    Args:
        channels, height, width: shape of the map.
        max_shift: pixels by which images may be shifted; see `zoo.nn.shift`.
    """

    def __init__(self, channels: int, height: int, width: int, max_shift: int = 0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, height, width))
        if max_shift:
            self.shifts = shift_biases([1, height, width], max_shift, channels)

    def forward(self, shifts: Tensor | None = None) -> Tensor:
        """Shifts [B], by number, or None -> biases [B or 1, C, H, W]."""
        if shifts is None:
            return self.bias[None]
        return self.bias + bias_of(shifts, self.shifts)[..., None, None]
