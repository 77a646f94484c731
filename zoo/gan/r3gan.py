"""R3GAN: a relativistic loss with zero-centred penalties (Huang et al. 2024, https://arxiv.org/abs/2501.05441).

    critic:     minimise  E[f(D(G(z)) - D(x))] + gamma/2 E[|grad D(x)|^2] + gamma/2 E[|grad D(G(z))|^2]    (eqs. 2 to 4)
    generator:  minimise  E[f(D(x) - D(G(z)))],    z ~ N(0, I),  f(t) = log(1 + e^t)

Density: none.
Sampling: exact; one pass of the generator.
Differs from the paper: small networks, with group normalisation in the generator, where the paper has no normalisation;
the penalties apply in every fourth step, with fourfold weight. The checkpoint is trained with averaged weights, as in
the paper, but with a learning rate that falls linearly to zero, and with a constant gamma and second beta, where the
paper has other schedules for all three.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn.functional import softplus

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import Game, Loss, ZeroCentred, ranking_accuracy
from zoo.gan.networks import Critic, Generator


class Relativistic(Loss):
    """E[-log sigmoid(D(x) - D(G(z)))] and E[-log sigmoid(D(G(z)) - D(x))] over pairs (Jolicoeur-Martineau 2018).

    https://arxiv.org/abs/1807.00734. A pair is a real and a fake example at the same position of their batches.
    """

    sees_real = True
    accuracy = staticmethod(ranking_accuracy)

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return softplus(on_fake - on_real).mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        assert on_real is not None, "the relativistic loss compares fakes with reals"
        return softplus(on_real - on_fake).mean()


class R3GAN(Game):
    """Convolutional networks with the relativistic loss, R1 and R2.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        penalty: Weight gamma of both penalties.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logit; None
            for no such layers.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 0.1,
        hidden: Size | None = None,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden, bias=False)
        self.loss = Relativistic()
        self.penalty = ZeroCentred(penalty, on_fake=True)
        self.penalty_every = 4
