"""Normalising flows: a simple density moved and stretched by an invertible map (Rezende & Mohamed 2015).

    log p(x) = log p(z) + log |det dz/dx|,    z = f(x) ~ N(0, I)           (https://arxiv.org/abs/1505.05770, eq. 5)

Density: exact, of real numbers; of 8-bit images a bound, by dequantisation.
Sampling: exact, by the inverse of f.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from zoo.capabilities import Bijection, Decoder, Dequantized, Encoder
from zoo.nn.point import Point
from zoo.random import Streams, randn


class Flow(Dequantized, Bijection, Encoder, Decoder):
    """A density by change of variables; a model adds `to_latent` and `from_latent`."""

    def log_prob(self, x: Tensor) -> Tensor:
        z, ladj = self.to_latent(x)
        return self.prior().log_prob(z) + ladj

    def draw(self, streams: Streams) -> Tensor:
        return self.decode(self.draw_latent(streams))

    def draw_latent(self, streams: Streams) -> Tensor:
        """Draws codes from the prior, here N(0, I): [len(streams), *latent_shape]."""
        return randn((len(streams), *self.latent_shape), streams, self.device)

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), len(self.latent_shape))

    def encode(self, x: Tensor) -> Distribution:
        return Point(self.to_latent(x)[0])

    def decode(self, z: Tensor) -> Tensor:
        x = self.from_latent(z)
        return self.quantize(x)
