"""Conditional VAE (Kingma et al. 2014, https://arxiv.org/abs/1406.5298, section 2.2; Sohn et al. 2015).

    elbo(x | y) = E_q(z | x, y)[log p(x | z, y)] - KL(q(z | x, y) || p(z)),    p(z) = N(0, I)

The code need not hold the class y. It holds the style of the image, such as slant, width and size.

Density: lower bound of log p(x | y); one pass. Importance sampling tightens it.
Sampling: exact; one pass of the decoder.
Differs from the papers: labels are always known (Kingma et al. infer missing ones, and Sohn et al. predict images from
images with a prior that depends on them); networks and likelihoods are those of `zoo.vae.vae`. The checkpoint is
trained with AdamW, a learning rate that rises and then falls along a cosine, clipped gradients and averaged weights.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from zoo.capabilities import Conditional
from zoo.config import Between, ImageShape, Size
from zoo.given import Labels, check_labels
from zoo.nn.discretized import Discretized
from zoo.vae.vae import VAE, LikelihoodName, gaussian


class ConditionalVAE(Conditional, VAE):
    """A VAE whose encoder and decoder are given the class.

    Args:
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: See `VAE`.
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
        # added to a hidden layer, as if the one-hot class stood beside the image or the code
        self.encoder_classes = nn.Embedding(num_classes, hidden)
        self.decoder_classes = nn.Embedding(num_classes, hidden)

    def posterior(self, x: Tensor, labels: Labels = None) -> Normal:  # type: ignore[override]
        hidden = self.encoder[:-2](x.to(self.dtype)) + self.encoder_classes(self._checked(labels, x))
        return gaussian(self.encoder[-2:](hidden))

    def likelihood(self, z: Tensor, labels: Labels = None) -> Bernoulli | Discretized:  # type: ignore[override]
        hidden = self.decoder[:1](z.to(self.dtype)) + self.decoder_classes(self._checked(labels, z))
        return self._pixels(self.decoder[1:](hidden))

    def _checked(self, labels: Labels, batch: Tensor) -> Tensor:
        return check_labels(self, labels, batch.shape[0]).to(batch.device)
