"""Normalising flows: a standard normal density moved and stretched by an invertible map (Rezende & Mohamed 2015).

    log p(x) = log N(z; 0, I) + log |det dz/dx|,    z = f(x)               (https://arxiv.org/abs/1505.05770, eq. 5)

Density: exact for real numbers; a bound for 8-bit images, by dequantisation.
Sampling: exact, by the inverse of f.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from zoo.capabilities import Bijection, Decoder, Dequantized, Encoder
from zoo.config import Between
from zoo.errors import ConfigError
from zoo.flows.dequantizer import Dequantizer
from zoo.flows.layers import Bijector
from zoo.module import Sampled
from zoo.nn.point import Point
from zoo.nn.sides import check_sides
from zoo.random import Source, randn
from zoo.samplers.tempered import Tempered

Levels = Annotated[int, Between(2, 2**16)] | None
Margin = Annotated[float, Between(1e-12, 0.499)] | None


class Flow(Sampled, Dequantized, Bijection, Encoder, Decoder):
    """A density by change of variables. A model adds `to_latent` and `from_latent`; everything else follows.

    Latents are vectors of the same dimension as the data, `latent_shape` = (D,), with the latents of several scales
    concatenated. `to_latent` and `log_prob` take real numbers, so 8-bit images must go through `dequantize` first;
    `encode` takes the data themselves.
    """

    facts: ClassVar = {"latents": "high-dimensional"}
    samplers = (Tempered,)
    bijector: Bijector

    def __init__(self) -> None:
        super().__init__()
        self.dequantizer: Dequantizer | None = None

    def cell_noise(self, x: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        if self.dequantizer is None:
            return super().cell_noise(x, generator)
        return self.dequantizer(x, randn(tuple(x.shape), generator, x.device))

    def log_prob(self, x: Tensor) -> Tensor:
        z, ladj = self.to_latent(x)
        return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi) + ladj

    def prior(self) -> Distribution:
        """N(0, I)."""
        loc = torch.zeros(self.latent_shape, device=self.device, dtype=self.dtype)
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)

    def encode(self, x: Tensor) -> Distribution:
        """The latents of x, as a distribution with all its mass at one point. Grey levels count as the middle of their
        cells.
        """
        y = x if self.levels is None else (x * (self.levels - 1) + 0.5) / self.levels
        return Point(self.to_latent(y)[0])

    def decode(self, z: Tensor) -> Tensor:
        """Maps latents back to x, rounded to grey levels if there are `levels`: [B, D] -> [B, *event_shape]."""
        return self.quantize(self.from_latent(z))


def dequantizer_of(event_shape: Sequence[int], hidden: int | None) -> Dequantizer | None:
    """The learned dequantisation of images with this number of hidden channels; None for uniform noise."""
    if hidden is None:
        return None
    if len(event_shape) != 3:
        raise ConfigError(f"dequantizer: expected images, event_shape [C, H, W], found {list(event_shape)}")
    check_scales(event_shape, 1)
    return Dequantizer(event_shape, hidden)


def check_scales(event_shape: Sequence[int], num_scales: int) -> None:
    """Raises ConfigError unless images of this shape, (C, H, W), can be halved `num_scales` times."""
    check_sides(event_shape, 2**num_scales, f" for {num_scales} scales")
