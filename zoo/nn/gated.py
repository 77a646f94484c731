"""A layer of the gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328, figure 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.dropout import dropout
from zoo.random import Streams


def gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) of the two halves of the channels."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One step of both stacks. v at row r knows the rows above r, and h at (r, c) also the pixels left of c."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.reach + 1, kernel), padding=(0, self.reach))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.reach + 1), bias=False)
        self.between = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def vertically(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v with `reach` rows above it, [B, C, reach + H, W] -> the sums for both stacks, each [B, 2C, H, W]."""
        sums = self.vertical(v)
        return sums, self.between(sums)

    def forward(self, v: Tensor, h: Tensor, rate: float, streams: Streams | None) -> tuple[Tensor, Tensor]:
        for_v, for_h = self.vertically(F.pad(v, (0, 0, self.reach, 0)))
        for_h = for_h + self.horizontal(F.pad(h, (self.reach, 0)))
        return v + gate(for_v), h + self.out(dropout(gate(for_h), rate, streams))
