"""Layers of the gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328, figure 2).

`GatedLayer` takes whole images. `Vertical` and `Horizontal` are the same for images that are made pixel by pixel, where
each activation is computed once. What is small takes as long to allocate, slice or join as to compute: so they write
where they read, into memory whose slices are made once, and outside of autograd only. They make a gate of one tanh, as
sigmoid(b) = (tanh(b/2) + 1)/2, with b halved in the weights.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        return v + gate(for_v), h + self.out(dropout(gate(for_h), rate, streams))


class Vertical:
    """The vertical stack, a row at a time: one product a layer, for both stacks.

    Args:
        layers: from the first.
        batch, width: how many images, and how wide.
    """

    def __init__(self, layers: list[GatedLayer], batch: int, width: int) -> None:
        reach, channels, half = layers[0].reach, layers[0].out.in_channels, _half(layers)
        self.weights = []
        for layer in layers:
            weight, bias = layer.vertical.weight.permute(2, 3, 1, 0).flatten(0, 2), cast(Tensor, layer.vertical.bias)
            between = layer.between.weight[:, :, 0, 0].T
            self.weights.append([torch.cat([y * half, y @ between * half], -1) for y in (bias, weight)])
        # inputs of the layers in the last rows, with zeros around, and what each place sees of them
        self.rows = half.new_zeros(len(layers), reach + 1, batch, width + 2 * reach, channels)
        self.last = [rows[-1, :, reach : reach + width] for rows in self.rows]
        self.seen = self.rows.unfold(3, 2 * reach + 1, 1).permute(0, 2, 3, 1, 5, 4)  # [L, B, W, rows, kernel, C]

    def scan(self, v: Tensor) -> Tensor:
        """The next row: v before the first layer [B, W, C] -> what `Horizontal` gets from it, [L, B, W, 2C]."""
        shape, sums = v.shape[:2], []
        self.rows[:, :-1] = self.rows[:, 1:].clone()
        for last, seen, (bias, weight) in zip(self.last, self.seen, self.weights, strict=True):
            last.copy_(v)
            total = torch.addmm(bias, seen.reshape(-1, len(weight)), weight).view(*shape, len(bias))
            gates, across = total.chunk(2, -1)
            a, b = gates.tanh().chunk(2, -1)
            v = torch.add(v, torch.addcmul(a, a, b), alpha=0.5)
            sums.append(across)
        return torch.stack(sums)


class Horizontal:
    """The horizontal stack, a pixel at a time: one product for all layers brings what is left of it.

    Layer i works with h_i less the biases of the outputs before it, which join the sums from above.

    Args:
        layers, batch, width: as for `Vertical`.
    """

    def __init__(self, layers: list[GatedLayer], batch: int, width: int) -> None:
        reach, channels, half = layers[0].reach, layers[0].out.in_channels, _half(layers)
        taps = torch.stack([layer.horizontal.weight[:, :, 0] for layer in layers]) * half[:, None, None]
        own = taps[..., -1].mT.contiguous()  # [L, C, 2C]
        biases = torch.stack([cast(Tensor, layer.out.bias) for layer in layers]).cumsum(0)
        less = torch.cat([torch.zeros_like(biases[:1]), biases])[:, None]  # [L + 1, 1, C]
        self.constant, self.less = torch.bmm(less[:-1], taps.sum(-1).mT), less[-1]
        self.before = taps[..., :-1].permute(0, 3, 2, 1).flatten(1, 2).contiguous()  # [L, reach C, 2C]
        self.totals = half.new_empty(len(layers), batch, 2 * channels)
        inputs = (-less)[:, :, None].repeat(1, batch, reach + width, 1)  # [L + 1, B, reach + W, C], zero before the row
        self.inputs = [inputs[:, :, column + reach].unbind() for column in range(width)]
        self.left = [inputs[:-1, :, column : column + reach].flatten(2) for column in range(width)]
        self.layers = [
            (total, *total.chunk(2, 1), weight, layer.out.weight[:, :, 0, 0].T.contiguous() * 0.5)
            for total, weight, layer in zip(self.totals, own, layers, strict=True)
        ]

    def begin(self, sums: Tensor) -> None:
        """A row, with what it gets from above, [L, B, W, 2C]."""
        self.sums = (sums.permute(2, 0, 1, 3) + self.constant).contiguous().unbind()

    def first(self, column: int) -> Tensor:
        """Where h of that pixel before the first layer belongs, [B, C]; to be written before `step`."""
        return self.inputs[column][0]

    def step(self, column: int) -> Tensor:
        """h of that pixel after the last layer, [B, C]."""
        inputs = self.inputs[column]
        torch.baddbmm(self.sums[column], self.left[column], self.before, out=self.totals)
        for h, following, (total, a, b, own, out) in zip(inputs, inputs[1:], self.layers, strict=False):
            torch.addmm(total, h, own, out=total).tanh_()
            torch.addmm(h, a.addcmul_(a, b), out, out=following)
        return inputs[-1] + self.less


def _half(layers: list[GatedLayer]) -> Tensor:
    """What halves b in the sums of a gate, [2C]."""
    half = torch.ones_like(cast(Tensor, layers[0].vertical.bias))
    half[len(half) // 2 :] = 0.5
    return half
