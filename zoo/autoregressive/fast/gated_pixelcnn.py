"""Gated PixelCNN pixel by pixel, with each activation computed once; see `zoo.autoregressive.fast.lines`.

A gate needs only tanh, since sigmoid(b) = (tanh(b/2) + 1)/2. The weights are scaled to give b/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.autoregressive.fast.lines import Line, draw, with_bias
from zoo.capabilities import Conditional
from zoo.given import Labels

if TYPE_CHECKING:
    from zoo.autoregressive.gated_pixelcnn import ConditionalGatedPixelCNN, GatedLayer, GatedPixelCNN


def from_uniforms(model: GatedPixelCNN, uniforms: Tensor, labels: Labels = None) -> Tensor:
    classes = None
    if isinstance(model, Conditional):
        classes = cast("ConditionalGatedPixelCNN", model).vectors(labels, len(uniforms))
    return draw(model, _Line(model, len(uniforms), classes), uniforms)


class _Line(Line):
    """A row of both stacks."""

    def __init__(self, model: GatedPixelCNN, batch: int, classes: Sequence[Tensor] | None) -> None:
        layers, width = cast("list[GatedLayer]", list(model.layers)), model.event_shape[2]
        self.vertical = Vertical(layers, batch, width, classes)
        self.horizontal = Horizontal(layers, batch, width)
        self.above, self.left, self.start = model.above, model.left.weight[:, 0, 0].T, self.horizontal.start
        self.position_v, position_h = model.position.bias.permute(1, 2, 0).chunk(2, -1)  # [H, W, C]
        self.position_h = position_h + cast(Tensor, model.left.bias)

    def begin(self, above: Tensor, row: int) -> None:
        v = F.conv2d(above, self.above.weight, self.above.bias)[:, :, 0].mT
        self.start.copy_(self.position_h[row])
        self.horizontal.begin(self.vertical.scan(v + self.position_v[row]))

    def step(self, column: int) -> Tensor:
        return self.horizontal.step(column)


class Vertical:
    """The vertical stack, one row at a time. One matrix product per layer serves both stacks.

    Args:
        layers: The layers in order.
        batch: Number of images.
        width: Width of the images.
        classes: Vectors that the classes of the images add in the gates of each layer, [B, 2, 2C]; by default, none.
    """

    def __init__(
        self, layers: list[GatedLayer], batch: int, width: int, classes: Sequence[Tensor] | None = None
    ) -> None:
        reach, channels, half = layers[0].reach, layers[0].out.in_channels, _half(layers)
        # v before and after the layers in the last rows, padded with zeros; then the window that each place sees
        self.rows = half.new_zeros(len(layers) + 1, reach + 1, batch, width + 2 * reach, channels)
        self.last = [rows[-1, :, reach : reach + width] for rows in self.rows]
        seen = self.rows[:-1].unfold(3, 2 * reach + 1, 1).permute(0, 2, 3, 1, 5, 4)  # [L, B, W, rows, kernel, C]
        totals = half.new_empty(len(layers), batch, width, 4 * channels)
        gates, self.sums = totals.chunk(2, -1)
        self.layers = []
        memories = zip(seen, totals.flatten(1, 2), gates, self.last, self.last[1:], strict=False)
        for number, (layer, memory) in enumerate(zip(layers, memories, strict=True)):
            weight, bias = layer.vertical.weight.permute(2, 3, 1, 0).flatten(0, 2), cast(Tensor, layer.vertical.bias)
            between, for_h = layer.between.weight[:, :, 0, 0].T, half.new_zeros(1)
            if classes is not None:  # a bias of its own for each place of each image
                for_v, for_h = classes[number].repeat_interleave(width, 0).unbind(1)
                bias = bias + for_v
            bias = torch.cat([bias * half, (bias @ between + for_h) * half], -1)
            weight = torch.cat([weight * half, weight @ between * half], -1)
            self.layers.append((*memory, bias, weight))

    def scan(self, v: Tensor) -> Tensor:
        """Computes the next row: v before the first layer, [B, W, C] -> the input of `Horizontal`, [L, B, W, 2C]."""
        self.rows[:, :-1] = self.rows[:, 1:].clone()
        self.last[0].copy_(v)
        for seen, total, gates, here, following, bias, weight in self.layers:
            torch.addmm(bias, seen.reshape(-1, len(weight)), weight, out=total)
            a, b = gates.tanh_().chunk(2, -1)
            torch.add(here, a.addcmul_(a, b), alpha=0.5, out=following)
        return self.sums


class Horizontal:
    """The horizontal stack, one pixel at a time.

    Args:
        layers: The layers in order.
        batch: Number of images.
        width: Width of the images.

    Attributes:
        start: h before the first layer in the current row, [B, W, C]; the caller sets it before `step`.
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
        """Begins a row, given its input from the vertical stack, [L, B, W, 2C]."""
        self.sums.copy_(sums.permute(2, 0, 1, 3))

    def step(self, column: int) -> Tensor:
        """A one, then relu(h) of the pixel after the last layer: [B, 1 + C]; valid until the next step."""
        for total, a, b, seen, h, following, (taps, out) in self.columns[column]:
            total.addmm_(seen, taps).tanh_()
            torch.addcmul(a, a, b, out=self.gate)
            torch.addmm(h, self.gated, out, out=following)
        self.active.relu_()
        return self.last


def _half(layers: list[GatedLayer]) -> Tensor:
    """Factors for the sums (a, b) of a gate, [2C]: 1 for a, 1/2 for b."""
    half = torch.ones_like(cast(Tensor, layers[0].vertical.bias))
    half[len(half) // 2 :] = 0.5
    return half
