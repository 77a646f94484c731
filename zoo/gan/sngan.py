"""SNGAN: spectral normalisation of the critic (Miyato et al. 2018, https://arxiv.org/abs/1802.05957).

    each layer of the critic:  W / sigma(W),  sigma(W) = u^T W v, its largest singular value by power iteration  (eq. 8)
    critic:     minimise  E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]                                         (eq. 16)
    generator:  minimise  -E[D(G(z))],    z ~ N(0, I)                                                          (eq. 17)

Density: none.
Sampling: exact, one pass of the generator.
Differs from the paper: the networks, which are small and normalise groups in the generator.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.config import ImageShape, Size
from zoo.gan.game import LatentGame


class SNGAN(LatentGame):
    """Convolutional networks with the hinge loss; the critic's kernels, as matrices, have spectral norm 1.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of both networks; a multiple of 8.
        critic_steps: updates of the critic for each of the generator; a batch is divided among them.
        hidden: units of a layer after the code, and of one before the critic's logit, which see the whole image; or
            None for neither.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        critic_steps: Size = 1,
        hidden: Size | None = None,
    ) -> None:
        super().__init__("hinge", critic_steps=critic_steps)
        self.save_hyperparameters()
        self.build(event_shape, latent_dim, channels, hidden, bias=True)
        for layer in self.critic.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)
