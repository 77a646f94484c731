"""Inverse autoregressive flow: each value is mapped given the latents before its own (Kingma et al. 2016).

    x_d = z_d e^s_d + t_d,    (s_d, t_d) = network(z_1, ..., z_d-1),    ladj = -sum_d s_d                     (eq. 10)

https://arxiv.org/abs/1606.04934. Each layer is a layer of MAF (see `zoo.flows.maf`) the other way round: it draws all
values at once, and takes data value by value.

Density: exact, value by value through each layer; each unit of a network is computed only once, as for a sample.
Sampling: exact, one pass.
Differs from the paper: it is a density of data, learned by maximum likelihood, while the paper's is the posterior of a
VAE (`zoo.vae.IAF`); an affine map in place of a gate; actnorm; 2 tanh(s/2) in place of s; Adam with a warm-up and a
rate that falls along a cosine, averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.config import Size
from zoo.errors import ConfigError
from zoo.flows.flow import Flow
from zoo.flows.layers import ActNorm, Bijector, Chain, Flip
from zoo.flows.maf import MaskedAutoregressive


class InverseAutoregressive(Bijector):
    """One layer: the inverse of `MaskedAutoregressive`.

    Where gradients are wanted, mapping data takes a pass of the network for each value.

    Args:
        size, hidden, num_hidden: See `MaskedAutoregressive`.
    """

    def __init__(self, size: int, hidden: int, num_hidden: int) -> None:
        super().__init__()
        self.generator = MaskedAutoregressive(size, hidden, num_hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.generator.solve(x) if torch.is_grad_enabled() else self.generator.inverse(x)
        return z, -self.generator(z)[1]

    def inverse(self, z: Tensor) -> Tensor:
        return self.generator(z)[0]


class IAF(Flow):
    """A flow of inverse autoregressive layers over vectors of real numbers.

    Training takes a pass of the networks for each value: it is meant for vectors of few values.

    Args:
        event_shape: (D,).
        num_layers: Number of layers.
        hidden: Width of the networks' hidden layers.
        num_hidden: Number of hidden layers of each network.
    """

    adaptive = ("encode", "log_prob")  # value by value, as the masks of the layers allow

    def __init__(
        self, event_shape: Sequence[Size] = (2,), num_layers: Size = 6, hidden: Size = 64, num_hidden: Size = 2
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if len(event_shape) != 1:
            raise ConfigError(f"event_shape: expected [D], found {list(event_shape)}")
        self.event_shape = self.latent_shape = tuple(event_shape)
        (size,) = event_shape
        layers: list[Bijector] = []
        for _ in range(num_layers):
            layers += [ActNorm(size), InverseAutoregressive(size, hidden, num_hidden), Flip()]
        self.bijector = Chain(*layers)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
