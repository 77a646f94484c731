"""ALI: adversarially learned inference, or BiGAN (Dumoulin et al. 2017, https://arxiv.org/abs/1606.00704).

Donahue et al. 2017, https://arxiv.org/abs/1605.09782. An encoder and a decoder learn to agree on pairs (x, z):

    real pairs:  x from the data, z from q(z given x) = N(mu(x), diag sigma(x)^2)
    fake pairs:  z from N(0, I), x = G(z)
    critic:      minimise  E_real[-log D(x, z)] + E_fake[-log(1 - D(x, z))]                                    (eq. 1)
    both coders: minimise  E_fake[-log D(x, z)] + E_real[-log(1 - D(x, z))]                       (section 2.3, the end)

Where the critic cannot tell them apart, the two joint distributions are one, and q is the posterior of the decoder.

Density: none.
Sampling: exact, one pass of the decoder.
Differs from the paper: the networks, which are small and normalise groups in the decoder; a decoder without noise; the
R1 penalty on pairs, in every fourth step with fourfold weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from zoo.capabilities import Encoder
from zoo.config import Between, ImageShape, Size
from zoo.gan.game import LatentGame
from zoo.gan.networks import Features, Generator
from zoo.gan.regularizers import ZeroCentred
from zoo.random import Streams, randn


class PairCritic(nn.Module):
    """Pairs [B, D + latent], the pixels of an image and its code -> logits [B, 1]."""

    def __init__(self, event_shape: Sequence[int], latent_dim: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.features = _compact(event_shape, channels)
        self.head = nn.Sequential(
            nn.Linear(_num_features(event_shape, channels) + latent_dim, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, pairs: Tensor) -> Tensor:
        x, z = pairs.tensor_split([math.prod(self.event_shape)], 1)
        return self.head(torch.cat([self.features(x.view(-1, *self.event_shape)), z], 1))


def _compact(event_shape: Sequence[int], channels: int) -> nn.Sequential:
    """Images [B, C, H, W] -> [B, `_num_features`]."""
    return nn.Sequential(
        Features(event_shape, channels),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
    )


def _num_features(event_shape: Sequence[int], channels: int) -> int:
    return channels * math.ceil(event_shape[1] / 8) * math.ceil(event_shape[2] / 8)


class ALI(LatentGame, Encoder):
    """Convolutional encoder, decoder and critic.

    Args:
        event_shape: (C, H, W); H and W multiples of 4; values in [0, 1].
        latent_dim: dimension of z.
        channels: width of the convolutions of all networks; a multiple of 8.
        hidden: units of the layers of the critic that see image and code.
        penalty: gamma of the R1 penalty; 0 for none.
        coder_hidden: units of the encoder's layer before the code, and of the decoder's after it, which see the whole
            image; or None for neither.
    """

    generator: nn.ModuleDict

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 32,
        hidden: Size = 256,
        penalty: Annotated[float, Between(0, 1e6)] = 0.1,
        coder_hidden: Size | None = None,
    ) -> None:
        super().__init__("non-saturating", [ZeroCentred(penalty, every=4)] if penalty else [])
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (latent_dim,)
        size = _num_features(event_shape, channels)
        encoder = nn.Sequential(
            _compact(event_shape, channels),
            *((nn.Linear(size, coder_hidden), nn.LeakyReLU(0.2)) if coder_hidden else ()),
            nn.Linear(coder_hidden or size, 2 * latent_dim),
        )
        decoder = Generator(event_shape, latent_dim, channels, hidden=coder_hidden)
        self.generator = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.critic = PairCritic(event_shape, latent_dim, channels, hidden)

    def _posterior(self, x: Tensor) -> Normal:
        loc, log_scale = self.generator["encoder"](x).float().chunk(2, -1)
        return Normal(loc, log_scale.clamp(-7, 3).exp(), validate_args=False)

    def encode(self, x: Tensor) -> Distribution:
        return Independent(self._posterior(x), 1)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.generator["decoder"](z)

    def pair(self, x: Tensor, streams: Streams, **given: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels and code in one row, [B, D + latent] each."""
        z, epsilon = (randn((len(x), *self.latent_shape), streams, x.device) for _ in range(2))
        posterior = self._posterior(x)
        real = torch.cat([x.flatten(1), posterior.loc + posterior.scale * epsilon], 1)
        return real, torch.cat([self.decode(z).flatten(1), z], 1)
