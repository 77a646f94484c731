"""PixelCNN pixel by pixel, with each activation computed once; see `zoo.autoregressive.fast.lines`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from zoo.autoregressive.fast.lines import MaskedLine, draw, product, with_bias

if TYPE_CHECKING:
    from zoo.autoregressive.pixelcnn import Block, PixelCNN


def from_uniforms(model: PixelCNN, uniforms: Tensor) -> Tensor:
    return draw(model, _Line(model, len(uniforms)), uniforms)


class _Line(MaskedLine):
    """A row of the blocks.

    Attributes:
        rows: Inputs of the masked convolutions in the rows that they reach, padded with zeros; the current row comes
            last, [reach + 1, L, B, W + 2 reach, C].
    """

    def __init__(self, model: PixelCNN, batch: int) -> None:
        super().__init__(model)
        blocks, width = cast("list[Block]", list(model.layers)), model.event_shape[2]
        reach, channels, kernel = blocks[0].conv.reach, blocks[0].conv.in_channels, blocks[0].conv.kernel_size[1]
        self.rows = self.left.new_zeros(reach + 1, len(blocks), batch, width + 2 * reach, channels)
        self.seen = self.rows[:-1].unfold(3, kernel, 1).permute(1, 2, 3, 0, 5, 4)  # [L, B, W, reach, kernel, C]
        self.weights = torch.stack([block.conv.above().permute(2, 3, 1, 0).flatten(0, 2) for block in blocks])
        self.bias = torch.stack([cast(Tensor, block.conv.bias) for block in blocks])[:, None]
        self.start = self.left.new_empty(batch, width, 2 * channels)
        self.active = self.left.new_ones(batch, 1 + 2 * channels)
        inner = self.left.new_ones(width, len(blocks), batch, 1 + channels)
        self.sums = inner[..., 1:]
        left = self.rows[-1].flatten(2).unfold(2, (reach + 1) * channels, channels)
        weights = [
            (with_bias(block.reduce), block.conv.left().permute(2, 1, 0).flatten(0, 1), with_bias(block.expand))
            for block in blocks
        ]
        self.columns = [
            list(zip(self.rows[-1, :, :, reach + column], left[:, :, column], sums, units, weights, strict=True))
            for column, (sums, units) in enumerate(zip(self.sums, inner, strict=True))
        ]
        self.maps = self.start.unbind(1)

    def above(self) -> Tensor:
        self.rows[:-1] = self.rows[1:].clone()
        return product(self.seen.flatten(3), self.weights, self.bias)

    def step(self, column: int) -> Tensor:
        h, active = self.maps[column], self.active[:, 1:]
        for place, left, total, units, (reduce, own, expand) in self.columns[column]:
            torch.clamp(h, min=0, out=active)
            torch.mm(self.active, reduce, out=place).relu_()
            total.addmm_(left, own).relu_()
            h.addmm_(units, expand)
        torch.clamp(h, min=0, out=active)
        return self.active
