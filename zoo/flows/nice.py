"""NICE: additive couplings and a scale for each value (Dinh et al. 2015).

    z_1 = x_1,    z_2 = x_2 + m(x_1)                          an additive coupling, ladj = 0               (eqs. 9, 10)
    z = s * y,    ladj = sum_d log s_d                        at the end                                   (section 3.3)
    log p(x) = sum_d log logistic(z_d) + sum_d log s_d                                                     (section 3.4)

https://arxiv.org/abs/1410.8516. Pixels of even and of odd index determine each other in turn. Latents are standard
normal: they are Phi^-1(sigmoid(z)), which is another way to write the same density.

Density: exact; for 8-bit images a bound, by dequantisation. One pass.
Sampling: exact, one pass of the inverse.
Differs from the paper: values are also scaled before the couplings, and the scales begin with those of the first batch
(actnorm, Kingma & Dhariwal 2018); networks see x/(1 + |x|), have smooth units (SiLU) in place of rectified ones, and
are narrower; AdamW with a warm-up and a rate that falls along a cosine, clipped gradients, averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.config import Size
from zoo.errors import ConfigError
from zoo.flows.couplings import MLP, Additive, halves
from zoo.flows.flow import Flow, Levels, dequantizer_of
from zoo.flows.layers import ActNorm, Bijector, Chain, EvenFirst, Flatten, Flip, LogisticToNormal


def _network(hidden: int, num_hidden: int, num_inputs: int, num_outputs: int) -> nn.Module:
    # a pixel that is nearly always black can be a thousand scales from its mean
    return nn.Sequential(nn.Softsign(), MLP(num_inputs, hidden, num_outputs, num_hidden))


class NICE(Flow):
    """A flow of additive couplings.

    Args:
        event_shape: Shape of one example, of an even number of values, which are taken row by row.
        num_couplings: Number of couplings.
        hidden: Width of the networks' hidden layers.
        num_hidden: Number of hidden layers of each network.
        levels: Number of grey levels of a pixel, or None for real numbers.
        dequantizer: Number of hidden channels of a learned dequantisation; None for uniform noise.
    """

    adaptive = ("encode",)  # codes are quantiles of the logistic, found by Newton's method

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        num_couplings: Size = 4,
        hidden: Size = 400,
        num_hidden: Size = 2,
        levels: Levels = 256,
        dequantizer: Size | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        size = math.prod(event_shape)
        if size % 2:
            *others, last = event_shape[-2:]
            nearest = " and ".join("x".join(map(str, [*others, side])) for side in (last - 1, last + 1))
            raise ConfigError(
                f"event_shape: expected an even number of values, found {size}; the nearest sizes are {nearest}"
            )
        self.event_shape = tuple(event_shape)
        self.latent_shape = (size,)
        self.levels = levels
        self.dequantizer = dequantizer_of(event_shape, dequantizer)
        layers: list[Bijector] = [Flatten(event_shape), EvenFirst(), ActNorm(size)]
        for _ in range(num_couplings):
            layers += [halves(size, partial(_network, hidden, num_hidden), Additive()), Flip()]
        self.bijector = Chain(Chain(*layers, ActNorm(size)), LogisticToNormal())

    @property
    def couplings(self) -> Bijector:
        """All layers but the last, which only renames logistic latents to normal ones."""
        return cast(Bijector, cast(Chain, self.bijector).layers[0])

    def log_prob(self, x: Tensor) -> Tensor:
        y, ladj = self.couplings(x)
        return (F.logsigmoid(y) + F.logsigmoid(-y)).sum(1) + ladj

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
