"""Fast sampling of PixelCNN for colours: the stacks of `zoo.autoregressive.fast.gated_pixelcnn`, then each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast.gated_pixelcnn import Horizontal, Vertical
from zoo.progress import steps

if TYPE_CHECKING:
    from zoo.autoregressive.color_pixelcnn import ColorPixelCNN
    from zoo.autoregressive.gated_pixelcnn import GatedLayer


def from_uniforms(model: ColorPixelCNN, uniforms: Tensor, x: Tensor, known: Tensor) -> Tensor:
    """Fast version of `ColorPixelCNN.from_uniforms`."""
    (colors, height, width), reach = model.event_shape, model.reach
    padded = F.pad(model._seen(x), (reach, 0, reach, 0))  # zeros to the left and above
    layers = cast("list[GatedLayer]", list(model.layers))
    vertical, horizontal = Vertical(layers, len(x), width), Horizontal(layers, len(x), width)
    position_v, position_h = model.position.permute(1, 2, 0).chunk(2, -1)  # [H, W, C]
    left, start = model.left.weight.flatten(1).T, position_h + cast(Tensor, model.left.bias)
    for row in steps(range(height), "row"):
        v = model.above(padded[:, :, row : row + reach, reach:])[:, :, 0].mT + position_v[row]
        horizontal.begin(vertical.scan(v[..., : model.channels]))
        for column in range(width):
            seen = padded[:, :, row + reach, column : column + reach].flatten(1)
            h = torch.addmm(start[row, column], seen, left)
            horizontal.start[:, column].copy_(h[:, : model.channels])
            nearest = (h + v[:, column])[:, model.channels :]  # none if not linear
            here = padded[:, :, row + reach, column + reach]  # written to
            pixel = here[:, :colors]
            active = horizontal.step(column)[:, 1:]
            _draw_pixel(model, active, nearest, pixel, known[:, :, row, column], uniforms[:, row, column])
            if model.vectors is not None:
                here.copy_(model._seen(pixel))
    return padded[:, :colors, reach:, reach:]


def _draw_pixel(
    model: ColorPixelCNN, active: Tensor, nearest: Tensor, pixel: Tensor, known: Tensor, uniforms: Tensor
) -> None:
    """Draws the unknown channels of a pixel, [B, C], in turn and in place, given relu(h) at the pixel, [B, channels].

    `nearest`, [B, C], holds the linear prediction from earlier pixels; the part from earlier channels is added to it.
    """
    inner = F.linear(active, model.inner.weight[:, :, 0, 0], model.inner.bias).unflatten(1, (-1, model.hidden))
    bias = cast(Tensor, model.output.bias)
    size = len(bias) // model.event_shape[0]
    weights = zip(model.output.weight[:, :, 0, 0].split(size), bias.split(size), strict=True)
    for c, (weight, offset) in enumerate(weights):
        outputs = F.linear(inner[:, c].relu(), weight, offset)
        if model.linear:
            linear = nearest[:, c] + (pixel[:, :c] @ model.across[c - 1] if c else 0)
            outputs, nearest[:, c] = model._moved(outputs, linear, pixel[:, :c] - nearest[:, :c]), linear
        pixel[:, c] = torch.where(known[:, c], pixel[:, c], model._level(outputs, uniforms[:, c]))
        if c < len(model.earlier):
            embedded = cast(nn.Embedding, model.earlier[c])(model._number(pixel[:, c]))
            inner[:, c + 1 :] += embedded.unflatten(1, (-1, model.hidden))
