"""WGAN: Wasserstein GAN (Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875).

    critic:     maximise  E[D(x)] - E[D(G(z))]  over weights in [-c, c]: the earth mover's distance, scaled     (eq. 3)
    generator:  minimise  -E[D(G(z))],    z ~ N(0, I)

The critic is updated several times for each update of the generator.

Density: none.
Sampling: exact; one pass of the generator.
Differs from the paper: small networks, with group normalisation in the generator alone. The checkpoint is trained with
2 steps of the critic in place of 5, which share one batch of 64 images in place of one each; c = 0.05 in place of 0.01;
Adam (without momentum) at learning rates of 0.001 and 0.0005 (critic), which fall linearly to zero, in place of RMSProp
at 0.00005; and averaged weights.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import nn

from zoo.config import Between, ImageShape, Size
from zoo.gan.game import Game, Wasserstein
from zoo.gan.networks import Critic, Generator


@torch.no_grad()
def clip_weights(critic: nn.Module, bound: float) -> None:
    """Clamps every weight of the critic to [-bound, bound], in place."""
    for parameter in critic.parameters():
        parameter.clamp_(-bound, bound)


class WGAN(Game):
    """Convolutional networks; the weights of the critic are bounded.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of both networks; a multiple of 8.
        clip: Bound c of the critic's weights.
        critic_steps: Number of updates of the critic for each update of the generator; a batch is divided among them.
        hidden: Number of units of a fully connected layer after the code, and of one before the critic's logit; None
            for no such layers.
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
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden, bias=False)
        self.loss = Wasserstein()
        self.clip, self.critic_steps = clip, critic_steps

    def configure_optimizers(self) -> Any:
        generator, critic = super().configure_optimizers()
        critic["optimizer"].register_step_post_hook(lambda *_: clip_weights(self.critic, self.clip))  # algorithm 1
        return generator, critic
