"""GAN: generative adversarial networks (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661).

    critic:     minimise  E[-log D(x)] + E[-log(1 - D(G(z)))]                                                  (eq. 1)
    generator:  maximise  E[-log(1 - D(G(z)))], minimax;  or minimise  E[-log D(G(z))], non-saturating,    z ~ N(0, I)
    penalty:    gamma/2 E[|grad_x D(x)|^2]    added to the critic's    (R1, Mescheder et al. 2018, https://arxiv.org/abs/1801.04406)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: convolutional networks; a Gaussian code; the R1 penalty, which makes training converge.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import nn

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.regularizers import ZeroCentred


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

    def __init__(self, event_shape: list[int], channels: int, hidden: int) -> None:
        inputs, height, width = event_shape
        super().__init__(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * inputs, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(2 * channels * (height // 4) * (width // 4), hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )


class GAN(LatentGame):
    """Two convolutional networks with the losses of the first GAN.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of both networks; a multiple of 8.
        penalty: gamma of the R1 penalty; 0 for the paper's GAN.
        penalty_every: the penalty comes in one of this many steps, with as much more weight.
        hidden: units of the layer before the critic's logit.
        loss: of the generator.
    """

    def __init__(
        self,
        event_shape: ImageShape = [1, 28, 28],  # noqa: B006
        latent_dim: Size = 64,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 1.0,
        penalty_every: Size = 1,
        hidden: Size = 256,
        loss: Literal["minimax", "non-saturating"] = "non-saturating",
    ) -> None:
        super().__init__(loss, [ZeroCentred(penalty, every=penalty_every)] if penalty else [])
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (latent_dim,)
        self.generator = Generator(event_shape, latent_dim, channels)
        self.critic = Critic(event_shape, channels, hidden)
