"""Gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328), for binary pixels.

    log p(x) = sum over pixels of log p(x_rc given the rows above r and the pixels of row r left of c)         (eq. 1)
    v' = v + tanh(W_f v) * sigmoid(W_g v)     vertical stack: what is above, all of it, without a blind spot
    h' = h + W_o [tanh(U_f h + V_f v) * sigmoid(U_g h + V_g v)]     horizontal stack: what is left    (eq. 2, figure 2)

Training may shift the images, with the shift as an input (Jun et al. 2020): see `zoo.nn.shift`.

Density: exact, one pass.
Sampling: exact; the vertical stack is computed once a row, the horizontal one once a pixel.
Differs from the paper: a residual connection in the vertical stack too, no skip connections; a learned bias at each
position; dropout; Adam with averaged weights.
"""

from __future__ import annotations

from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import Augmented
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.gated import GatedLayer, gate
from zoo.nn.position import PositionBias
from zoo.random import Streams


class GatedPixelCNN(Augmented):
    """Two stacks of gated, masked convolutions.

    Args:
        event_shape: (1, H, W); values in {0, 1}.
        channels: width of both stacks.
        num_layers: gated layers.
        kernel: size of the convolutions, odd.
        hidden: units of the layer before the logits.
        dropout: fraction of a layer's outputs that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

    def __init__(
        self,
        event_shape: ImageShape = [1, 28, 28],  # noqa: B006
        channels: Size = 32,
        num_layers: Annotated[int, Between(1, 1000)] = 8,
        kernel: Annotated[int, Between(1, 99)] = 3,
        hidden: Size = 64,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if event_shape[0] != 1 or kernel % 2 == 0:
            raise ConfigError(
                f"GatedPixelCNN: expected one channel and an odd kernel, found {event_shape[0]} and {kernel}"
            )
        self.event_shape = tuple(event_shape)
        self.channels, self.reach = channels, kernel // 2
        self.dropout = dropout
        self.max_shift = max_shift
        _, height, width = event_shape
        self.above = nn.Conv2d(1, channels, (self.reach + 1, 2 * self.reach + 3), padding=(0, self.reach + 1))
        self.left = nn.Conv2d(1, channels, (1, self.reach + 1))
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.layers = nn.ModuleList(GatedLayer(channels, kernel) for _ in range(num_layers))
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def _begin(self, x: Tensor, shifts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """v and h before the first layer, [B, C, H, W]."""
        v = self.above(F.pad(x, (0, 0, self.reach + 1, -1)))  # the last row is above nothing
        h = self.left(F.pad(x, (self.reach + 1, -1)))
        above, left = self.position(shifts).chunk(2, 1)
        return v + above, h + left

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        v, h = (y.contiguous(memory_format=torch.channels_last) for y in self._begin(x, shifts))
        for layer in self.layers:
            v, h = layer(v, h, self.dropout, streams)
        return self.output(self.hidden(h.relu()).relu()).flatten(1)

    def scan(self, uniforms: Tensor) -> Tensor:
        _, height, width = self.event_shape
        batch, reach = len(uniforms), self.reach
        uniforms = uniforms.view(batch, height, width)
        x = uniforms.new_zeros(batch, 1, height + reach + 1, width)  # with rows of zeros above
        # what a layer's vertical stack needs of the rows before: its inputs there
        above = [x.new_zeros(batch, self.channels, reach, width) for _ in self.layers]
        horizontal, (position_v, position_h) = _Horizontal(self), self.position.bias.chunk(2)
        for row in range(height):
            v = self.above(x[:, :, row : row + reach + 1]) + position_v[:, row, None]
            sums = []
            for i, layer in enumerate(cast(list[GatedLayer], self.layers)):
                slab = torch.cat([above[i], v], 2)
                for_v, for_h = layer.vertically(slab)
                above[i] = slab[:, :, 1:]
                v = v + gate(for_v)
                sums.append(for_h[:, :, 0])
            x[:, 0, row + reach + 1] = horizontal.scan(uniforms[:, row], torch.stack(sums), position_h[:, row])
        return x[:, 0, reach + 1 :].flatten(1)


class _Horizontal:
    """The horizontal stack of a model, a pixel at a time.

    One product for all layers brings what is left of a pixel; then each layer takes four small operations, as
    sigmoid(b) = (tanh(b/2) + 1)/2 makes one tanh of the gate.
    """

    def __init__(self, model: GatedPixelCNN) -> None:
        half = model.output.weight.new_ones(2 * model.channels)
        half[model.channels :] = 0.5
        self.half, self.reach, self.left = half, model.reach, model.left
        layers = [cast(GatedLayer, layer) for layer in model.layers]
        taps = torch.stack([layer.horizontal.weight[:, :, 0] for layer in layers]) * half[:, None, None]
        self.own = taps[..., -1].mT.contiguous()  # [L, C, 2C]
        self.before = taps[..., :-1].permute(0, 3, 2, 1).flatten(1, 2).contiguous()  # [L, reach C, 2C]
        self.out = [(layer.out.weight[:, :, 0, 0].T * 0.5, cast(Tensor, layer.out.bias)) for layer in layers]
        self.hidden, self.output = ((layer.weight[:, :, 0, 0], layer.bias) for layer in (model.hidden, model.output))

    def scan(self, uniforms: Tensor, sums: Tensor, position: Tensor) -> Tensor:
        """A row of pixels: uniforms [B, W], the sums from above [L, B, 2C, W], biases [C, W] -> [B, W]."""
        batch, width = uniforms.shape
        num_layers, channels = self.own.shape[:2]
        sums = (sums.permute(3, 0, 1, 2) * self.half).contiguous()  # [W, L, B, 2C]
        left = self.left.weight[:, 0, 0].T  # [taps, C]
        start = (position + cast(Tensor, self.left.bias)[:, None]).T.contiguous()  # [W, C]
        pixels = uniforms.new_zeros(batch, self.reach + 1 + width)
        # inputs of the layers at the pixels before
        states = uniforms.new_zeros(self.reach, num_layers, batch, channels)
        for column in range(width):
            h = torch.addmm(start[column], pixels[:, column : column + self.reach + 1], left)
            before = states.permute(1, 2, 0, 3).flatten(2)  # [L, B, reach C]
            total = torch.baddbmm(sums[column], before, self.before)
            inputs = []
            for i, (weight, bias) in enumerate(self.out):
                inputs.append(h)
                a, b = torch.addmm(total[i], h, self.own[i]).tanh_().chunk(2, 1)
                h = torch.addmm(h + bias, torch.addcmul(a, a, b), weight)
            states = torch.cat([states, torch.stack(inputs)[None]])[1:]
            logit = F.linear(F.linear(h.relu_(), *self.hidden).relu_(), *self.output)
            pixels[:, column + self.reach + 1] = uniforms[:, column] < logit[:, 0].sigmoid()
        return pixels[:, self.reach + 1 :]
