"""Autoencoder (Hinton & Salakhutdinov 2006, https://doi.org/10.1126/science.1127647).

    z = f(x),    x' = g(z),    f and g minimise the sum over pixels of (x' - x)^2

Density: none.
Sampling: one pass of the decoder, from a Gaussian that is fitted to the codes of the training images (ex-post density
estimation: Ghosh et al. 2020, https://arxiv.org/abs/1903.12436, section 4).
Differs from the paper: the paper's autoencoder does not draw, and Ghosh et al. fit the density of codes after training,
not beside it. Convolutions over patches of pixels take the place of four layers of sigmoids each way; they are trained
together and from scratch, not layer by layer as restricted Boltzmann machines; squared errors take the place of cross
entropies. The checkpoint is trained with Adam, a warm-up and a cosine schedule in place of conjugate gradients, with
clipped gradients and averaged weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from zoo.capabilities import Reconstructive
from zoo.config import ImageShape, Size
from zoo.nn.patches import patch_decoder, patch_encoder
from zoo.nn.point import Point
from zoo.nn.precision import at_least_single
from zoo.random import Streams, randn


class Autoencoder(Reconstructive):
    """A convolutional autoencoder with linear codes, and a Gaussian of these.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4.
        latent_dim: Dimension of the code.
        channels: Number of channels of the convolutions, which see patches of 4x4 pixels.
        hidden: Number of units of the layers between convolutions and code.
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
        self.event_shape, self.latent_shape = tuple(event_shape), (latent_dim,)
        self.encoder = patch_encoder(event_shape, channels, hidden, latent_dim)
        self.decoder = patch_decoder(latent_dim, hidden, channels, event_shape)
        self.code_loc = nn.Parameter(torch.zeros(latent_dim))
        self.code_factor = nn.Parameter(torch.zeros(latent_dim, latent_dim))  # see `prior`; logarithms in the diagonal

    def encode(self, x: Tensor) -> Point:
        return Point(at_least_single(self.encoder(x.to(self.dtype))))

    def decode(self, z: Tensor) -> Tensor:
        pixels = at_least_single(self.decoder(z.to(self.dtype))) + 0.5
        return pixels.clamp(0, 1).detach() + (pixels - pixels.detach())  # clamped pixels still learn from their error

    def prior(self) -> MultivariateNormal:
        """The Gaussian of the codes.

        The inverse of its covariance is F^T F. F is triangular, and its diagonal is stored as logarithms, so that all
        values of the parameters are valid.
        """
        stored = at_least_single(self.code_factor)
        factor = stored.tril(-1) + stored.diagonal().exp().diag()
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        scale = torch.linalg.solve_triangular(factor, identity, upper=False)
        return MultivariateNormal(at_least_single(self.code_loc), scale_tril=scale, validate_args=False)

    def draw(self, streams: Streams) -> Tensor:
        prior = self.prior()
        epsilon = randn((len(streams), *self.latent_shape), streams, self.device)
        return self.decode(prior.loc + epsilon.to(prior.loc) @ prior.scale_tril.T)
