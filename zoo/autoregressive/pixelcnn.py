"""PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, sections 3.3 to 3.5), for binary pixels.

    log p(x) = sum over pixels of log p(x_i given x_1, ..., x_i-1)                                            (eq. 1)
    h' = h + W_3 relu(masked convolution of relu(W_1 relu(h)))     residual block                 (figure 5, left)

The first convolution has a mask of type A, those of the blocks of type B. Stacked, they see a triangle: a pixel above
and further to the right than the kernels' reach allows is in the blind spot (van den Oord et al. 2016,
https://arxiv.org/abs/1606.05328, figure 1), which the stacks of `zoo.autoregressive.gated_pixelcnn` do not have.

Density: exact, one pass.
Sampling: exact; each activation is computed once, the sums over the rows above once a row.
Differs from the paper: a learned bias at each position; images shifted in training, with the shift as an input (Jun et
al. 2020); dropout; Adam with averaged weights.
"""

from __future__ import annotations

from typing import Annotated, cast

import torch
from torch import Tensor, nn

from zoo.autoregressive.lines import Line
from zoo.autoregressive.stack import Stack, StackLine, product
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.affine import with_bias
from zoo.nn.dropout import dropout
from zoo.nn.masked_conv import MaskedConv2d
from zoo.random import Streams


class _Block(nn.Module):
    """A residual block: [B, 2C, H, W] -> the same."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(2 * channels, channels, 1)
        self.conv = MaskedConv2d(channels, channels, kernel, "B")
        self.expand = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, h: Tensor, rate: float, streams: Streams | None) -> Tensor:
        inner = self.conv(self.reduce(h.relu()).relu()).relu()
        return h + self.expand(dropout(inner, rate, streams))


class PixelCNN(Stack):
    """Masked convolutions, over and over.

    Args:
        event_shape: (1, H, W); values in {0, 1}.
        channels: h of the paper; maps between the blocks have twice as many.
        num_layers: residual blocks.
        kernel: size of their masked convolutions, odd.
        first_kernel: size of the first convolution, odd.
        hidden: units of the layer before the logits.
        dropout: fraction of a block's activations that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        channels: Size = 16,
        num_layers: Annotated[int, Between(1, 1000)] = 7,
        kernel: Annotated[int, Between(3, 99)] = 3,
        first_kernel: Annotated[int, Between(3, 99)] = 7,
        hidden: Size = 32,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if kernel % 2 == 0:
            raise ConfigError(f"PixelCNN: expected a kernel of odd size, found {kernel}")
        self.assemble(
            event_shape,
            (_Block(channels, kernel) for _ in range(num_layers)),
            channels=2 * channels,
            first_kernel=first_kernel,
            hidden=hidden,
            dropout=dropout,
            max_shift=max_shift,
        )

    def begin(self, batch: int) -> Line:
        return _Line(self, batch)


class _Line(StackLine):
    """A row of the blocks.

    Attributes:
        rows: inputs of the masked convolutions, in as many rows as they reach, and last in the row that is drawn, with
            zeros around: [reach + 1, L, B, W + 2 reach, C].
    """

    def __init__(self, model: PixelCNN, batch: int) -> None:
        super().__init__(model)
        blocks, width = cast(list[_Block], list(model.layers)), model.event_shape[2]
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
