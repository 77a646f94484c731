"""Autoencoder (Hinton & Salakhutdinov 2006, https://doi.org/10.1126/science.1127647).

    z = f(x),    x' = g(z),    f and g minimise the sum over pixels of (x' - x)^2

Density: none.
Sampling: one pass of the decoder over a draw from a Gaussian that is fitted to the codes of the training images
(Ghosh et al. 2020, https://arxiv.org/abs/1903.12436, section 4, call it ex-post density estimation).
Differs from the paper: the paper's autoencoder draws nothing. Convolutions over patches of pixels in place of four
layers of sigmoids each way, trained at once in place of layer by layer as restricted Boltzmann machines.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from zoo.capabilities import Reconstructive
from zoo.config import ImageShape, Size
from zoo.nn.patches import patch_decoder, patch_encoder
from zoo.nn.point import Point
from zoo.random import Streams, randn


class Autoencoder(Reconstructive):
    """A convolutional autoencoder with linear codes, and a Gaussian of them.

    Args:
        event_shape: (C, H, W); H and W multiples of 4.
        latent_dim: dimension of the code.
        channels: width of the convolutions, which see patches of 4x4 pixels.
        hidden: units of the layer between convolutions and code.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 30,
        channels: Size = 32,
        hidden: Size = 192,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (latent_dim,)
        self.encoder = patch_encoder(event_shape, channels, hidden, latent_dim)
        self.decoder = patch_decoder(latent_dim, hidden, channels, event_shape)
        self.code_loc = nn.Parameter(torch.zeros(latent_dim))
        self.code_factor = nn.Parameter(torch.zeros(latent_dim, latent_dim))  # see `prior`; logarithms in the diagonal

    def encode(self, x: Tensor) -> Distribution:
        return Point(self.encoder(x).float())

    def decode(self, z: Tensor) -> Tensor:
        pixels = self.decoder(z).float() + 0.5
        return pixels.clamp(0, 1).detach() + (pixels - pixels.detach())  # what is clamped still learns from its error

    def prior(self) -> Distribution:
        """The Gaussian of the codes. The inverse of its covariance is F^T F, with logarithms for the diagonal of the
        triangular F: any parameters will do."""
        factor = self.code_factor.float().tril(-1) + self.code_factor.float().diagonal().exp().diag()
        scale = torch.linalg.solve_triangular(factor, torch.eye(len(factor), device=self.device), upper=False)
        return MultivariateNormal(self.code_loc.float(), scale_tril=scale, validate_args=False)

    def draw(self, streams: Streams) -> Tensor:
        prior = self.prior()
        assert isinstance(prior, MultivariateNormal)
        epsilon = randn((len(streams), *self.latent_shape), streams, self.device)
        return self.decode(prior.loc + epsilon @ prior.scale_tril.T)
