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
        blocks = _blocks(x)
        begins = _blocks(F.pad(x[:, :-1], (1, 0))).long()
        begins[..., 0] = 1  # where a new state begins: [K, B, BLOCK]
        row = begins.flatten().cumsum(0).view_as(begins) - 1  # the state of each pixel
        first = begins.flatten().nonzero()[:, 0]
        sizes, owner = begins.sum((1, 2)).tolist(), first // BLOCK
        within = torch.arange(BLOCK, device=x.device) < (first % BLOCK)[:, None]
        before = blocks.flatten(0, 1).index_select(0, owner) * within  # what a state knows of its block: [rows, BLOCK]
        products = torch.empty_like(before)
        images, befores = (owner % len(x)).split(sizes), before.split(sizes)
        states = a.new_empty(len(first), a.shape[1]).split(sizes)  # one piece of memory is faster than many
        a = a.clone()
        weights, outputs = weight.split(BLOCK), output.split(BLOCK)
        for h, *rest in zip(states, images, befores, blocks, products.split(sizes), weights, outputs, strict=True):
            image, earlier, block, product, w, v = rest
            torch.index_select(a, 0, image, out=h).addmm_(earlier, w).sigmoid_()
            torch.mm(h if keep is None else h * keep.index_select(0, image), v.T, out=product)
            a.addmm_(block, w)
        ctx.save_for_backward(weight, output)
        ctx.rest = blocks, keep, row, images, befores, states
        return products.gather(0, row.flatten(0, 1)).view_as(blocks).transpose(0, 1).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, output = ctx.saved_tensors
        blocks, keep, row, images, befores, states = ctx.rest
        gradient, sizes = _blocks(gradient), [len(h) for h in states]
        chosen = (
            gradient.new_zeros(sum(sizes), BLOCK).scatter_(0, row.flatten(0, 1), gradient.flatten(0, 1)).split(sizes)
        )
        to_weight, to_output = torch.empty_like(weight), torch.empty_like(output)
        weights, outputs, to_weights, to_outputs = (y.split(BLOCK) for y in (weight, output, to_weight, to_output))
        to_a = weight.new_zeros(blocks.shape[1], weight.shape[1])
        to_x = torch.empty_like(blocks) if ctx.needs_input_grad[0] else None
        numbers, starts = torch.arange(max(sizes), device=row.device), row[:, :, 0] - row[:, :1, 0]
        memory = weight.new_empty(max(sizes), weight.shape[1])  # of a block, and near for all that follows
        for k in reversed(range(len(states))):
            h, w, v = states[k], weights[k], outputs[k]
            if to_x is not None:  # the states of later pixels, in the block and after it, depend on a pixel
                to_h = gradient[k, ..., None] * v  # [B, BLOCK, H]
                to_h = to_h if keep is None else to_h * keep[:, None]
                to_later = torch.ops.aten.sigmoid_backward(to_h, h[row[k] - row[k, :1, :1]])
                to_x[k] = to_a @ w.T + (to_later @ w.T).tril(-1).sum(1)
            to_state, kept = torch.mm(chosen[k], v, out=memory[: len(h)]), h
            if keep is not None:
                factor = keep.index_select(0, images[k])
                to_state.mul_(factor)
                kept = h * factor
            torch.mm(chosen[k].T, kept, out=to_outputs[k])
            torch.ops.aten.sigmoid_backward.grad_input(to_state, h, grad_input=to_state)
            torch.mm(blocks[k].T, to_a, out=to_weights[k]).addmm_(befores[k].T, to_state)
            to_a += F.embedding_bag(numbers[: len(h)], to_state, starts[k], mode="sum")
        return None if to_x is None else to_x.transpose(0, 1).flatten(1), to_a, to_weight, to_output, None


def _blocks(x: Tensor) -> Tensor:
    """[B, D] -> [K, B, BLOCK]."""
    return x.unflatten(1, (-1, BLOCK)).transpose(0, 1).contiguous()
