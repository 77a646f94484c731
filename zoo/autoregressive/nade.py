"""NADE: neural autoregressive distribution estimator (Larochelle & Murray 2011; Uria et al. 2016, section 2).

    log p(x) = sum_d log p(x_d | x_<d),    p(x_d = 1 | x_<d) = sigmoid(b_d + V_d h_d)                         (eq. 2)
    h_d = sigmoid(c + W_<d x_<d)                                                                               (eq. 3)

https://proceedings.mlr.press/v15/larochelle11a.html, https://arxiv.org/abs/1605.02226

Density: exact, O(D H). The fast version computes h only after pixels that are on, where it changes.
Sampling: exact, one pixel at a time, O(D H), with the same fast version.
Differs from the paper: shifted images; dropout, which the checkpoint does not use; AdamW with a warm-up and a cosine
schedule; averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import faster
from zoo.autoregressive.fast import nade as fast
from zoo.autoregressive.raster import RasterOrder, pixel_by_pixel
from zoo.autoregressive.regularization import (
    Regularized,
    bias_of,
    dropout,
    regularized_log_prob,
    shift_biases,
    take_teachers,
)
from zoo.config import Fraction, Shift, Size
from zoo.random import Streams


class NADE(RasterOrder):
    """One hidden layer for each pixel, with shared weights.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        hidden: Number of units of a hidden layer.
        dropout: Fraction of the hidden units that dropout zeroes in training.
        max_shift: Largest shift along each axis, in pixels; training shifts each image with probability 1/2.
    """

    teachers: tuple[Regularized, ...] = ()
    training_log_prob = regularized_log_prob
    learn_from = take_teachers

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
        self.dropout, self.max_shift = dropout, max_shift
        self.weight = nn.Parameter(torch.randn(self.size, hidden) * 0.05)  # W, a row for each pixel
        self.output = nn.Parameter(torch.randn(self.size, hidden) * 0.05)  # V
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))  # c
        self.bias = nn.Parameter(torch.zeros(self.size))  # b
        if max_shift:
            self.shift_biases = shift_biases(event_shape, max_shift, hidden + self.size)

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        biases = torch.cat([self.hidden_bias, self.bias])
        if shifts is not None and self.max_shift:
            biases = biases + bias_of(shifts, self.shift_biases)
        c, b = biases.split([len(self.hidden_bias), self.size], -1)
        c = c.expand(x.shape[0], -1)
        keep = dropout(torch.ones_like(c), self.dropout, streams) if streams is not None and self.dropout else None
        with torch.autocast(self.device.type, enabled=False):
            return b + _products(x.flatten(1), c, self.weight, self.output, keep)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        return pixel_by_pixel(self.logits, uniforms)


@faster(fast.products)
def _products(x: Tensor, c: Tensor, weight: Tensor, output: Tensor, keep: Tensor | None) -> Tensor:
    """V_d h_d of every pixel d, [B, D].

    Args:
        x: Pixels, [B, D]; values in {0, 1}.
        c: Biases of the hidden units, [B, H].
        weight: W, [D, H].
        output: V, [D, H].
        keep: Dropout factor of each hidden unit, [B, H], or None.
    """
    before = F.pad(x[:, :-1], (1, 0))[..., None] * weight.roll(1, 0)  # W_{d-1} x_{d-1} at pixel d, [B, D, H]
    h = (c[:, None] + before.cumsum(1)).sigmoid()
    return ((h if keep is None else h * keep[:, None]) * output).sum(-1)
