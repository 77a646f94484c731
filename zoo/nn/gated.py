"""Layers of the gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328, figure 2).

`GatedLayer` takes whole images. `Vertical` and `Horizontal` are the same for images that are made pixel by pixel, where
each activation is computed once. What is small takes as long to allocate, slice or join as to compute: so they write
where they read, into memory whose slices are made once, and outside of autograd only. They make a gate of one tanh, as
sigmoid(b) = (tanh(b/2) + 1)/2, with b halved in the weights, and of biases weights of an input that is one.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.nn.affine import with_bias
from zoo.nn.dropout import dropout
from zoo.random import Streams


def gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) of the two halves of the channels."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One step of both stacks. v at row r knows the rows above r, and h at (r, c) also the pixels left of c."""

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
        to_v, to_h = gate(for_v), gate(for_h)
        if streams is not None and rate:
            # one draw for both, since `zoo.training.together` has one for a layer
            to_v, to_h = dropout(torch.cat([to_v, to_h], 1), rate, streams).chunk(2, 1)
        return v + to_v, h + self.out(to_h)


class Vertical:
    """The vertical stack, a row at a time: one product a layer, for both stacks.

    Args:
        layers: from the first.
        batch, width: how many images, and how wide.
    """

    def __init__(self, layers: list[GatedLayer], batch: int, width: int) -> None:
        reach, channels, half = layers[0].reach, layers[0].out.in_channels, _half(layers)
        # v before and after the layers in the last rows, with zeros around, and what each place sees of them
        self.rows = half.new_zeros(len(layers) + 1, reach + 1, batch, width + 2 * reach, channels)
        self.last = [rows[-1, :, reach : reach + width] for rows in self.rows]
        seen = self.rows[:-1].unfold(3, 2 * reach + 1, 1).permute(0, 2, 3, 1, 5, 4)  # [L, B, W, rows, kernel, C]
        totals = half.new_empty(len(layers), batch, width, 4 * channels)
        gates, self.sums = totals.chunk(2, -1)
        self.layers = []
        for layer, *memory in zip(layers, seen, totals.flatten(1, 2), gates, self.last, self.last[1:], strict=False):
            weight, bias = layer.vertical.weight.permute(2, 3, 1, 0).flatten(0, 2), cast(Tensor, layer.vertical.bias)
            between = layer.between.weight[:, :, 0, 0].T
            weights = [torch.cat([y * half, y @ between * half], -1) for y in (bias, weight)]
            self.layers.append((*memory, *weights))

    def scan(self, v: Tensor) -> Tensor:
        """The next row: v before the first layer [B, W, C] -> what `Horizontal` gets from it, [L, B, W, 2C]."""
        self.rows[:, :-1] = self.rows[:, 1:].clone()
        self.last[0].copy_(v)
        for seen, total, gates, here, following, bias, weight in self.layers:
            torch.addmm(bias, seen.reshape(-1, len(weight)), weight, out=total)
            a, b = gates.tanh_().chunk(2, -1)
            torch.add(here, a.addcmul_(a, b), alpha=0.5, out=following)
        return self.sums


class Horizontal:
    """The horizontal stack, a pixel at a time.

    Args:
        layers, batch, width: as for `Vertical`.

    Attributes:
        start: h before the first layer, of the row that is made, [B, W, C]; to be written before `step`.
    """

    def __init__(self, layers: list[GatedLayer], batch: int, width: int) -> None:
        reach, channels, half = layers[0].reach, layers[0].out.in_channels, _half(layers)
        inputs = half.new_zeros(len(layers), batch, reach + width, channels)  # of the layers, zero before the row
        self.start = inputs[0, :, reach:]
        seen = inputs.flatten(2).unfold(2, (reach + 1) * channels, channels)  # [L, B, W, (reach + 1) C]
        self.sums = half.new_empty(width, len(layers), batch, 2 * channels)
        self.gated = half.new_ones(batch, 1 + channels)
        self.last = self.gated.clone()
        self.gate, self.active = self.gated[:, 1:], self.last[:, 1:]
        weights = []
        for layer in layers:
            taps, out = layer.horizontal.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1) * half, with_bias(layer.out)
            out[1:] *= 0.5
            weights.append((taps, out))
        self.columns = [
            [
                (total, *total.chunk(2, 1), *rest)
                for total, *rest in zip(totals, seen[:, :, column], h, [*h[1:], self.active], weights, strict=True)
            ]
            for column, totals in enumerate(self.sums)
            for h in [inputs[:, :, reach + column].unbind()]
        ]

    def begin(self, sums: Tensor) -> None:
        """A row, with what it gets from above, [L, B, W, 2C]."""
        self.sums.copy_(sums.permute(2, 0, 1, 3))

    def step(self, column: int) -> Tensor:
        """One, and relu of h of that pixel after the last layer: [B, 1 + C], until the next step."""
        for total, a, b, seen, h, following, (taps, out) in self.columns[column]:
            total.addmm_(seen, taps).tanh_()
            torch.addcmul(a, a, b, out=self.gate)
            torch.addmm(h, self.gated, out, out=following)
        self.active.relu_()
        return self.last


def _half(layers: list[GatedLayer]) -> Tensor:
    """What halves b in the sums of a gate, [2C]."""
    half = torch.ones_like(cast(Tensor, layers[0].vertical.bias))
    half[len(half) // 2 :] = 0.5
    return half
