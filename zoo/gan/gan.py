"""GAN: generative adversarial networks (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661).

    critic:     minimise  E[-log D(x)] + E[-log(1 - D(G(z)))]                                                  (eq. 1)
    generator:  maximise  E[-log(1 - D(G(z)))], minimax;  or minimise  E[-log D(G(z))], non-saturating,    z ~ N(0, I)
    penalty:    gamma/2 E[|grad_x D(x)|^2]    added to the critic's    (R1, Mescheder et al. 2018, https://arxiv.org/abs/1801.04406)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: the networks, which are small, convolutional, and normalise groups in the generator; a Gaussian
code; the R1 penalty, which makes training converge, in every fourth step with fourfold weight.
"""

from __future__ import annotations

from typing import Annotated, Literal

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.regularizers import ZeroCentred


class GAN(LatentGame):
    """Two convolutional networks with the losses of the first GAN.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        penalty: gamma of the R1 penalty; 0 for the paper's GAN.
        hidden: units of a layer after the code, and of one before the critic's logit, which see the whole image; or
            None for neither.
        loss: of the generator.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 0.1,
        hidden: Size | None = None,
        loss: Literal["minimax", "non-saturating"] = "non-saturating",
    ) -> None:
        super().__init__(loss, [ZeroCentred(penalty, every=4)] if penalty else [])
        self.save_hyperparameters()
        self.build(event_shape, latent_dim, channels, hidden, bias=True)
