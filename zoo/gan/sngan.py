"""SNGAN: spectral normalisation of the critic (Miyato et al. 2018, https://arxiv.org/abs/1802.05957).

    each layer of the critic:  W / sigma(W),  sigma(W) = u^T W v, its largest singular value by power iteration  (eq. 8)
    critic:     minimise  E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]                                         (eq. 16)
    generator:  minimise  -E[D(G(z))],    z ~ N(0, I)                                                          (eq. 17)

Density: none.
Sampling: exact; one pass of the generator.
Differs from the paper: small networks, with group normalisation in the generator in place of batch normalisation. The
checkpoint is trained with 1 step of the critic in place of 5, on batches of 32 in place of 64 images; Adam at a
learning rate of 0.003, which falls linearly to zero, and betas of 0 and 0.99 in place of 0.0002, 0 and 0.9; and
averaged weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.config import ImageShape, Size
from zoo.gan.game import Game, Loss
from zoo.gan.networks import Critic, Generator


class Hinge(Loss):
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] and -E[D(G(z))] (Lim & Ye 2017, https://arxiv.org/abs/1705.02894)."""

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = -on_fake.mean()
        return loss if on_real is None else loss + on_real.mean()


class SNGAN(Game):
    """Convolutional networks; the kernels of the critic, as matrices, have spectral norm 1.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        critic_steps: Number of updates of the critic for each update of the generator; a batch is divided among them.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logit; None
            for no such layers.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        critic_steps: Size = 1,
        hidden: Size | None = None,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden)
        for layer in self.critic.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                normalized(layer)
        self.loss = Hinge()
        self.critic_steps = critic_steps


def normalized(layer: nn.Module) -> nn.Module:
    """Divides the weight of a convolution or a linear layer by its largest singular value, in place.

    `spectral_norm` gives each layer a class of its own, which pickle refuses; here, the class gets a `__reduce__` so
    that copies can be made.
    """
    spectral_norm(layer)
    type(layer).__reduce__ = _reduced  # type: ignore[method-assign, assignment]
    return layer


def _reduced(layer: nn.Module) -> tuple[Any, ...]:
    return _another, (type(layer).__bases__[0],), vars(layer)


def _another(kind: type[nn.Module]) -> nn.Module:
    """Makes a layer of a kind; pickle then replaces its attributes."""
    with torch.random.fork_rng(devices=[]):
        return normalized(kind(1, 1, 1))
