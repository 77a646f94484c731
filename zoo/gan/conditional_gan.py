"""Conditional GAN (Mirza & Osindero 2014, https://arxiv.org/abs/1411.1784).

    critic:     minimise  E[-log D(x, y)] + E[-log(1 - D(G(z, y), y))]                                         (eq. 2)
    generator:  minimise  E[-log D(G(z, y), y)],    z ~ N(0, I), y the label of a training image

The generator reads the label beside z; the critic has a logit of "real" for each class, and the label chooses it.

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: convolutional networks; the label meets the critic at its output (as in Mescheder et al. 2018)
and not at its input; the non-saturating loss; the R1 penalty, in every fourth step with fourfold weight.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.capabilities import Conditional
from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.networks import Critic, Generator
from zoo.gan.regularizers import ZeroCentred


class ConditionalGAN(Conditional, LatentGame):
    """Convolutional networks that know the class.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        num_classes: number of labels.
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        penalty: gamma of the R1 penalty; 0 for none.
        hidden: units of a layer after the code, and of one before the critic's logits, which see the whole image; or
            None for neither.
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
        super().__init__("non-saturating", [ZeroCentred(penalty, every=4)] if penalty else [])
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (latent_dim,)
        self.num_classes = num_classes
        self.generator = Generator(event_shape, latent_dim + num_classes, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, outputs=num_classes, hidden=hidden)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.generator(torch.cat([z, one_hot(given["labels"], self.num_classes).to(z.dtype)], 1))

    def score(self, x: Tensor, **given: Tensor) -> Tensor:
        return self.critic(x).gather(1, given["labels"][:, None])[:, 0]
