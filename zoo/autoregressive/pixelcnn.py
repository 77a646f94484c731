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
from torch.nn import functional as F

from zoo.autoregressive.raster import Augmented
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.dropout import dropout
from zoo.nn.masked_conv import MaskedConv2d
from zoo.nn.position import PositionBias
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


class PixelCNN(Augmented):
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
        event_shape: ImageShape = [1, 28, 28],  # noqa: B006
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
        if event_shape[0] != 1 or kernel % 2 == 0 or first_kernel % 2 == 0:
            raise ConfigError(
                f"PixelCNN: expected one channel and odd kernels, found {event_shape[0]}, {kernel} and {first_kernel}"
            )
        self.event_shape = tuple(event_shape)
        _, height, width = event_shape
        self.dropout = dropout
        self.max_shift = max_shift
        self.first = MaskedConv2d(1, 2 * channels, first_kernel, "A")
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.blocks = nn.ModuleList(_Block(channels, kernel) for _ in range(num_layers))
        self.hidden = nn.Conv2d(2 * channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        h = (self.first(x) + self.position(shifts)).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, self.dropout, streams)
        return self.output(self.hidden(h.relu()).relu()).flatten(1)

    def scan(self, uniforms: Tensor) -> Tensor:
        _, height, width = self.event_shape
        batch, blocks = len(uniforms), cast(list[_Block], list(self.blocks))
        reach, first_reach = blocks[0].conv.reach, self.first.reach
        uniforms = uniforms.view(batch, height, width)
        x = uniforms.new_zeros(batch, 1, first_reach + height, width + 2 * first_reach)  # with zeros around
        # what the masked convolutions of all blocks need of the rows before: their inputs there, with zeros around
        weights, biases = (torch.cat(w) for w in zip(*((b.conv.above(), b.conv.bias) for b in blocks), strict=True))
        above = x.new_zeros(batch, len(weights), reach, width + 2 * reach)
        line = _Line(self)
        for row in range(height):
            start = F.conv2d(x[:, :, row : row + first_reach], self.first.above(), self.first.bias)[:, :, 0]
            sums = F.conv2d(above, weights, biases, groups=len(blocks)).view(batch, len(blocks), -1, width)
            pixels, inputs = line.scan(uniforms[:, row], start + self.position.bias[:, row], sums)
            x[:, 0, first_reach + row, first_reach : first_reach + width] = pixels
            above = torch.cat([above[:, :, 1:], F.pad(inputs, (reach, reach))[:, :, None]], 2)
        return x[:, 0, first_reach:, first_reach : first_reach + width].flatten(1)


def _linear(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Bias and weight [in, out] of a convolution of a pixel."""
    return cast(Tensor, layer.bias), layer.weight[:, :, 0, 0].T


class _Line:
    """A row of a model, a pixel at a time: one product for all blocks brings what is left of a pixel."""

    def __init__(self, model: PixelCNN) -> None:
        blocks = cast(list[_Block], list(model.blocks))
        self.left = model.first.left()[:, 0].T  # [taps, 2C]
        taps = torch.stack([block.conv.left() for block in blocks])  # [L, C, C, reach + 1]
        self.before = taps[..., :-1].permute(0, 3, 2, 1).flatten(1, 2).contiguous()  # [L, reach C, C]
        self.reach = taps.shape[-1] - 1
        own = taps[..., -1].mT.unbind()
        self.blocks = [
            (*_linear(block.reduce), at, *_linear(block.expand)) for at, block in zip(own, blocks, strict=True)
        ]
        self.hidden, self.output = ((layer.weight[:, :, 0, 0], layer.bias) for layer in (model.hidden, model.output))

    def scan(self, uniforms: Tensor, start: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """A row of pixels and of inputs of the masked convolutions.

        Args:
            uniforms: [B, W].
            start: of the first convolution without what is left, [B, 2C, W].
            sums: of the masked convolutions over the rows above, [B, L, C, W].

        Returns:
            [B, W] and [B, L C, W].
        """
        batch, width = uniforms.shape
        first_reach = len(self.left)
        start, sums = start.permute(2, 0, 1).contiguous(), sums.permute(3, 1, 0, 2).contiguous()
        pixels = uniforms.new_zeros(batch, first_reach + width)
        inputs = [torch.zeros_like(sums[0])] * self.reach  # of the masked convolutions, pixel by pixel, [L, B, C] each
        for column in range(width):
            h = torch.addmm(start[column], pixels[:, column : column + first_reach], self.left)
            before = torch.cat(inputs[column:], -1)  # [L, B, reach C]
            here = []
            totals = torch.baddbmm(sums[column], before, self.before).unbind()
            for total, (bias, reduce, own, more, expand) in zip(totals, self.blocks, strict=True):
                here.append(torch.addmm(bias, h.relu(), reduce).relu_())
                h = torch.addmm(h + more, torch.addmm(total, here[-1], own).relu_(), expand)
            inputs.append(torch.stack(here))
            logit = F.linear(F.linear(h.relu_(), *self.hidden).relu_(), *self.output)
            pixels[:, column + first_reach] = uniforms[:, column] < logit[:, 0].sigmoid()
        maps = torch.stack(inputs[self.reach :], -1)  # [L, B, C, W]
        return pixels[:, first_reach:], maps.transpose(0, 1).flatten(1, 2)
