"""Conditional GAN (Mirza & Osindero 2014, https://arxiv.org/abs/1411.1784).

    critic:     minimise  E[-log D(x, y)] + E[-log(1 - D(G(z, y), y))]                                         (eq. 2)
    generator:  minimise  E[-log D(G(z, y), y)],    z ~ N(0, I), y the label of a training image

The generator gets the label together with z. The critic has one logit per class, and the label selects the one to use.

Density: none.
Sampling: exact; one pass of the generator.
Differs from the paper: convolutional networks with leaky rectifiers, and group normalisation in the generator, in place
of fully connected ones with maxout and dropout; a Gaussian code; the label meets the critic at its output (as in
Mescheder et al. 2018) and not at its input; the non-saturating loss; the R1 penalty (see `zoo.gan.gan`), in every
fourth step with fourfold weight. The checkpoint is trained with Adam (without momentum) in place of stochastic
gradients with momentum, a learning rate that falls linearly to zero, and averaged weights.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.capabilities import Conditional
from zoo.config import Between, ImageShape, Size
from zoo.gan.game import Game, NonSaturating, ZeroCentred
from zoo.gan.networks import Critic, Generator


class ConditionalGAN(Conditional, Game):
    """Convolutional networks that are given the class.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        penalty: Weight gamma of the R1 penalty; 0 for no penalty.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logits; None
            for no such layers.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        num_classes: Size = 10,
        latent_dim: Size = 32,
        channels: Size = 32,
        penalty: Annotated[float, Between(0, 1e6)] = 0.1,
        hidden: Size | None = None,
    ) -> None:
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.num_classes = num_classes
        self.generator = Generator(event_shape, latent_dim + num_classes, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, outputs=num_classes, hidden=hidden)
        self.loss = NonSaturating()
        self.penalty = ZeroCentred(penalty) if penalty else None
        self.penalty_every = 4

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return super().decode(torch.cat([z, one_hot(labels, self.num_classes)], 1))

    def score(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return self.critic(x.to(self.dtype)).gather(1, labels[:, None])[:, 0]
