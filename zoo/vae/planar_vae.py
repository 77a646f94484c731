"""VAE with planar flows as its posterior (Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770).

    z_i = z_i-1 + u_i tanh(w_i.z_i-1 + b_i),    i = 1, ..., K                                              (eq. 10)
    log q(z_K | x) = log N(z_0; mu(x), diag sigma(x)^2) - sum_i log(1 + w_i.u_i (1 - tanh^2(w_i.z_i-1 + b_i)))  (eq. 13)

Each image has its own u_i, w_i and b_i, which the encoder computes. Each map can stretch or squeeze the posterior along
one direction, and K of them can bend it and split it.

Density: lower bound; one pass. Importance sampling tightens it, by k passes of the decoder.
Sampling: exact; one pass of the decoder.
Differs from the paper: the networks are those of `zoo.vae.vae`; the maps begin as the identity; no annealing. The
checkpoint begins with the weights of a VAE. It is trained with AdamW in place of RMSprop, a learning rate that rises
and then falls along a cosine, clipped gradients and averaged weights.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from zoo.config import Between, ImageShape, Size
from zoo.flows.planar import IDENTITY, inverse, planar
from zoo.nn.precision import at_least_single
from zoo.vae.flow_vae import FlowVAE
from zoo.vae.vae import LikelihoodName


class PlanarVAE(FlowVAE):
    """A VAE whose posterior is a Gaussian that planar maps move.

    Args:
        num_maps: Number of planar maps K.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: See `VAE`.
    """

    def __init__(
        self,
        num_maps: Size = 10,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 40,
        channels: Size = 48,
        hidden: Size = 256,
        likelihood: LikelihoodName = "bernoulli",
        min_scale: Annotated[float, Between(1e-9, 1e3)] = 0.001,
    ) -> None:
        super().__init__(event_shape, latent_dim, channels, hidden, likelihood, min_scale)
        self.save_hyperparameters()
        self.maps = nn.Linear(hidden, num_maps * (2 * latent_dim + 1))
        w = torch.randn(num_maps, latent_dim) / math.sqrt(latent_dim)
        v = IDENTITY * w / w.square().sum(1, keepdim=True)
        with torch.no_grad():
            self.maps.weight.mul_(0.01)
            self.maps.bias.copy_(torch.cat([w, v, torch.zeros(num_maps, 1)], 1).flatten())

    def move(self, z: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for w, v, b in self._maps_of(seen):
            z, ladj = planar(z, w, v, b)
            total = total + ladj
        return z, total

    def move_back(self, z: Tensor, seen: Tensor) -> Tensor:
        for w, v, b in reversed(self._maps_of(seen)):
            z = inverse(z, w, v, b)
        return z

    def _maps_of(self, seen: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """w [N, D], v [N, D] and b [N] of each map."""
        size = self.latent_shape[0]
        each = at_least_single(self.maps(seen)).unflatten(1, (-1, 2 * size + 1)).unbind(1)
        return [(part[:, :size], part[:, size:-1], part[:, -1]) for part in each]
