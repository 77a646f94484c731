"""VAE: variational autoencoder (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; Rezende et al. 2014).

    elbo(x) = E_q(z | x)[log p(x | z)] - KL(q(z | x) || p(z))                                                  (eq. 3)
    p(z) = N(0, I),    q(z | x) = N(mu(x), diag sigma(x)^2),    z = mu(x) + sigma(x) epsilon               (eqs. 9, 10)
    p(x | z) = product over pixels of Bernoulli distributions, or of Gaussians or logistics over grey levels

Density: lower bound; one pass. Importance sampling tightens it (Burda et al. 2016, https://arxiv.org/abs/1509.00519).
Sampling: exact; one pass of the decoder.
Differs from the paper: convolutions over patches of pixels, in place of one hidden layer; for 8-bit images, Gaussians
or logistics (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2) that are integrated over the cell of each
grey level, which gives probabilities instead of densities; both have a smallest scale. The checkpoints are trained with
AdamW in place of Adagrad (colours with Muon), a learning rate that rises and then falls along a cosine, clipped
gradients and averaged weights, on batches of 128 images (colours 32) in place of 100.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, kl_divergence

from zoo.capabilities import Decoder, Encoder, ImportanceWeighted
from zoo.config import Between, ImageShape, Size
from zoo.nn.discretized import Discretized, DiscretizedGaussian, DiscretizedLogistic
from zoo.nn.patches import patch_decoder, patch_encoder
from zoo.nn.precision import at_least_single
from zoo.random import Source, Streams, rand, randn

LikelihoodName: TypeAlias = Literal["bernoulli", "discretized-gaussian", "discretized-logistic"]


def gaussian(parameters: Tensor) -> Normal:
    """Gaussians from means and logarithms of scales, side by side: [B, 2 D, ...] -> [B, D, ...]."""
    loc, log_scale = at_least_single(parameters).chunk(2, 1)
    return Normal(loc, log_scale.clamp(-7, 3).exp(), validate_args=False)


class LatentGaussian(ImportanceWeighted, Decoder):
    """p(x, z) = N(z; 0, I) p(x | z) with a convolutional decoder; a subclass adds q(z | x).

    Args:
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: See `VAE`.
    """

    def __init__(
        self,
        event_shape: ImageShape,
        latent_dim: int,
        channels: int,
        hidden: int,
        likelihood: LikelihoodName,
        min_scale: float,
    ) -> None:
        super().__init__()
        self.event_shape, self.latent_shape = tuple(event_shape), (latent_dim,)
        self.likelihood_name, self.min_scale = likelihood, min_scale
        self.levels = 2 if likelihood == "bernoulli" else 256
        parameters = 1 if likelihood == "bernoulli" else 2
        self.encoder = patch_encoder(event_shape, channels, hidden, 2 * latent_dim)
        self.decoder = patch_decoder(latent_dim, hidden, channels, [parameters * event_shape[0], *event_shape[1:]])

    # `given` is empty, or holds the labels of the conditional VAE, which overrides `posterior` and `likelihood` alone.

    @abstractmethod
    def inferred(self, x: Tensor, epsilon: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        """z from q(z | x), made of standard normal noise, and log q(z | x).

        x [B, *event_shape], epsilon [k, B, latent_dim] -> ([k, B, latent_dim], [k, B]).
        """

    def likelihood(self, z: Tensor, **given: Tensor) -> Bernoulli | Discretized:
        """p(x | z): [B, latent_dim] -> distributions of each pixel, [B, *event_shape]."""
        return self._pixels(self.decoder(z.to(self.dtype)))

    def _pixels(self, parameters: Tensor) -> Bernoulli | Discretized:
        parameters = at_least_single(parameters)
        if self.likelihood_name == "bernoulli":
            return Bernoulli(logits=parameters, validate_args=False)
        loc, scale = parameters.chunk(2, 1)
        kind = DiscretizedGaussian if self.likelihood_name == "discretized-gaussian" else DiscretizedLogistic
        return kind(loc + 0.5, self.min_scale + nn.functional.softplus(scale - 2))

    def elbo(self, x: Tensor, *, generator: Source = None, **given: Tensor) -> Tensor:
        return self.log_weights(x, 1, generator=generator, **given)[0]

    def log_weights_at(self, x: Tensor, epsilon: Tensor, **given: Tensor) -> Tensor:
        k, num = epsilon.shape[0], x.shape[0]
        z, log_q = self.inferred(x, epsilon, **given)
        repeated = {name: torch.as_tensor(value).expand(num).repeat(k) for name, value in given.items()}
        pixels = self.likelihood(z.flatten(0, 1), **repeated)
        log_likelihood = pixels.log_prob(x.repeat(k, 1, 1, 1)).flatten(1).sum(-1).view(k, num)
        return log_likelihood + Normal(0.0, 1.0).log_prob(z).sum(-1) - log_q

    def draw(self, streams: Streams, **given: Tensor) -> Tensor:
        pixels = self.likelihood(randn((len(streams), *self.latent_shape), streams, self.device), **given)
        uniforms = rand((len(streams), *self.event_shape), streams, self.device)
        return pixels.icdf(uniforms) if isinstance(pixels, Discretized) else (uniforms < pixels.probs).to(pixels.probs)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.likelihood(z, **given).mean

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, dtype=self.dtype, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)


class VAE(LatentGaussian, Encoder):
    """A convolutional VAE with a diagonal Gaussian posterior.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4.
        latent_dim: Dimension of z.
        channels: Number of channels of the convolutions, which see patches of 4x4 pixels.
        hidden: Number of units of the layers between the convolutions and the code.
        likelihood: `bernoulli` for pixels in {0, 1}; `discretized-gaussian` or `discretized-logistic` for pixels in
            {0, ..., 255}/255.
        min_scale: Smallest scale of the two discretised likelihoods, in units of pixel values. A larger one rewards
            exact greys less. The code then holds fewer nats and stays closer to the prior, and samples look more like
            data.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 48,
        hidden: Size = 256,
        likelihood: LikelihoodName = "bernoulli",
        min_scale: Annotated[float, Between(1e-9, 1e3)] = 0.001,
    ) -> None:
        super().__init__(event_shape, latent_dim, channels, hidden, likelihood, min_scale)
        self.save_hyperparameters()

    def posterior(self, x: Tensor, **given: Tensor) -> Normal:
        """q(z | x): [B, *event_shape] -> Gaussians of each dimension, [B, latent_dim]."""
        return gaussian(self.encoder(x.to(self.dtype)))

    def inferred(self, x: Tensor, epsilon: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.posterior(x, **given)
        z = posterior.loc + posterior.scale * epsilon
        return z, posterior.log_prob(z).sum(-1)

    def elbo(self, x: Tensor, *, generator: Source = None, **given: Tensor) -> Tensor:
        posterior = self.posterior(x, **given)
        z = posterior.loc + posterior.scale * randn((len(x), *self.latent_shape), generator, x.device)
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1)
        return self.likelihood(z, **given).log_prob(x).flatten(1).sum(-1) - kl

    def encode(self, x: Tensor, **given: Tensor) -> Distribution:
        return Independent(self.posterior(x, **given), 1)
