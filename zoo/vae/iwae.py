"""IWAE: importance-weighted autoencoder (Burda et al. 2016, https://arxiv.org/abs/1509.00519).

    L_k(x) = E_{z_1, ..., z_k from q}[log 1/k sum_j w_j],    w_j = p(x, z_j)/q(z_j given x)                     (eq. 8)
    gradient of L_k = E[sum_j w_j/(sum_i w_i) gradient of log w_j]                                         (eqs. 13, 14)

A VAE that is trained to maximise L_k. The elbo, L_1, asks for codes that are all good; L_k for good ones among k, so
that the posterior may be wider and of another shape than q.

Density: lower bound; k passes of the decoder.
Sampling: exact; one pass of the decoder.
Differs from the paper: training begins with the elbo, which is cheap, and the networks are those of `zoo.vae.vae`.
"""

from __future__ import annotations

from typing import Annotated

from zoo.config import Between, ImageShape, Size
from zoo.vae.vae import VAE, LikelihoodName


class IWAE(VAE):
    """A VAE trained by the importance-weighted bound.

    Args:
        num_samples: k.
        first_steps: steps of training that maximise the elbo in place of L_k.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: see `VAE`.
    """

    def __init__(
        self,
        num_samples: Size = 50,
        first_steps: Annotated[int, Between(0, 10**9)] = 0,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 50,
        channels: Size = 32,
        hidden: Size = 192,
        likelihood: LikelihoodName = "bernoulli",
        min_scale: Annotated[float, Between(1e-9, 1e3)] = 0.001,
    ) -> None:
        super().__init__(event_shape, latent_dim, channels, hidden, likelihood, min_scale)
        self.save_hyperparameters()
        self.num_samples, self.first_steps = num_samples, first_steps

    @property
    def num_importance(self) -> int:  # type: ignore[override]
        return 1 if self.global_step < self.first_steps and not self.pretrained else self.num_samples
