"""Gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328), for binary pixels.

    log p(x) = sum over pixels of log p(x_rc given the rows above r and the pixels of row r left of c)         (eq. 1)
    v' = v + tanh(W_f v) * sigmoid(W_g v)     vertical stack: what is above, all of it, without a blind spot
    h' = h + W_o [tanh(U_f h + V_f v) * sigmoid(U_g h + V_g v)]     horizontal stack: what is left    (eq. 2, figure 2)

Training may shift the images, with the shift as an input (Jun et al. 2020): see `zoo.nn.shift`.

Density: exact, one pass.
Sampling: exact; the vertical stack is computed once a row, the horizontal one once a pixel.
Differs from the paper: a residual connection in the vertical stack too, no skip connections; a learned bias at each
position; dropout; Adam or Muon with averaged weights. The checkpoint of binary digits was taught: see `Augmented`.
"""

from __future__ import annotations

from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.lines import Line, Lines
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.gated import GatedLayer, Horizontal, Vertical
from zoo.nn.position import PositionBias
from zoo.random import Streams


class GatedPixelCNN(Lines):
    """Two stacks of gated, masked convolutions.

    Args:
        event_shape: (1, H, W); values in {0, 1}.
        channels: width of both stacks.
        num_layers: gated layers.
        kernel: size of the convolutions, odd.
        first_kernel: size of the first convolution, odd.
        hidden: units of the layer before the logits.
        dropout: fraction of a layer's outputs that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

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
        self.event_shape = tuple(event_shape)
        self.reach, self.dropout = first_kernel // 2, dropout
        self.max_shift = max_shift
        _, height, width = event_shape
        self.above = nn.Conv2d(1, channels, (self.reach, first_kernel), padding=(0, self.reach))
        self.left = nn.Conv2d(1, channels, (1, self.reach))
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.layers = nn.ModuleList(GatedLayer(channels, kernel) for _ in range(num_layers))
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def _begin(self, x: Tensor, shifts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """v and h before the first layer, [B, C, H, W]."""
        v = self.above(F.pad(x, (0, 0, self.reach, -1)))  # the last row is above nothing
        h = self.left(F.pad(x, (self.reach, -1)))
        above, left = self.position(shifts).chunk(2, 1)
        return v + above, h + left

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        v, h = (y.contiguous(memory_format=torch.channels_last) for y in self._begin(x, shifts))
        for layer in self.layers:
            v, h = layer(v, h, self.dropout, streams)
        return self.decide(h)

    def begin(self, batch: int) -> Line:
        return _Line(self, batch)


class _Line(Line):
    """A row of both stacks."""

    def __init__(self, model: GatedPixelCNN, batch: int) -> None:
        layers, width = cast(list[GatedLayer], list(model.layers)), model.event_shape[2]
        self.vertical, self.horizontal = Vertical(layers, batch, width), Horizontal(layers, batch, width)
        self.above, self.left, self.start = model.above, model.left.weight[:, 0, 0].T, self.horizontal.start
        self.position_v, position_h = model.position.bias.permute(1, 2, 0).chunk(2, -1)  # [H, W, C]
        self.position_h = position_h + cast(Tensor, model.left.bias)

    def begin(self, above: Tensor, row: int) -> None:
        v = F.conv2d(above, self.above.weight, self.above.bias)[:, :, 0].mT
        self.start.copy_(self.position_h[row])
        self.horizontal.begin(self.vertical.scan(v + self.position_v[row]))

    def step(self, column: int) -> Tensor:
        return self.horizontal.step(column)
