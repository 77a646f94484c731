"""GAN: generative adversarial networks (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661).

    critic:     minimise  E[softplus(-D(x))] + E[softplus(D(G(z)))]                                            (eq. 1)
    generator:  minimise  E[softplus(-D(G(z)))]        the non-saturating loss of section 3,      z ~ N(0, I)
    penalty:    gamma/2 E[|grad_x D(x)|^2]    added to the critic's    (R1, Mescheder et al. 2018, https://arxiv.org/abs/1801.04406)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: convolutional networks; the R1 penalty, which makes training converge.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

from zoo.capabilities import Adversarial, Decoder
from zoo.config import Between, ImageShape, Size
from zoo.random import Streams, randn


class Generator(nn.Sequential):
    """z [B, latent_dim] -> images [B, C, H, W] in [0, 1]; H and W multiples of 4."""

    def __init__(self, event_shape: list[int], latent_dim: int, channels: int) -> None:
        outputs, height, width = event_shape
        base = (2 * channels, height // 4, width // 4)
        super().__init__(
            nn.Linear(latent_dim, base[0] * base[1] * base[2]),
            nn.Unflatten(1, base),
            nn.GroupNorm(8, 2 * channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.GroupNorm(8, 2 * channels),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
            nn.GroupNorm(8, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 4 * outputs, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Sigmoid(),
        )


class Critic(nn.Sequential):
    """Images [B, C, H, W] -> logits [B, 1] of being real."""

    def __init__(self, event_shape: list[int], channels: int) -> None:
        inputs, height, width = event_shape
        super().__init__(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * inputs, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * channels * (height // 4) * (width // 4), 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        )


class GAN(Adversarial, Decoder):
    """A convolutional generator trained with the non-saturating loss.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of both networks; a multiple of 8.
        penalty: gamma of the R1 penalty; 0 for the paper's GAN.
    """

    def __init__(
        self,
        event_shape: ImageShape = [1, 28, 28],  # noqa: B006
        latent_dim: Size = 64,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 1.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (latent_dim,)
        self.penalty = penalty
        self.generator = Generator(event_shape, latent_dim, channels)
        self.critic = Critic(event_shape, channels)

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc)), 1)

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)

    def draw(self, streams: Streams) -> Tensor:
        return self.decode(randn((len(streams), *self.latent_shape), streams, self.device))

    def critic_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        real = real.detach().requires_grad_(self.penalty > 0)
        on_real, on_fake = self.critic(real), self.critic(fake)
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        if self.penalty > 0:
            (gradient,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            loss = loss + 0.5 * self.penalty * gradient.square().flatten(1).sum(1).mean()
        accuracy = ((on_real > 0).float().mean() + (on_fake < 0).float().mean()) / 2
        return {"loss": loss, "critic_accuracy": accuracy.detach()}

    def generator_loss(self, fake: Tensor) -> Tensor:
        return F.softplus(-self.critic(fake)).mean()
