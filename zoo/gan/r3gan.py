"""R3GAN: a relativistic loss with zero-centred penalties (Huang et al. 2024, https://arxiv.org/abs/2501.05441).

    critic:     minimise  E[f(D(G(z)) - D(x))] + gamma/2 E[|grad D(x)|^2] + gamma/2 E[|grad D(G(z))|^2]    (eqs. 2 to 4)
    generator:  minimise  E[f(D(x) - D(G(z)))],    z ~ N(0, I),  f(t) = log(1 + e^t)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: the networks, which are small and normalise groups in the generator; the penalties come in every
fourth step, with fourfold weight.
"""

from __future__ import annotations

from typing import Annotated

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.regularizers import ZeroCentred


class R3GAN(LatentGame):
    """Convolutional networks with the relativistic loss, R1 and R2.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        penalty: gamma of both penalties.
        hidden: units of a layer after the code, and of one before the critic's logit, which see the whole image; or
            None for neither.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 0.1,
        hidden: Size | None = None,
    ) -> None:
        super().__init__("relativistic", [ZeroCentred(penalty, on_fake=True, every=4)])
        self.save_hyperparameters()
        self.build(event_shape, latent_dim, channels, hidden, bias=False)
