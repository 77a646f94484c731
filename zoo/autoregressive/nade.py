"""NADE: neural autoregressive distribution estimator (Larochelle & Murray 2011; Uria et al. 2016, section 2).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(b_d + V_d h_d)                 (eq. 2)
    h_d = sigmoid(c + W_<d x_<d)                                                                               (eq. 3)

https://proceedings.mlr.press/v15/larochelle11a.html, https://arxiv.org/abs/1605.02226. Training may shift the images,
with the shift as an input (Jun et al. 2020): see `zoo.nn.shift`.

Density: exact, O(D H); h changes only after a pixel that is on, so on the CPU it is computed for these alone.
Sampling: exact, O(D H), likewise, pixel by pixel.
Differs from the paper: shifted images; dropout; Adam with averaged weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

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
        event_shape: Sequence[Size] = (1, 28, 28),
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
        hidden_bias = hidden_bias.expand(len(x), -1)
        with torch.autocast(self.device.type, enabled=False):
            take = _Scan.apply if len(x) and x.device.type == "cpu" and not x.requires_grad else _dense
            logits = take(x, hidden_bias, self.weight, self.output, keep)
        return logits + bias

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


def _dense(x: Tensor, a: Tensor, weight: Tensor, output: Tensor, keep: Tensor | None) -> Tensor:
    """As `_Scan`, with all states of all pixels in memory: a gradient for x too, and no loop, slow on GPUs."""
    before = F.pad(x[:, :-1], (1, 0))[..., None] * weight.roll(1, 0)
    h = (a[:, None] + before.cumsum(1)).sigmoid()
    return ((h if keep is None else h * keep[:, None]) * output).sum(-1)


class _Scan(torch.autograd.Function):
    """V_d sigmoid(a + W_<d x_<d) of every pixel d: x [B, D] in {0, 1}, a [B, H], W [D, H], V [D, H] -> [B, D].

    States lie below each other, S of them in parts: those of all images before any pixel that is on, those after the
    first one, after the second, ... Images with more pixels on come first, so that the images of a part are the first
    ones of the part before: a part is as many rows of that, plus a row of W each.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, weight: Tensor, output: Tensor, keep: Tensor | None) -> Tensor:
        states = _states(x)
        a = a[states.order]
        memory, h = torch.empty_like(a), a.new_empty(len(states.after), a.shape[1])
        for part, pixels in zip(h.split(states.sizes), states.after.split(states.sizes), strict=True):
            a, memory = a[: len(part)], memory[: len(part)]
            if pixels[0] >= 0:
                a += torch.index_select(weight, 0, pixels, out=memory)
            torch.sigmoid(a, out=part)
        kept = None if keep is None else keep[states.order].index_select(0, states.image)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # in beta state, says torch
            seen = torch.sparse_csr_tensor(
                states.first, states.pixels, x.new_zeros(x.numel()), (len(h), x.shape[1]), check_invariants=False
            )
        products = torch.sparse.sampled_addmm(seen, h if kept is None else h * kept, output.T, beta=0.0).values()
        ctx.save_for_backward(output)
        ctx.rest = h, kept, states
        return torch.empty_like(x).index_copy_(0, states.order, products[states.place])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        h, kept, states = ctx.rest
        gradient = gradient[states.order]
        to_output = F.embedding_bag(
            states.of.T.contiguous(),
            h if kept is None else h * kept,
            mode="sum",
            per_sample_weights=gradient.T.contiguous(),
        )
        chosen = gradient.new_empty(gradient.numel()).scatter_(0, states.place.flatten(), gradient.flatten())
        to_h = F.embedding_bag(
            states.pixels, output, states.first, mode="sum", per_sample_weights=chosen, include_last_offset=True
        )
        if kept is not None:
            to_h *= kept
        torch.ops.aten.sigmoid_backward.grad_input(to_h, h, grad_input=to_h)
        parts = to_h.split(states.sizes)
        for part, later in zip(parts[-2::-1], parts[:0:-1], strict=True):  # what a state adds to, all later ones have
            part[: len(later)] += later
        begun, order = states.after[len(gradient) :].sort()
        to_weight = F.embedding_bag(
            order + len(gradient),
            to_h,
            torch.searchsorted(begun, torch.arange(len(output))),
            mode="sum",
        )
        return None, torch.empty_like(parts[0]).index_copy_(0, states.order, parts[0]), to_weight, to_output, None


class _States(NamedTuple):
    """What states images [B, D] go through, S in all; of images in `order`."""

    order: Tensor  # [B]
    sizes: list[int]  # how many images have a state before any pixel that is on, after the first, the second, ...
    image: Tensor  # [S], whose state it is
    after: Tensor  # [S], the pixel that is on, after which it begins; -1: none
    of: Tensor  # [B, D], the state of each pixel
    # pixels sorted by their states
    pixels: Tensor  # [B * D]
    first: Tensor  # [S + 1], where those of a state begin among them
    place: Tensor  # [B, D], where each is among them


def _states(x: Tensor) -> _States:
    on = x[:, :-1] > 0  # nothing is after the last pixel
    order = on.sum(1).argsort(descending=True)
    on = on[order]
    number = F.pad(on.cumsum(1), (1, 0))  # of pixels on before each
    most = number[:, -1]
    widths = len(x) - torch.searchsorted(most.flip(0), torch.arange(int(most[0]) + 1))
    starts, sizes = F.pad(widths.cumsum(0), (1, 0)), widths.tolist()
    images, pixels = torch.arange(len(x)), torch.arange(x.shape[1])
    of = starts[number] + images[:, None]
    image, pixel = on.nonzero().unbind(1)
    after = torch.full((sum(sizes),), -1).index_copy_(0, of[image, pixel + 1], pixel)
    first = F.pad(torch.bincount(of.flatten(), minlength=len(after)).cumsum(0), (1, 0))
    place = (first[:-1] - after - 1)[of] + pixels
    flat = torch.empty_like(place.flatten()).scatter_(0, place.flatten(), pixels.repeat(len(x)))
    return _States(order, sizes, torch.cat([images[:size] for size in sizes]), after, of, flat, first, place)
