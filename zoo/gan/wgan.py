"""WGAN: Wasserstein GAN (Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875).

    critic:     maximise  E[D(x)] - E[D(G(z))]  over weights in [-c, c]: earth mover's distance, scaled  (eq. 3)
    generator:  minimise  -E[D(G(z))],    z ~ N(0, I)

The critic moves several times for each step of the generator.

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: the networks, which are small and normalise groups, and only in the generator; Adam without
momentum in place of RMSProp.
"""

from __future__ import annotations

from typing import Annotated

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.regularizers import WeightClipping


class WGAN(LatentGame):
    """Convolutional networks, the critic with bounded weights.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        clip: bound of the critic's weights.
        critic_steps: updates of the critic for each of the generator; a batch is divided among them.
        hidden: units of a layer after the code, and of one before the critic's logit, which see the whole image; or
            None for neither.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        clip: Annotated[float, Between(1e-6, 1e3)] = 0.01,
        critic_steps: Size = 5,
        hidden: Size | None = None,
    ) -> None:
        super().__init__("wasserstein", [WeightClipping(clip)], critic_steps)
        self.save_hyperparameters()
        self.build(event_shape, latent_dim, channels, hidden, bias=False)
