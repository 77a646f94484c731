"""ALI: adversarially learned inference, or BiGAN (Dumoulin et al. 2017, https://arxiv.org/abs/1606.00704).

BiGAN: Donahue et al. 2017, https://arxiv.org/abs/1605.09782. An encoder and a decoder learn to agree on pairs (x, z):

    real pairs:  x from the data, z from q(z | x) = N(mu(x), diag sigma(x)^2)
    fake pairs:  z from N(0, I), x = G(z)
    critic:      minimise  E_real[-log D(x, z)] + E_fake[-log(1 - D(x, z))]                                    (eq. 1)
    both coders: minimise  E_fake[-log D(x, z)] + E_real[-log(1 - D(x, z))]                       (section 2.3, the end)

If no critic can tell the pairs apart, the two joint distributions are equal, and q is the posterior of the decoder.

Density: none.
Sampling: exact; one pass of the decoder.
Differs from the papers: small networks, with group normalisation in the decoder alone in place of batch normalisation,
and without maxout and dropout in the critic; a decoder without noise; the R1 penalty on pairs (see `zoo.gan.gan`), in
every fourth step with fourfold weight. The checkpoint is trained with Adam at a learning rate of 0.003, which falls
linearly to zero, in place of 0.0001, and without momentum in place of a first beta of 0.5; on batches of 32 in place of
100 images; and with averaged weights.
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
from zoo.gan.game import Game, NonSaturating, ZeroCentred
from zoo.gan.networks import Features, Generator
from zoo.nn.precision import at_least_single
from zoo.random import Streams, randn


class PairCritic(nn.Module):
    """A critic of pairs: the pixels of images and their codes, [B, D + latent_dim] -> logits, [B, 1]."""

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
    """A network from images [B, C, H, W] to vectors [B, `_num_features`]."""
    return nn.Sequential(
        Features(event_shape, channels),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
    )


def _num_features(event_shape: Sequence[int], channels: int) -> int:
    return channels * math.ceil(event_shape[1] / 8) * math.ceil(event_shape[2] / 8)


class ALI(Game, Encoder):
    """A convolutional encoder, decoder and critic.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in [0, 1].
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions of all networks; a multiple of 8.
        hidden: Number of units of the critic's layers that see both image and code.
        penalty: Weight gamma of the R1 penalty; 0 for no penalty.
        coder_hidden: Number of units of a fully connected layer before the code in the encoder, and of one after it in
            the decoder; None for no such layers.
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
        super().__init__(event_shape, latent_dim)
        self.save_hyperparameters()
        size = _num_features(event_shape, channels)
        encoder = nn.Sequential(
            _compact(event_shape, channels),
            *((nn.Linear(size, coder_hidden), nn.LeakyReLU(0.2)) if coder_hidden else ()),
            nn.Linear(coder_hidden or size, 2 * latent_dim),
        )
        decoder = Generator(event_shape, latent_dim, channels, hidden=coder_hidden)
        self.generator = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        self.critic = PairCritic(event_shape, latent_dim, channels, hidden)
        self.loss = NonSaturating()
        self.penalty = ZeroCentred(penalty) if penalty else None
        self.penalty_every = 4

    def _posterior(self, x: Tensor) -> Normal:
        loc, log_scale = at_least_single(self.generator["encoder"](x.to(self.dtype))).chunk(2, 1)
        return Normal(loc, log_scale.clamp(-7, 3).exp(), validate_args=False)

    def encode(self, x: Tensor) -> Distribution:
        return Independent(self._posterior(x), 1)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.generator["decoder"](z.to(self.dtype))

    def pair(self, x: Tensor, streams: Streams, **given: Tensor) -> tuple[Tensor, Tensor]:
        """Real and fake pairs, with the pixels and the code side by side in each row: [B, D + latent_dim] each."""
        z, epsilon = (randn((len(x), *self.latent_shape), streams, x.device) for _ in range(2))
        posterior = self._posterior(x)
        real = torch.cat([x.flatten(1), posterior.loc + posterior.scale * epsilon], 1)
        return real, torch.cat([self.decode(z).flatten(1), z], 1)
