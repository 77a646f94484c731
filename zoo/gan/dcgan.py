"""DCGAN: deep convolutional GAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434), and three stabilisers.

    critic:     minimise  E[-log D(x)] + E[-log(1 - D(G(z)))]
    generator:  minimise  E[-log D(G(z))],    z ~ N(0, I)
    instance noise:     the critic sees x + sigma (1 - t) epsilon, with t from 0 to 1 over training
                        (Sonderby et al. 2017, https://arxiv.org/abs/1610.04490)
    gradient penalty:   gamma/2 (E[(1 - D(x))^2 |grad l(x)|^2] + E[D(G)^2 |grad l(G)|^2]), l the logit of D
                        (Roth et al. 2017, https://arxiv.org/abs/1705.09367, eq. 21)
    Jacobian clamping:  |G(z) - G(z')| / |z - z'| is kept between two bounds
                        (Odena et al. 2018, https://arxiv.org/abs/1802.08768, algorithm 1)

Density: none.
Sampling: exact; one pass of the generator.
Differs from the papers: convolutions at a quarter of the resolution, without strides; group normalisation in the
generator, since batch normalisation makes samples depend on each other, and none in the critic; a fully connected layer
that sees the whole image in both networks of the checkpoints; a sigmoid in place of tanh, for images in [0, 1]; a
Gaussian code of 32 dimensions in place of a uniform one of 100; gamma is constant; gradient penalty and Jacobian
clamping act in every fourth step, with fourfold weight. The checkpoints are trained with batches of 32 in place of 128
images, Adam at a learning rate of 0.003, which falls linearly to zero, and betas of 0 and 0.99 in place of 0.0002, 0.5
and 0.999, and averaged weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from zoo.config import Between, ImageShape, Length, Size
from zoo.gan.game import Game, NonSaturating, Score, squared_slope
from zoo.gan.networks import Critic, Generator
from zoo.random import Streams, randn


@dataclass(frozen=True)
class Roth:
    """The term that Gaussian noise of variance gamma on all examples adds to the critic's loss, to first order."""

    gamma: float

    def __call__(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        (on_real, slope_real), (on_fake, slope_fake) = squared_slope(score, real), squared_slope(score, fake)
        weighted = (-on_real).sigmoid().square() * slope_real, on_fake.sigmoid().square() * slope_fake
        return 0.5 * self.gamma * (weighted[0].mean() + weighted[1].mean())


@dataclass(frozen=True)
class JacobianClamping:
    """(max(Q, high) - high)^2 + (min(Q, low) - low)^2, with Q = |G(z) - G(z')| / |z - z'| for images in [-1, 1]."""

    low: float
    high: float
    step: float = 1.0

    def __call__(self, decode: Score, z: Tensor, direction: Tensor) -> Tensor:
        """Mean over codes z and z' = z + step d/|d| with directions d: [B, latent_dim], [B, latent_dim] -> a scalar."""
        moved = z + self.step * direction / direction.norm(dim=1, keepdim=True)
        quotient = 2 * (decode(z) - decode(moved)).flatten(1).norm(dim=1) / self.step  # [0, 1] is half of [-1, 1]
        return ((quotient - self.high).relu().square() + (self.low - quotient).relu().square()).mean()


class DCGAN(Game):
    """Two convolutional networks with the non-saturating loss.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        instance_noise: Scale sigma of the noise at the start of training, in units of pixel values; 0 for no noise.
        gradient_penalty: Weight gamma of the penalty of Roth et al.; 0 for no penalty.
        jacobian_clamping: The two bounds, for images in [-1, 1] as in the paper; None for no clamping.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logit; None
            for no such layers.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        instance_noise: Annotated[float, Between(0, 100)] = 0.0,
        gradient_penalty: Annotated[float, Between(0, 1e6)] = 0.0,
        jacobian_clamping: Annotated[list[Annotated[float, Between(0, 1e6)]], Length(2)] | None = None,
        hidden: Size | None = None,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden)
        self.loss = NonSaturating()
        self.penalty = Roth(gradient_penalty) if gradient_penalty else None
        self.clamping = JacobianClamping(*jacobian_clamping) if jacobian_clamping is not None else None
        self.penalty_every = 4
        self.instance_noise, self.num_steps = instance_noise, math.inf

    def on_train_start(self) -> None:
        super().on_train_start()
        self.num_steps = self.trainer.estimated_stepping_batches

    def noisy(self, x: Tensor, streams: Streams) -> Tensor:
        """Adds the instance noise of this step to images [B, *event_shape]."""
        scale = self.instance_noise * (1 - min(1.0, self.global_step / self.num_steps))
        return x + scale * randn(tuple(x.shape), streams, x.device) if scale > 0 else x

    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        return super().critic_loss(self.noisy(real, streams), self.noisy(fake, streams), streams)

    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        loss = super().generator_loss(real, self.noisy(fake, streams), streams)
        if self.clamping is None or self.global_step % self.penalty_every:
            return loss
        z, direction = (randn((len(streams), *self.latent_shape), streams, self.device) for _ in range(2))
        return loss + self.penalty_every * self.clamping(self.decode, z, direction)
