"""PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, sections 3.3 to 3.5), for binary pixels.

    log p(x) = sum over pixels of log p(x_i | x_1, ..., x_i-1)                                                (eq. 1)
    h' = h + W_3 relu(masked convolution of relu(W_1 relu(h)))     residual block                 (figure 5, left)

The first convolution has a mask of type A, those of the blocks have type B. Stacked, they see a triangle. A pixel above
and further to the right than the kernels reach is in the blind spot (van den Oord et al. 2016,
https://arxiv.org/abs/1606.05328, figure 1); `zoo.autoregressive.gated_pixelcnn` has none.

Density: exact, one pass.
Sampling: exact, one pixel at a time. The fast version computes each activation once, and the sums over the rows above
once per row.
Differs from the paper: a learned bias at each position; shifted images; dropout; clipped gradients; AdamW with a
warm-up and a cosine schedule; averaged weights.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from zoo.autoregressive.fast import faster, lines
from zoo.autoregressive.fast import pixelcnn as fast
from zoo.autoregressive.raster import MaskedConv2d, RasterOrder, check_odd_and_grey, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import PositionBias, Regularized, dropout, regularized_log_prob, take_teachers
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.random import Streams


class Block(nn.Module):
    """A residual block: maps [B, 2C, H, W] -> maps of the same shape."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(2 * channels, channels, 1)
        self.conv = MaskedConv2d(channels, channels, kernel, "B")
        self.expand = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, h: Tensor, rate: float, streams: Streams | None) -> Tensor:
        inner = self.conv(self.reduce(h.relu()).relu()).relu()
        return h + self.expand(dropout(inner, rate, streams))


class PixelCNN(RasterOrder):
    """Residual blocks of masked convolutions.

    Args:
        event_shape: Shape of one example, (1, H, W); values in {0, 1}.
        channels: h in the paper; maps between the blocks have twice as many channels.
        num_layers: Number of residual blocks.
        kernel: Size of their masked convolutions, odd.
        first_kernel: Size of the first convolution, odd.
        hidden: Number of units of the layer before the logits.
        dropout: Fraction of a block's activations that dropout zeroes in training.
        max_shift: Largest shift along each axis, in pixels; training shifts each image with probability 1/2.
    """

    teachers: tuple[Regularized, ...] = ()
    training_log_prob = regularized_log_prob
    learn_from = take_teachers

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
        check_odd_and_grey("PixelCNN", event_shape[0], kernel, first_kernel)
        _, height, width = self.event_shape = tuple(event_shape)
        self.dropout, self.max_shift = dropout, max_shift
        self.first = MaskedConv2d(1, 2 * channels, first_kernel, "A")
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.layers = nn.ModuleList(Block(channels, kernel) for _ in range(num_layers))
        self.hidden = nn.Conv2d(2 * channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        h = (self.first(x) + self.position(shifts)).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            h = layer(h, self.dropout, streams)
        return self.output(self.hidden(h.relu()).relu()).flatten(1)

    @faster(lines.log_prob)
    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.logits(x), x).sum(-1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        return pixel_by_pixel(self.logits, uniforms)
