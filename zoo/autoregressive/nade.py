"""NADE: neural autoregressive distribution estimator (Larochelle & Murray 2011; Uria et al. 2016, section 2).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(b_d + V_d h_d)                 (eq. 2)
    h_d = sigmoid(c + W_<d x_<d)                                                                               (eq. 3)

https://proceedings.mlr.press/v15/larochelle11a.html, https://arxiv.org/abs/1605.02226. Training may shift the images,
with the shift as an input (Jun et al. 2020): see `zoo.nn.shift`.

Density: exact, O(D H), by blocks of pixels; h changes only after a pixel that is on, so it is computed for these alone.
Sampling: exact, O(D H), likewise, pixel by pixel.
Differs from the paper: shifted images; dropout; Adam with averaged weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.autoregressive.raster import Augmented
from zoo.config import Fraction, Shift, Size
from zoo.nn.dropout import dropout
from zoo.nn.shift import bias_of, shift_biases
from zoo.progress import steps
from zoo.random import Streams

BLOCK = 16  # pixels of which one matrix product takes the states; any number gives the same logits


class NADE(Augmented):
    """One hidden layer per pixel, all with the same weights.

    Args:
        event_shape: shape of one example; values in {0, 1}.
        hidden: units of a hidden layer.
        dropout: fraction of the hidden units that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

    def __init__(
        self,
        event_shape: list[Size] = [1, 28, 28],  # noqa: B006
        hidden: Size = 500,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = math.prod(event_shape)
        self.dropout = dropout
        self.max_shift = max_shift
        self.weight = nn.Parameter(torch.randn(self.size, hidden) * 0.05)  # W, a row per pixel
        self.output = nn.Parameter(torch.randn(self.size, hidden) * 0.05)  # V
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))  # c
        self.bias = nn.Parameter(torch.zeros(self.size))  # b
        if max_shift:
            self.shift_biases = shift_biases(event_shape, max_shift, hidden + self.size)

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        x = x.flatten(1)
        biases = torch.cat([self.hidden_bias, self.bias])
        if shifts is not None:
            biases = biases + bias_of(shifts, self.shift_biases)
        hidden_bias, bias = biases.split([len(self.hidden_bias), self.size], -1)
        ones = hidden_bias.new_ones(len(x), len(self.hidden_bias))
        keep = dropout(ones, self.dropout, streams) if streams is not None and self.dropout else None
        short = -self.size % BLOCK
        padded = (F.pad(weight, (0, 0, 0, short)) if short else weight for weight in (self.weight, self.output))
        with torch.autocast(self.device.type, enabled=False):
            logits = _Scan.apply(F.pad(x, (0, short)), hidden_bias.expand(len(x), -1), *padded, keep)
        return logits[:, : self.size] + bias

    def scan(self, uniforms: Tensor) -> Tensor:
        u = uniforms.T.contiguous()  # [D, B], so that a pixel is a row
        x = torch.zeros_like(u)
        sums = self.hidden_bias.expand(u.shape[1], -1).clone()
        h = sums.sigmoid()
        for d in steps(range(self.size), "pixel"):
            x[d] = u[d] < (h @ self.output[d] + self.bias[d]).sigmoid()
            on = x[d].nonzero()[:, 0]
            sums[on] += self.weight[d]
            h[on] = sums[on].sigmoid()
        return x.T


class _Scan(torch.autograd.Function):
    """V_d sigmoid(a + W_<d x_<d) of every pixel d: x [B, D], a [B, H], W [D, H], V [D, H] -> [B, D].

    D is a multiple of BLOCK. In a block, the states of all images lie below each other: an image has one at the first
    pixel, and one more after each pixel that is on. All their products with V are taken, and each pixel picks its own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, weight: Tensor, output: Tensor, keep: Tensor | None) -> Tensor:
        blocks = x.unflatten(1, (-1, BLOCK))
        begins = F.pad(x[:, :-1], (1, 0)).view_as(blocks).long()
        begins[..., 0] = 1  # where a new state begins: [B, K, BLOCK]
        counts = begins.sum(2)
        starts = counts.cumsum(0) - counts  # rows of earlier images in the block
        row = begins.cumsum(2) - 1 + starts[..., None]  # the state of each pixel
        _, image, place = begins.transpose(0, 1).nonzero(as_tuple=True)
        images, places = image.split(sizes := counts.sum(0).tolist()), place.split(sizes)
        within = torch.arange(BLOCK, device=x.device)
        a, logits, states = a.clone(), torch.empty_like(blocks), []
        for k, (w, v) in enumerate(zip(weight.split(BLOCK), output.split(BLOCK), strict=True)):
            before = blocks[:, k].index_select(0, images[k]) * (within < places[k][:, None])
            h = a.index_select(0, images[k]).addmm_(before, w).sigmoid_()  # [rows, H]
            kept = h if keep is None else h * keep[images[k]]
            logits[:, k] = (kept @ v.T).gather(0, row[:, k])
            a.addmm_(blocks[:, k], w)
            states.append((h, before))
        ctx.save_for_backward(weight, output)
        ctx.rest = blocks, keep, row, starts, images, states
        return logits.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, output = ctx.saved_tensors
        blocks, keep, row, starts, images, states = ctx.rest
        gradient = gradient.reshape_as(blocks)
        to_weight, to_output = torch.empty_like(weight), torch.empty_like(output)
        to_a = weight.new_zeros(len(blocks), weight.shape[1])
        to_x = torch.empty_like(blocks) if ctx.needs_input_grad[0] else None
        for k in reversed(range(blocks.shape[1])):
            part, (h, before) = slice(k * BLOCK, (k + 1) * BLOCK), states[k]
            chosen = gradient.new_zeros(len(h), BLOCK).scatter_(0, row[:, k], gradient[:, k])
            if to_x is not None:  # the states of later pixels, in the block and after it, depend on a pixel
                to_h = gradient[:, k, :, None] * output[part]  # [B, BLOCK, H]
                to_h = to_h if keep is None else to_h * keep[:, None]
                to_states = torch.ops.aten.sigmoid_backward(to_h, h[row[:, k]])
                to_x[:, k] = to_a @ weight[part].T + (to_states @ weight[part].T).tril(-1).sum(1)
            to_h = chosen @ output[part]
            if keep is not None:
                to_h *= (factor := keep[images[k]])
                torch.mm(chosen.T, h * factor, out=to_output[part])
            else:
                torch.mm(chosen.T, h, out=to_output[part])
            to_state = torch.ops.aten.sigmoid_backward(to_h, h)
            torch.mm(blocks[:, k].T, to_a, out=to_weight[part])
            to_weight[part].addmm_(before.T, to_state)
            to_a += F.embedding_bag(torch.arange(len(h), device=h.device), to_state, starts[:, k], mode="sum")
        return None if to_x is None else to_x.flatten(1), to_a, to_weight, to_output, None
