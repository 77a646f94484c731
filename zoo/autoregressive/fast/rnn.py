"""RNN over pixels: one step of each layer for each pixel.

For small tensors, allocating memory takes as long as the arithmetic, so memory is allocated once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from zoo.autoregressive.regularization import bias_of
from zoo.progress import steps

if TYPE_CHECKING:
    from zoo.autoregressive.rnn import RNN


def from_uniforms(model: RNN, uniforms: Tensor, shifts: Tensor | None = None) -> Tensor:
    """Fast version of `RNN.from_uniforms`."""
    batch, window = len(uniforms), model.window
    pixels = uniforms.new_zeros(batch, window + model.size)
    places = [place.split(window, 1) for place in pixels.unfold(1, window + 1, 1).unbind(1)]  # before, the pixel
    cells = [_Cell(batch, *cast(nn.GRU, layer).all_weights[0]) for layer in model.layers]
    start, h = model.input.bias + model.position, uniforms.new_empty(batch, len(model.input.bias))
    if shifts is not None and model.max_shift:
        start = start[:, None] + bias_of(shifts, model.shift_biases)
    weight, output = (layer.weight.T.contiguous() for layer in (model.input, model.output))
    thresholds = uniforms.flatten(1).clamp(0, 1).logit() - model.bias - model.output.bias
    in_turn = zip(places, start, thresholds.T[..., None].contiguous(), strict=True)
    for (before, pixel), first, threshold in steps(list(in_turn), "pixel"):
        x = torch.addmm(first, before, weight, out=h)
        for cell in cells:
            x = cell(x)
        torch.gt(torch.mm(x, output), threshold, out=pixel)
    return pixels[:, window:].reshape(uniforms.shape)


class _Cell:
    """One step of a layer, h = (1 - z) n + z h_before, in memory that is allocated once.

    The weights are laid out in the order in which a product with few rows reads them. The transposed layout of `nn.GRU`
    takes twice as long.
    """

    def __init__(self, batch: int, weight_x: Tensor, weight_h: Tensor, bias_x: Tensor, bias_h: Tensor) -> None:
        self.of_x, self.of_h = (bias_x, weight_x.T.contiguous()), (bias_h, weight_h.T.contiguous())
        hidden = weight_h.shape[1]
        self.h = weight_h.new_zeros(batch, hidden)
        self.from_x, self.from_h = weight_h.new_empty(2, batch, 3 * hidden)
        self.gates, self.n = self.from_x.split([2 * hidden, hidden], 1)
        self.r, self.z = self.gates.chunk(2, 1)
        self.gates_of_h, self.n_of_h = self.from_h.split([2 * hidden, hidden], 1)

    def __call__(self, x: Tensor) -> Tensor:
        """h, [B, H], given the layer's input, [B, H]; valid until the next step."""
        torch.addmm(self.of_x[0], x, self.of_x[1], out=self.from_x)
        torch.addmm(self.of_h[0], self.h, self.of_h[1], out=self.from_h)
        self.gates.add_(self.gates_of_h).sigmoid_()
        self.n.addcmul_(self.r, self.n_of_h).tanh_()
        return torch.lerp(self.n, self.h, self.z, out=self.h)
