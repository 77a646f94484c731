"""Conditional VAE (Kingma et al. 2014, https://arxiv.org/abs/1406.5298, section 2.2; Sohn et al. 2015).

    elbo(x given y) = E_q(z given x, y)[log p(x given z, y)] - KL(q(z given x, y) || p(z)),    p(z) = N(0, I)

z need not tell the class y, and what is left of an image without its class is its style: slant, width, size.

Density: lower bound of log p(x given y); one pass. Importance sampling tightens it.
Sampling: exact; one pass of the decoder.
Differs from the papers: labels are always given (the first infers absent ones, the second conditions on images); the
networks and likelihoods are those of `zoo.vae.vae`.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from zoo.capabilities import Conditional
from zoo.config import Between, ImageShape, Size
from zoo.given import Labels, check_labels
from zoo.nn.discretized import Discretized
from zoo.vae.vae import VAE, LikelihoodName


class ConditionalVAE(Conditional, VAE):
    """A VAE whose encoder and decoder are told the class.

    Args:
        num_classes: labels lie in {0, ..., num_classes - 1}.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: see `VAE`.
    """

    def __init__(
        self,
        num_classes: Size = 10,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 48,
        hidden: Size = 256,
        likelihood: LikelihoodName = "bernoulli",
        min_scale: Annotated[float, Between(1e-9, 1e3)] = 0.001,
    ) -> None:
        super().__init__(event_shape, latent_dim, channels, hidden, likelihood, min_scale)
        self.save_hyperparameters()
        self.num_classes = num_classes
        # added to the hidden layer of each: a layer over the image or the code and the class, one-hot, side by side
        self.encoder_classes = nn.Embedding(num_classes, hidden)
        self.decoder_classes = nn.Embedding(num_classes, hidden)

    def _posterior(self, x: Tensor, labels: Labels = None) -> Normal:
        features = self.encoder[:-2](x) + self.encoder_classes(self._one_each(labels, x))
        return self._gaussian(self.encoder[-2:](features))

    def _pixels(self, z: Tensor, labels: Labels = None) -> Bernoulli | Discretized:
        features = self.decoder[:1](z) + self.decoder_classes(self._one_each(labels, z))
        return self._likelihood(self.decoder[1:](features))

    def log_weights_at(self, x: Tensor, epsilon: Tensor, labels: Labels = None) -> Tensor:  # type: ignore[override]
        return super().log_weights_at(x, epsilon, labels=self._one_each(labels, x))

    def _one_each(self, labels: Labels, batch: Tensor) -> Tensor:
        return check_labels(self, labels, len(batch)).to(batch.device)
