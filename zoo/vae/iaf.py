"""VAE with an inverse autoregressive flow as its posterior (IAF, Kingma et al. 2016, https://arxiv.org/abs/1606.04934).

    z_i = z_i-1 e^s_i + t_i,    (s_i, t_i) = network_i(z_i-1; x),    i = 1, ..., K                          (eq. 10)
    log q(z_K | x) = log N(z_0; mu(x), diag sigma(x)^2) - sum_i sum_d s_id                                  (eq. 11)

Each network is a MADE: s_id and t_id depend on the entries of z_i-1 before d, and on the image. A map is that of a
masked autoregressive flow (`zoo.flows.maf`) in the other direction: all entries at once from noise to z, and entry by
entry from z to noise. A posterior needs only the fast direction, since it evaluates the density of its own draws.

Density: lower bound; one pass. Importance sampling tightens it, by k passes of the decoder.
Sampling: exact; one pass of the decoder.
Differs from the paper: the networks are those of `zoo.vae.vae`, with one layer of codes; 2 tanh(s/2) in place of the
gates of equation 13; the order of the entries is reversed between maps; no free bits. The checkpoint begins with the
weights of a VAE. It is trained with AdamW in place of Adamax, a learning rate that rises and then falls along a cosine,
clipped gradients and averaged weights.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from zoo.config import Between, ImageShape, Size
from zoo.flows.maf import MaskedAutoregressive
from zoo.vae.flow_vae import FlowVAE
from zoo.vae.vae import LikelihoodName


class IAF(FlowVAE):
    """A VAE whose posterior is a Gaussian that autoregressive maps move.

    Args:
        num_maps: Number of maps K.
        width: Width of the two hidden layers of each map's network.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: See `VAE`.
    """

    def __init__(
        self,
        num_maps: Size = 3,
        width: Size = 160,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 40,
        channels: Size = 48,
        hidden: Size = 256,
        likelihood: LikelihoodName = "bernoulli",
        min_scale: Annotated[float, Between(1e-9, 1e3)] = 0.001,
    ) -> None:
        super().__init__(event_shape, latent_dim, channels, hidden, likelihood, min_scale)
        self.save_hyperparameters()
        self.maps = nn.ModuleList(MaskedAutoregressive(latent_dim, width, 2, context=hidden) for _ in range(num_maps))

    def move(self, z: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for number, layer in enumerate(self.maps):
            z, ladj = layer(_ordered(z, number), seen)
            z, total = _ordered(z, number), total + ladj
        return z, total

    def move_back(self, z: Tensor, seen: Tensor) -> Tensor:
        for number, layer in reversed(list(enumerate(self.maps))):
            z = _ordered(layer.inverse(_ordered(z, number), seen), number)  # type: ignore[operator]
        return z


def _ordered(z: Tensor, number: int) -> Tensor:
    """The entries in the order of a map: every second map goes from the last to the first."""
    return z.flip(1) if number % 2 else z
