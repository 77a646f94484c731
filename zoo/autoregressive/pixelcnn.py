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

from zoo.autoregressive.stack import Line, Stack
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
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


def _linear(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Bias and weight [in, out] of a convolution of a pixel."""
    return cast(Tensor, layer.bias), layer.weight[:, :, 0, 0].T


class _Line:
    """A row of a model, a pixel at a time: one product for all blocks brings what is left of a pixel.

    Attributes:
        above: inputs of the masked convolutions of all blocks in the rows before, with zeros around, as many rows as
            they reach: [B, L C, reach, W + 2 reach].
    """

    def __init__(self, model: PixelCNN, batch: int) -> None:
        blocks = cast(list[_Block], list(model.layers))
        self.left = model.first.left()[:, 0].T  # [taps, 2C]
        taps = torch.stack([block.conv.left() for block in blocks])  # [L, C, C, reach + 1]
        self.before = taps[..., :-1].permute(0, 3, 2, 1).flatten(1, 2).contiguous()  # [L, reach C, C]
        self.reach = taps.shape[-1] - 1
        own = taps[..., -1].mT.unbind()
        self.blocks = [
            (*_linear(block.reduce), at, *_linear(block.expand)) for at, block in zip(own, blocks, strict=True)
        ]
        self.hidden, self.output = ((layer.weight[:, :, 0, 0], layer.bias) for layer in (model.hidden, model.output))
        self.weights = torch.cat([block.conv.above() for block in blocks])
        self.biases = torch.cat([cast(Tensor, block.conv.bias) for block in blocks])
        width = model.event_shape[2] + 2 * self.reach
        self.above = self.weights.new_zeros(batch, len(self.weights), self.reach, width)

    def scan(self, thresholds: Tensor, start: Tensor) -> Tensor:
        batch, width = thresholds.shape
        first_reach = len(self.left)
        sums = F.conv2d(self.above, self.weights, self.biases, groups=len(self.blocks))[:, :, 0]
        sums = sums.unflatten(1, (len(self.blocks), -1)).permute(3, 1, 0, 2).contiguous()  # [W, L, B, C]
        start = start.permute(2, 0, 1).contiguous()
        pixels = thresholds.new_zeros(batch, first_reach + width)
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
            pixels[:, column + first_reach] = logit[:, 0] > thresholds[:, column]
        maps = torch.stack(inputs[self.reach :], -1).transpose(0, 1).flatten(1, 2)  # [B, L C, W]
        self.above = torch.cat([self.above[:, :, 1:], F.pad(maps, (self.reach, self.reach))[:, :, None]], 2)
        return pixels[:, first_reach:]
