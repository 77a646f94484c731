"""DCGAN: deep convolutional GAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434), and three ways to steady it.

    critic:     minimise  E[-log D(x)] + E[-log(1 - D(G(z)))]
    generator:  minimise  E[-log D(G(z))],    z ~ N(0, I)
    instance noise:      both see x + sigma (1 - t) epsilon, t from 0 to 1 over training      (Sonderby et al. 2017)
    gradient penalty:    gamma/2 (E[(1 - D(x))^2 |grad l(x)|^2] + E[D(G)^2 |grad l(G)|^2])        (Roth et al. 2017)
                         with the logit l of D
    Jacobian clamping:   |G(z) - G(z')| / |z - z'| is kept between two bounds                    (Odena et al. 2018)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: two stages of resolution, which 28x28 pixels have; group normalisation, since batch
normalisation makes samples depend on each other, and none in the critic; a Gaussian code; the penalties come in every
fourth step, with fourfold weight.
"""

from __future__ import annotations

from typing import Annotated

from zoo.config import Between, ImageShape, Length, Size
from zoo.gan.game import LatentGame
from zoo.gan.regularizers import InstanceNoise, JacobianClamping, Regularizer, Roth

EVERY = 4  # steps between penalties


class DCGAN(LatentGame):
    """Two convolutional networks with the non-saturating loss.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        instance_noise: sigma at the beginning, in units of pixels; 0 for none.
        gradient_penalty: gamma of the penalty of Roth et al.; 0 for none.
        jacobian_clamping: the two bounds, for images in [-1, 1] as in the paper; None for none.
        hidden: units of a layer after the code, and of one before the critic's logit, which see the whole image; or
            None for neither.
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
        regularizers: list[Regularizer] = []
        if instance_noise:
            regularizers.append(InstanceNoise(instance_noise))
        if gradient_penalty:
            regularizers.append(Roth(gradient_penalty, every=EVERY))
        if jacobian_clamping is not None:
            low, high = jacobian_clamping
            regularizers.append(JacobianClamping(low, high, every=EVERY))
        super().__init__("non-saturating", regularizers)
        self.save_hyperparameters()
        self.build(event_shape, latent_dim, channels, hidden, bias=True)
