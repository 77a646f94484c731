"""WGAN-GP: Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028).

    critic:     minimise  E[D(G(z))] - E[D(x)] + lambda E[(|grad D(y)| - 1)^2]                                  (eq. 3)
                y = e x + (1 - e) G(z),    e uniform on [0, 1]
    generator:  minimise  -E[D(G(z))],    z ~ N(0, I)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: the networks, which are small and normalise groups in the generator.
"""

from __future__ import annotations

from typing import Annotated

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.regularizers import GradientPenalty


class WGANGP(LatentGame):
    """Convolutional networks, the critic with slopes near one.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        penalty: lambda.
        critic_steps: updates of the critic for each of the generator; a batch is divided among them.
        hidden: units of a layer after the code, and of one before the critic's logit, which see the whole image; or
            None for neither.
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
        super().__init__("wasserstein", [GradientPenalty(penalty)], critic_steps)
        self.save_hyperparameters()
        self.build(event_shape, latent_dim, channels, hidden, bias=False)
