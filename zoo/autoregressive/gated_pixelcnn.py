"""Gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328), for binary pixels.

    log p(x) = sum over pixels of log p(x_rc | the rows above r, the pixels of row r to the left of c)         (eq. 1)
    v' = v + tanh(W_f * v) sigmoid(W_g * v)     vertical stack: sees all rows above, without a blind spot
    h' = h + W_o [tanh(U_f * h + V_f * v) sigmoid(U_g * h + V_g * v)]     horizontal stack     (eq. 2, figure 2)

Density: exact, one pass.
Sampling: exact, one pixel at a time. The fast way computes the vertical stack once a row, the horizontal one once a
pixel.
Differs from the paper: binary pixels; a residual connection in the vertical stack too; no skip connections; no classes;
a learned bias at each position; shifted images; clipped gradients; warm-ups and cosine schedules; averaged weights. The
checkpoint comes from several runs: the first with 14 layers, dropout and AdamW, the others with Muon, without dropout
and with teachers, the last with 22 layers.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import faster, lines
from zoo.autoregressive.fast import gated_pixelcnn as fast
from zoo.autoregressive.raster import RasterOrder, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import PositionBias, Regularized, dropout, regularized_log_prob, take_teachers
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.random import Streams


class GatedLayer(nn.Module):
    """One layer of both stacks. v in row r knows the rows above r; h at (r, c) also knows the pixels left of c."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.reach + 1, kernel), padding=(0, self.reach))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.reach + 1), bias=False)
        self.between = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, v: Tensor, h: Tensor, rate: float, streams: Streams | None) -> tuple[Tensor, Tensor]:
        for_v = self.vertical(F.pad(v, (0, 0, self.reach, 0)))
        for_h = self.between(for_v) + self.horizontal(F.pad(h, (self.reach, 0)))
        to_v, to_h = _gate(for_v), _gate(for_h)
        if streams is not None and rate:  # without dropout, a copy would cost time
            to_v, to_h = dropout(torch.cat([to_v, to_h], 1), rate, streams).chunk(2, 1)
        return v + to_v, h + self.out(to_h)


def _gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) of the two halves a and b of the channels."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedPixelCNN(RasterOrder):
    """Two stacks of gated, masked convolutions.

    Args:
        event_shape: Shape of one example, (1, H, W); values in {0, 1}.
        channels: Width of both stacks.
        num_layers: Number of gated layers.
        kernel: Size of the convolutions, odd.
        first_kernel: Size of the first convolution, odd.
        hidden: Units of the layer before the logits.
        dropout: Fraction of a layer's outputs that each training image does without.
        max_shift: Pixels by which training shifts every second image, at most, along both axes.
    """

    teachers: tuple[Regularized, ...] = ()
    training_log_prob = regularized_log_prob
    learn_from = take_teachers

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        channels: Size = 32,
        num_layers: Annotated[int, Between(1, 1000)] = 8,
        kernel: Annotated[int, Between(1, 99)] = 3,
        first_kernel: Annotated[int, Between(3, 99)] = 5,
        hidden: Size = 64,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if event_shape[0] != 1 or kernel % 2 == 0 or first_kernel % 2 == 0:
            raise ConfigError(
                f"GatedPixelCNN: expected one channel and an odd kernel and first_kernel, found {event_shape[0]}, "
                f"{kernel} and {first_kernel}"
            )
        _, height, width = self.event_shape = tuple(event_shape)
        self.reach, self.dropout, self.max_shift = first_kernel // 2, dropout, max_shift
        self.above = nn.Conv2d(1, channels, (self.reach, first_kernel), padding=(0, self.reach))
        self.left = nn.Conv2d(1, channels, (1, self.reach))
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.layers = nn.ModuleList(GatedLayer(channels, kernel) for _ in range(num_layers))
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        above, left = self.position(shifts).chunk(2, 1)
        v = self.above(F.pad(x, (0, 0, self.reach, -1))) + above  # the last row is above nothing
        h = self.left(F.pad(x, (self.reach, -1))) + left
        v, h = (maps.contiguous(memory_format=torch.channels_last) for maps in (v, h))
        for layer in self.layers:
            v, h = layer(v, h, self.dropout, streams)
        return self.output(self.hidden(h.relu()).relu()).flatten(1)

    @faster(lines.log_prob)
    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.logits(x), x).sum(-1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        return pixel_by_pixel(self.logits, uniforms)
