"""Masked convolutions (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, section 3.4).

A mask of type A lets a pixel see those above it and left of it within the kernel, and one of type B itself too.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F


class MaskedConv2d(nn.Conv2d):
    """[B, in, H, W] -> [B, out, H, W]. Its kernel ends with the pixel's own row, as all below is masked.

    Args:
        kernel: size of the whole kernel, odd.
        mask: `A` without the pixel itself, `B` with it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, mask: Literal["A", "B"]) -> None:
        self.reach, self.own = kernel // 2, int(mask == "B")
        super().__init__(in_channels, out_channels, (self.reach + 1, kernel))

    def masked(self) -> Tensor:
        """The weight [out, in, reach + 1, kernel], zero where the mask is."""
        mask = self.weight.new_ones(self.weight.shape[2:])
        mask[-1, self.reach + self.own :] = 0
        return self.weight * mask

    def above(self) -> Tensor:
        """The part that sees the rows above, [out, in, reach, kernel]."""
        return self.weight[:, :, :-1]

    def left(self) -> Tensor:
        """The part that sees pixels to the left, and with a mask B the pixel itself last, [out, in, reach + own]."""
        return self.weight[:, :, -1, : self.reach + self.own]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (self.reach, self.reach, self.reach, 0)), self.masked(), self.bias)
