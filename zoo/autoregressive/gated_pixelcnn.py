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
from zoo.nn.gated import GatedLayer
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
        thresholds = uniforms.clamp(0, 1).logit().view(batch, height, width)
        x = uniforms.new_zeros(batch, 1, height + reach + 1, width)  # with rows of zeros above
        vertical, horizontal = _Vertical(self, batch), _Horizontal(self, batch)
        above, left = self.position.bias.chunk(2)
        for row in range(height):
            v = self.above(x[:, :, row : row + reach + 1])[:, :, 0] + above[:, row]
            sums = vertical.scan(v.permute(0, 2, 1).contiguous())
            x[:, 0, row + reach + 1] = horizontal.scan(thresholds[:, row], sums, left[:, row])
        return x[:, 0, reach + 1 :].flatten(1)


class _Vertical:
    """The vertical stack of a model, a row at a time: one product a layer, for both stacks."""

    def __init__(self, model: GatedPixelCNN, batch: int) -> None:
        self.layers, width, self.reach = [], model.event_shape[2], model.reach
        half = _half(model)
        for layer in cast(list[GatedLayer], model.layers):
            weight = layer.vertical.weight.permute(2, 3, 1, 0).flatten(0, 2)
            between = layer.between.weight[:, :, 0, 0].T
            both = (torch.cat([y * half, y @ between * half], -1) for y in (cast(Tensor, layer.vertical.bias), weight))
            self.layers.append(tuple(both))
        # inputs of the layers in the last rows, with zeros around, and what each place sees of them
        self.rows = half.new_zeros(len(self.layers), self.reach + 1, batch, width + 2 * self.reach, model.channels)
        self.seen = self.rows.unfold(3, 2 * self.reach + 1, 1).permute(0, 2, 3, 1, 5, 4)  # [L, B, W, rows, kernel, C]

    def scan(self, v: Tensor) -> Tensor:
        """What both stacks get: v before the first layer [B, W, C] -> sums for the horizontal one [L, B, W, 2C]."""
        channels, width, sums = v.shape[-1], v.shape[1], []
        self.rows[:, :-1] = self.rows[:, 1:].clone()
        for rows, seen, (bias, weight) in zip(self.rows, self.seen, self.layers, strict=True):
            rows[-1, :, self.reach : self.reach + width] = v
            total = torch.addmm(bias, seen.reshape(-1, len(weight)), weight).view(*v.shape[:2], len(bias))
            a, b = total[..., : 2 * channels].tanh().chunk(2, -1)
            v = torch.add(v, torch.addcmul(a, a, b), alpha=0.5)
            sums.append(total[..., 2 * channels :])
        return torch.stack(sums)


def _half(model: GatedPixelCNN) -> Tensor:
    """What sigmoid(b) = (tanh(b/2) + 1)/2 takes to make one tanh of a gate, [2C]."""
    half = model.position.bias.new_ones(2 * model.channels)
    half[model.channels :] = 0.5
    return half


class _Horizontal:
    """The horizontal stack of a model, a pixel at a time.

    One product for all layers brings what is left of a pixel; then each layer takes four small operations. What is
    small takes as long to allocate, slice or join as to compute: so all is written where it is read, into memory whose
    slices are made once.

    Layer i works with h_i less the biases of the outputs before it, which join the sums from above.
    """

    def __init__(self, model: GatedPixelCNN, batch: int) -> None:
        layers = [cast(GatedLayer, layer) for layer in model.layers]
        width, self.reach = model.event_shape[2], (reach := model.reach)
        half = _half(model)
        taps = torch.stack([layer.horizontal.weight[:, :, 0] for layer in layers]) * half[:, None, None]
        own = taps[..., -1].mT.contiguous()  # [L, C, 2C]
        biases = torch.stack([cast(Tensor, layer.out.bias) for layer in layers]).cumsum(0)
        less = torch.cat([torch.zeros_like(biases[:1]), biases])[:, None]  # [L + 1, 1, C]
        self.constant = torch.bmm(less[:-1], taps.sum(-1).mT)  # [L, 1, 2C]
        self.left, self.left_bias = model.left.weight[:, 0, 0].T.contiguous(), cast(Tensor, model.left.bias)
        self.before = taps[..., :-1].permute(0, 3, 2, 1).flatten(1, 2).contiguous()  # [L, reach C, 2C]
        self.less = less[-1]
        self.inner, self.output = (
            (cast(Tensor, layer.bias), layer.weight[:, :, 0, 0].T) for layer in (model.hidden, model.output)
        )

        self.pixels = less.new_zeros(batch, reach + 1 + width)
        inputs = (-less)[:, :, None].repeat(1, batch, reach + width, 1)  # [L + 1, B, reach + W, C], zero before the row
        self.totals = less.new_empty(len(layers), batch, 2 * model.channels)
        self.columns = [
            (
                self.pixels[:, column : column + reach + 1],
                inputs[:-1, :, column : column + reach].flatten(2),
                inputs[:, :, column + reach].unbind(),
                self.pixels[:, column + reach + 1, None],
            )
            for column in range(width)
        ]
        self.layers = [
            (total, *total.chunk(2, 1), weight, layer.out.weight[:, :, 0, 0].T.contiguous() * 0.5)
            for total, weight, layer in zip(self.totals, own, layers, strict=True)
        ]

    def scan(self, thresholds: Tensor, sums: Tensor, position: Tensor) -> Tensor:
        """A row of pixels.

        Args:
            thresholds: which a logit has to exceed, [B, W].
            sums: from above, [L, B, W, 2C].
            position: biases, [C, W].

        Returns:
            [B, W], until the next call.
        """
        sums = (sums.permute(2, 0, 1, 3) + self.constant).contiguous()  # [W, L, B, 2C]
        start = (position + self.left_bias[:, None]).T.contiguous()  # [W, C]
        for row in zip(self.columns, start, sums, thresholds.T[..., None], strict=True):
            (left, before, inputs, pixel), first, above, threshold = row
            torch.addmm(first, left, self.left, out=inputs[0])
            torch.baddbmm(above, before, self.before, out=self.totals)
            for h, following, (total, a, b, own, out) in zip(inputs, inputs[1:], self.layers, strict=False):
                torch.addmm(total, h, own, out=total).tanh_()
                torch.addmm(h, a.addcmul_(a, b), out, out=following)
            inner = torch.addmm(self.inner[0], (inputs[-1] + self.less).relu_(), self.inner[1]).relu_()
            torch.gt(torch.addmm(self.output[0], inner, self.output[1]), threshold, out=pixel)
        return self.pixels[:, self.reach + 1 :]
