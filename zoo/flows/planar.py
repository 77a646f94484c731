"""Planar flow: maps that push space towards or away from planes (Rezende & Mohamed 2015, section 4.1).

    z = x + u tanh(w.x + b),    ladj = log(1 + w.u (1 - tanh^2(w.x + b)))                               (eqs. 10 to 12)
    w.u = -1 + log(1 + e^(w.v)),    u = v + (w.u - w.v) w/|w|^2                                           (appendix A.1)

https://arxiv.org/abs/1505.05770. The second line keeps w.u above -1, so that each map has an inverse.

Density: exact, one pass.
Sampling: exact; the inverse of a map is the root of an increasing function of one number, w.x.
Differs from the paper: the maps lead from the data to the latents, as maximum likelihood requires, whereas the paper
transforms the posterior of a VAE; w.u stays above -0.99, so that rounding errors cannot grow without bound; Adam with a
warm-up and a rate that falls along a cosine; averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.config import Size
from zoo.errors import ConfigError
from zoo.flows.flow import Flow
from zoo.flows.layers import ActNorm, Bijector, Chain
from zoo.flows.roots import invert

LEAST = -0.99  # the least w.u
IDENTITY = math.log(math.exp(-LEAST) - 1)  # the w.v at which w.u = 0; if v is parallel to w, then u = 0


def planar(x: Tensor, w: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Maps x to z, [..., D]; also returns ladj, [...]. w and v are [..., D], b is [...]."""
    u, slope = _direction(w, v)
    t = torch.tanh((x * w).sum(-1) + b)
    return x + t[..., None] * u, torch.log1p(slope * (1 - t.square()))


def inverse(z: Tensor, w: Tensor, v: Tensor, b: Tensor) -> Tensor:
    """The inverse of `planar`, with the same parameters: z -> x, [..., D]."""
    u, slope = _direction(w, v)

    def along(a: Tensor) -> tuple[Tensor, Tensor]:
        """w.z, and its derivative, where w.x is a."""
        t = torch.tanh(a + b)
        return a + slope * t, 1 + slope * (1 - t.square())

    target = (z * w).sum(-1)
    a = invert(along, target, target - slope.abs(), target + slope.abs())
    return z - torch.tanh(a + b)[..., None] * u


def _direction(w: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """u, and w.u > -0.99."""
    product = (w * v).sum(-1)
    slope = F.softplus(product) + LEAST
    return v + ((slope - product) / w.square().sum(-1))[..., None] * w, slope


class Planar(Bijector):
    """One planar map.

    Args:
        size: Dimension D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(size))
        self.v = nn.Parameter(0.1 * torch.randn(size))
        self.b = nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return planar(x, self.w, self.v, self.b)

    def inverse(self, z: Tensor) -> Tensor:
        return inverse(z, self.w, self.v, self.b)


class PlanarFlow(Flow):
    """A flow of planar maps over vectors of real numbers.

    Args:
        event_shape: (D,).
        num_maps: Number of planar maps.
    """

    adaptive = ("decode",)  # maps are inverted by Newton's method

    def __init__(self, event_shape: Sequence[Size] = (2,), num_maps: Size = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        if len(event_shape) != 1:
            raise ConfigError(f"event_shape: expected [D], found {list(event_shape)}")
        self.event_shape = self.latent_shape = tuple(event_shape)
        (size,) = event_shape
        self.bijector = Chain(*[Planar(size) for _ in range(num_maps)], ActNorm(size))

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
