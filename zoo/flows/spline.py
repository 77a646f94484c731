"""Neural spline flow: couplings by monotonic splines of rational quadratics (Durkan et al. 2019).

    z = y_k + (y_k+1 - y_k) (s_k r^2 + d_k r (1 - r)) / (s_k + (d_k + d_k+1 - 2 s_k) r (1 - r))                  (eq. 4)
    r = (x - x_k)/(x_k+1 - x_k),    s_k = (y_k+1 - y_k)/(x_k+1 - x_k)

This holds between knots (x_k, y_k) with slopes d_k, in K bins on [-B, B]; outside, the map is the identity.
https://arxiv.org/abs/1906.04032

Density: exact, one pass.
Sampling: exact, one pass of the inverse.
Differs from the paper: actnorm before each coupling; slopes at knots are e^(2 tanh(./2)), and no bin is narrower than
2 % of the interval, so that rounding errors stay small; Adam with a warm-up and a rate that falls along a cosine;
averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.config import Between, Size
from zoo.errors import ConfigError
from zoo.flows.couplings import MLP, bounded, halves
from zoo.flows.flow import Flow
from zoo.flows.layers import ActNorm, Bijector, Chain, InvertibleLinear


class RationalQuadratic:
    """The spline as a map of single numbers; see `zoo.flows.couplings.Transform`.

    Args:
        num_bins: Number of bins K.
        bound: Bound B of the interval.
    """

    LEAST = 0.02  # smallest width and height of a bin, as a fraction of the interval

    def __init__(self, num_bins: int, bound: float) -> None:
        self.num_bins = num_bins
        self.bound = bound
        self.num_parameters = 3 * num_bins - 1

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        knots_x, knots_y, slopes = self._knots(parameters)
        is_inside = x.abs() < self.bound
        inside = x.where(is_inside, 0)  # before the formula, whose gradients would be NaN outside
        x_0, width, y_0, height, d_0, d_1 = self._bin(inside, knots_x, knots_x, knots_y, slopes)
        s, r = height / width, (inside - x_0) / width
        denominator = s + (d_0 + d_1 - 2 * s) * r * (1 - r)
        z = y_0 + height * (s * r.square() + d_0 * r * (1 - r)) / denominator
        slope = s.square() * (d_1 * r.square() + 2 * s * r * (1 - r) + d_0 * (1 - r).square()) / denominator.square()
        return torch.where(is_inside, z, x), torch.where(is_inside, slope.log(), 0)

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        knots_x, knots_y, slopes = self._knots(parameters)
        is_inside = z.abs() < self.bound
        inside = z.where(is_inside, 0)
        x_0, width, y_0, height, d_0, d_1 = self._bin(inside, knots_y, knots_x, knots_y, slopes)
        s, above = height / width, inside - y_0
        bend = above * (d_0 + d_1 - 2 * s)
        a, b, c = height * (s - d_0) + bend, height * d_0 - bend, -s * above  # a r^2 + b r + c = 0
        root = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        return torch.where(is_inside, x_0 + root * width, z)

    def _knots(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Positions x_k, values y_k and slopes d_k of the knots, [..., K + 1] each."""
        num = self.num_bins
        widths, heights, slopes = parameters.movedim(1, -1).split([num, num, num - 1], -1)
        knots = []
        for raw in (widths, heights):
            parts = self.LEAST + (1 - self.LEAST * num) * raw.softmax(-1)
            knots.append(F.pad(self.bound * (2 * parts.cumsum(-1)[..., :-1] - 1), (1, 1), value=self.bound))
            knots[-1][..., 0] = -self.bound
        return knots[0], knots[1], F.pad(bounded(slopes).exp(), (1, 1), value=1.0)

    def _bin(self, value: Tensor, edges: Tensor, knots_x: Tensor, knots_y: Tensor, slopes: Tensor) -> list[Tensor]:
        """x_k, width, y_k, height, d_k and d_k+1 of the bin between whose `edges` a value lies."""
        k = (value[..., None] >= edges[..., 1:-1]).sum(-1, keepdim=True)
        low, high = ([t.gather(-1, i)[..., 0] for t in (knots_x, knots_y, slopes)] for i in (k, k + 1))
        return [low[0], high[0] - low[0], low[1], high[1] - low[1], low[2], high[2]]


def _network(hidden: int, num_inputs: int, num_outputs: int) -> MLP:
    return MLP(num_inputs, hidden, num_outputs)


class SplineFlow(Flow):
    """A flow of spline couplings over vectors of real numbers.

    Args:
        event_shape: (D,) with D > 1.
        num_couplings: Number of couplings, each after a linear map.
        hidden: Width of the networks' two hidden layers.
        num_bins: Number of bins of a spline, at most 32.
        bound: B; the splines act on [-bound, bound].
    """

    lacks_onnx = True  # the inverse of a matrix

    def __init__(
        self,
        event_shape: Sequence[Size] = (2,),
        num_couplings: Size = 6,
        hidden: Size = 64,
        num_bins: Annotated[int, Between(1, 32)] = 8,
        bound: Annotated[float, Between(0.1, 1000)] = 4.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if len(event_shape) != 1 or event_shape[0] < 2:
            raise ConfigError(f"event_shape: expected [D] with D > 1, found {list(event_shape)}")
        self.event_shape = self.latent_shape = tuple(event_shape)
        (size,) = event_shape
        layers: list[Bijector] = []
        for _ in range(num_couplings):
            coupling = halves(size, partial(_network, hidden), RationalQuadratic(num_bins, bound))
            layers += [ActNorm(size), InvertibleLinear(size), coupling]
        self.bijector = Chain(*layers)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
