"""VAEs whose posterior is a flow: Gaussian noise, moved by invertible maps that depend on the image.

    log q(z | x) = log N(z_0; mu(x), diag sigma(x)^2) - log |det dz/dz_0|,    z = f(z_0; x)

Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770, equation 13.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from zoo.vae.vae import LatentGaussian, gaussian


class FlowVAE(LatentGaussian):
    """A VAE with a flow as its posterior. A model adds the flow, which may see the last hidden layer of the encoder.

    The mean of the posterior has no formula, so that it is no `Encoder`. `log_posterior` gives its density.
    """

    @abstractmethod
    def move(self, z: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """z and ladj of z_0 and the encoder's layer: [N, latent_dim], [N, hidden] -> ([N, latent_dim], [N])."""

    @abstractmethod
    def move_back(self, z: Tensor, seen: Tensor) -> Tensor:
        """The inverse of `move`: z -> z_0, [N, latent_dim]."""

    def inferred(self, x: Tensor, epsilon: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.encoder[:-1](x.to(self.dtype))
        base = gaussian(self.encoder[-1](seen))
        z = base.loc + base.scale * epsilon
        moved, ladj = self.move(z.flatten(0, 1), seen.repeat(epsilon.shape[0], 1))
        return moved.view_as(z), base.log_prob(z).sum(-1) - ladj.view(z.shape[:-1])

    def log_posterior(self, x: Tensor, z: Tensor) -> Tensor:
        """log q(z | x) in nats: [B, *event_shape], [B, latent_dim] -> [B]."""
        seen = self.encoder[:-1](x.to(self.dtype))
        start = self.move_back(z, seen)
        return gaussian(self.encoder[-1](seen)).log_prob(start).sum(-1) - self.move(start, seen)[1]
