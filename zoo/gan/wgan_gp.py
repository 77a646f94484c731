"""WGAN-GP: Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028).

    critic:     minimise  E[D(G(z))] - E[D(x)] + lambda E[(|grad D(y)| - 1)^2]                                  (eq. 3)
                y = e x + (1 - e) G(z),    e uniform on [0, 1]
    generator:  minimise  -E[D(G(z))],    z ~ N(0, I)

Density: none.
Sampling: exact; one pass of the generator.
Differs from the paper: small networks, with group normalisation in the generator in place of batch normalisation. The
checkpoint is trained with 2 steps of the critic in place of 5, which share one batch of 64 images in place of one each;
Adam at a learning rate of 0.003, which falls linearly to zero, and betas of 0 and 0.99 in place of 0.0001, 0 and 0.9;
and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import Game, Score, Wasserstein, squared_slope
from zoo.gan.networks import Critic, Generator
from zoo.random import Streams, rand


@dataclass(frozen=True)
class GradientPenalty:
    """weight E[(|grad D(y)| - 1)^2] at y = e x + (1 - e) G(z) with e uniform on [0, 1]."""

    weight: float

    def __call__(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        e = rand((len(real), 1), streams, real.device).view(-1, *[1] * (real.dim() - 1))
        slope = squared_slope(score, fake + e * (real - fake))[1]
        return self.weight * ((slope + 1e-12).sqrt() - 1).square().mean()


class WGANGP(Game):
    """Convolutional networks; a penalty keeps the norm of the critic's gradient near 1.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        penalty: Weight lambda of the gradient penalty.
        critic_steps: Number of updates of the critic for each update of the generator; a batch is divided among them.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logit; None
            for no such layers.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 10.0,
        critic_steps: Size = 5,
        hidden: Size | None = None,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden, bias=False)
        self.loss = Wasserstein()
        self.penalty = GradientPenalty(penalty)
        self.critic_steps = critic_steps
