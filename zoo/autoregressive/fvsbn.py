"""FVSBN: fully visible sigmoid belief network (Frey, Hinton & Dayan 1996; Gan et al. 2015, section 2).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(c_d + sum_{j<d} W_dj x_j)

One logistic regression a pixel: the negative log-likelihood is convex in c and W. Gan et al.:
https://proceedings.mlr.press/v38/gan15.html

Density: exact, one matrix product.
Sampling: exact; the sum of a pixel is complete when its turn comes.
Differs from the paper: nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import RasterOrder
from zoo.config import Size
from zoo.progress import steps


class FVSBN(RasterOrder):
    """A logistic regression for each pixel, on the pixels before it.

    Args:
        event_shape: shape of one example; values in {0, 1}.
    """

    def __init__(self, event_shape: list[Size] = [1, 28, 28]) -> None:  # noqa: B006
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        size = math.prod(event_shape)
        self.bias = nn.Parameter(torch.zeros(size))
        self.weight = nn.Parameter(torch.zeros(size, size))  # [pixel, earlier pixel]; only the lower triangle counts

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight.tril(-1), self.bias)

    def scan(self, uniforms: Tensor) -> Tensor:
        u = uniforms.T.contiguous()  # [D, B], so that a pixel is a row
        x = torch.zeros_like(u)
        for d in steps(range(len(u)), "pixel"):
            x[d] = u[d] < (self.bias[d] + self.weight[d, :d] @ x[:d]).sigmoid()
        return x.T
