"""FVSBN: fully visible sigmoid belief network (Frey, Hinton & Dayan 1996; Gan et al. 2015, section 2).

    log p(x) = sum_d log p(x_d | x_<d),    p(x_d = 1 | x_<d) = sigmoid(c_d + sum_{j<d} W_dj x_j)
    training: maximise  E[log p(x)] - lambda/2 sum_dj |d - j| s_d s_j W_dj^2

|d - j| is the distance of the two pixels, and s_d the standard deviation of a pixel among the images of a batch. The
model is one logistic regression for each pixel: what training maximises is concave in c and W. Gan et al.:
https://proceedings.mlr.press/v38/gan15.html

Density: exact, one matrix product.
Sampling: exact, one pixel at a time.
Differs from the paper: a Gaussian prior of the weights, by which near pixels count more than far ones, and a pixel that
is nearly always the same may have large weights; Adam with a warm-up and a cosine schedule; averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import RasterOrder, log_likelihood
from zoo.config import Between, Size
from zoo.progress import steps
from zoo.random import Streams


class FVSBN(RasterOrder):
    """A logistic regression for each pixel on the pixels before it.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        prior: lambda, in nats per example: precision of each weight's Gaussian prior at a distance of one pixel,
            divided by the deviations of both pixels and by the number of training examples.
    """

    distance: Tensor
    is_earlier: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        prior: Annotated[float, Between(0, 1e6)] = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.prior = prior
        self.event_shape = tuple(event_shape)
        size = math.prod(event_shape)
        self.bias = nn.Parameter(torch.zeros(size))
        self.weight = nn.Parameter(torch.zeros(size * (size - 1) // 2))  # W below its diagonal, row after row
        self.register_buffer("is_earlier", torch.ones(size, size, dtype=torch.bool).tril(-1), persistent=False)
        places = torch.cartesian_prod(*(torch.arange(float(n)) for n in event_shape)).view(size, -1)
        self.register_buffer("distance", torch.cdist(places, places), persistent=False)

    def matrix(self) -> Tensor:
        """W, [pixel, earlier pixel], zero elsewhere."""
        return torch.zeros_like(self.distance, dtype=self.weight.dtype).masked_scatter(self.is_earlier, self.weight)

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.matrix(), self.bias)

    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        u = uniforms.flatten(1).T.contiguous()  # [D, B], so that a pixel is a row
        x = torch.zeros_like(u)
        for d in steps(range(len(u)), "pixel"):
            row = self.weight[d * (d - 1) // 2 : d * (d + 1) // 2]
            x[d] = u[d] < (self.bias[d] + row @ x[:d]).sigmoid()
        return x.T.reshape(uniforms.shape)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """log p(x) plus an example's share of the weights' log prior, with deviations over these examples."""
        if not self.prior:
            return self.log_prob(x)
        flat, matrix = x.flatten(1), self.matrix()
        mean = flat.mean(0)
        deviation = (mean * (1 - mean)).sqrt()  # of binary pixels
        penalty = (self.distance * deviation.outer(deviation) * matrix.square()).sum()
        return log_likelihood(F.linear(flat, matrix, self.bias), x).sum(-1) - 0.5 * self.prior * penalty
