"""GAN: generative adversarial networks (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661).

    critic:     minimise  E[-log D(x)] + E[-log(1 - D(G(z)))]                                                  (eq. 1)
    generator:  maximise  E[-log(1 - D(G(z)))], minimax;  or minimise  E[-log D(G(z))], non-saturating,    z ~ N(0, I)
    penalty:    gamma/2 E[|grad_x D(x)|^2] is added to the loss of the critic
                (R1, Mescheder et al. 2018, https://arxiv.org/abs/1801.04406)

Density: none.
Sampling: exact; one pass of the generator.
Differs from the paper: convolutional networks with leaky rectifiers, and group normalisation in the generator, in place
of fully connected ones with maxout and dropout; a Gaussian code; the R1 penalty, which makes training converge, in
every fourth step with fourfold weight. The checkpoints are trained with Adam (without momentum) in place of stochastic
gradients with momentum, a learning rate that falls linearly to zero, and averaged weights.
"""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor
from torch.nn.functional import softplus

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import Game, NonSaturating, ZeroCentred
from zoo.gan.networks import Critic, Generator


class Minimax(NonSaturating):
    """The generator maximises the loss that the critic minimises: eq. 1 of the paper."""

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = -softplus(on_fake).mean()
        return loss if on_real is None else loss - softplus(-on_real).mean()


class GAN(Game):
    """Two convolutional networks with the losses of the first GAN.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        penalty: Weight gamma of the R1 penalty; 0 for the paper's GAN.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logit; None
            for no such layers.
        loss: Loss of the generator.
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
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden)
        self.loss = Minimax() if loss == "minimax" else NonSaturating()
        self.penalty = ZeroCentred(penalty) if penalty else None
        self.penalty_every = 4
