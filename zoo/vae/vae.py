"""VAE: variational autoencoder (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; Rezende et al. 2014).

    elbo(x) = E_q(z given x)[log p(x given z)] - KL(q(z given x) || p(z))                                      (eq. 3)
    p(z) = N(0, I),    q(z given x) = N(mu(x), diag sigma(x)^2),    z = mu(x) + sigma(x) epsilon           (eqs. 9, 10)
    p(x given z) = product over pixels of Bernoulli(x_i), or of Gaussian or logistic distributions over grey levels

Density: lower bound; one pass. Importance sampling tightens it (Burda et al. 2016, https://arxiv.org/abs/1509.00519).
Sampling: exact; one pass of the decoder.
Differs from the paper: convolutional networks over patches of pixels; for 8-bit images, the Gaussian is integrated over
the cells of grey levels, so that there is a probability and no density; or a logistic distribution takes its place
(Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2). Both have a scale a pixel.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, kl_divergence

from zoo.capabilities import Decoder, Encoder, ImportanceWeighted
from zoo.config import Between, ImageShape, Size
from zoo.nn.discretized import Discretized, DiscretizedGaussian, DiscretizedLogistic
from zoo.nn.patches import patch_decoder, patch_encoder
from zoo.random import Source, Streams, rand, randn

LikelihoodName: TypeAlias = Literal["bernoulli", "discretized-gaussian", "discretized-logistic"]


class VAE(ImportanceWeighted, Encoder, Decoder):
    """A convolutional VAE with a diagonal Gaussian posterior.

    Args:
        event_shape: (C, H, W); H and W multiples of 4.
        latent_dim: dimension of z.
        channels: width of the convolutions, which see patches of 4x4 pixels.
        hidden: units of the layer between convolutions and code.
        likelihood: `bernoulli` for pixels in {0, 1}; `discretized-gaussian` or `discretized-logistic` for
            {0, ..., 255}/255.
        min_scale: smallest scale of these two, in units of pixels. The larger, the less the code is paid
            for exact greys: fewer nats in the code, codes closer to the prior, and samples that look more like data.
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
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (latent_dim,)
        self.likelihood_name = likelihood
        self.levels = 2 if likelihood == "bernoulli" else 256
        self.min_scale = min_scale
        parameters = 1 if likelihood == "bernoulli" else 2
        self.encoder = patch_encoder(event_shape, channels, hidden, 2 * latent_dim)
        self.decoder = patch_decoder(latent_dim, hidden, channels, [parameters * event_shape[0], *event_shape[1:]])

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc)), 1)

    def _posterior(self, x: Tensor) -> Normal:
        return self._gaussian(self.encoder(x))

    def _gaussian(self, parameters: Tensor) -> Normal:
        loc, log_scale = parameters.float().chunk(2, -1)
        return Normal(loc, log_scale.clamp(-7, 3).exp(), validate_args=False)

    def _pixels(self, z: Tensor) -> Bernoulli | Discretized:
        return self._likelihood(self.decoder(z))

    def _likelihood(self, parameters: Tensor) -> Bernoulli | Discretized:
        parameters = parameters.float()
        if self.likelihood_name == "bernoulli":
            return Bernoulli(logits=parameters, validate_args=False)
        loc, scale = parameters.chunk(2, 1)
        kind = DiscretizedGaussian if self.likelihood_name == "discretized-gaussian" else DiscretizedLogistic
        return kind(loc + 0.5, self.min_scale + nn.functional.softplus(scale - 2))

    # What follows is that of the conditional VAE too, for which `given` holds the labels.

    def encode(self, x: Tensor, **given: Tensor) -> Distribution:
        return Independent(self._posterior(x, **given), 1)

    def likelihood(self, z: Tensor, **given: Tensor) -> Distribution:
        """p(x given z): batch shape [B], event shape `event_shape`."""
        return Independent(self._pixels(z, **given), 3)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self._pixels(z, **given).mean

    def elbo(self, x: Tensor, *, generator: Source = None, **given: Tensor) -> Tensor:
        posterior = self._posterior(x, **given)
        z = posterior.loc + posterior.scale * randn((len(x), *self.latent_shape), generator, x.device)
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1)
        return self._pixels(z, **given).log_prob(x).flatten(1).sum(-1) - kl

    def log_weights_at(self, x: Tensor, epsilon: Tensor, **given: Tensor) -> Tensor:
        posterior, k = self._posterior(x, **given), len(epsilon)
        z = posterior.loc + posterior.scale * epsilon  # [k, B, latent]
        pixels = self._pixels(z.flatten(0, 1), **{name: value.repeat(k) for name, value in given.items()})
        log_likelihood = pixels.log_prob(x.repeat(k, 1, 1, 1)).flatten(1).sum(-1).view(k, len(x))
        return log_likelihood + (Normal(0.0, 1.0).log_prob(z) - posterior.log_prob(z)).sum(-1)

    def draw(self, streams: Streams, **given: Tensor) -> Tensor:
        pixels = self._pixels(randn((len(streams), *self.latent_shape), streams, self.device), **given)
        uniforms = rand((len(streams), *self.event_shape), streams, self.device)
        return (uniforms < pixels.probs).float() if isinstance(pixels, Bernoulli) else pixels.icdf(uniforms)
