"""Semi-supervised VAE, model M2 (Kingma et al. 2014, https://arxiv.org/abs/1406.5298, section 2.2).

    L(x, y) = E_q(z | x, y)[log p(x | z, y) + log p(y)] - KL(q(z | x, y) || p(z)),    p(z) = N(0, I)             (eq. 6)
    U(x) = sum_y q(y | x) (L(x, y) - log q(y | x))                                                             (eq. 7)
    maximise  sum over labelled x of L(x, y) + alpha log q(y | x), plus sum over other x of U(x)           (eqs. 8, 9)

L and U are lower bounds of log p(x, y) and of log p(x). q(y | x) learns from few labels and from all images. Classes
are equally likely.

Density: lower bound of log p(x | y); one pass. Importance sampling tightens it.
Sampling: exact; one pass of the decoder.
Differs from the paper: networks and likelihoods are those of `zoo.vae.vae`; alpha counts per labelled image; all
classes of an image share the noise of z; AdamW with a warm-up and a rate that falls along a cosine, clipped gradients,
averaged weights. The checkpoint of 1,000 labels begins with that of 100.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.distributions import Normal

from zoo.capabilities import InfersLabels
from zoo.config import Between, ImageShape, Size
from zoo.nn.patches import patch_encoder
from zoo.random import Streams, randn
from zoo.vae.conditional_vae import ConditionalVAE
from zoo.vae.vae import LikelihoodName, gaussian


class SemiSupervisedVAE(InfersLabels, ConditionalVAE):
    """A conditional VAE that also infers labels, and trains on images of which only some have one.

    In training, a label of -1 stands for an unknown one; see `labelled` of `zoo.data.MNIST`.

    Args:
        classification_weight: alpha, the weight of log q(y | x) of a labelled image.
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: See `VAE`.
    """

    def __init__(
        self,
        classification_weight: Annotated[float, Between(0.0, 1e6)] = 50.0,
        num_classes: Size = 10,
        event_shape: ImageShape = (1, 28, 28),
        latent_dim: Size = 32,
        channels: Size = 48,
        hidden: Size = 256,
        likelihood: LikelihoodName = "bernoulli",
        min_scale: Annotated[float, Between(1e-9, 1e3)] = 0.001,
    ) -> None:
        super().__init__(num_classes, event_shape, latent_dim, channels, hidden, likelihood, min_scale)
        self.save_hyperparameters()
        self.classification_weight = classification_weight
        self.recognizer = patch_encoder(event_shape, channels, hidden, num_classes)

    def label_logits(self, x: Tensor) -> Tensor:
        return self.recognizer(x.to(self.dtype))

    def training_bound(self, x: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        labels = given["labels"]
        log_q = self.label_logits(x).log_softmax(1)
        bounds = self.class_bounds(x, randn((len(x), *self.latent_shape), streams, x.device))
        unlabelled = (log_q.exp() * (bounds - log_q)).sum(1)
        known = labels.clamp(min=0)[:, None]
        labelled = bounds.gather(1, known)[:, 0] + self.classification_weight * log_q.gather(1, known)[:, 0]
        return torch.where(labels < 0, unlabelled, labelled)

    def class_bounds(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """L(x, y) of every class at the codes that noise gives: [B, *event_shape], [B, latent_dim] -> [B, C]."""
        num = self.num_classes
        hidden = self.encoder[:-2](x.to(self.dtype))[:, None] + self.encoder_classes.weight  # [B, C, hidden]
        q = gaussian(self.encoder[-2:](hidden.flatten(0, 1)))
        z = q.loc + q.scale * epsilon.repeat_interleave(num, 0)  # [B C, latent_dim]
        classes = torch.arange(num, device=x.device).repeat(len(x))
        log_likelihood = self.likelihood(z, labels=classes).log_prob(x.repeat_interleave(num, 0)).flatten(1).sum(1)
        log_ratio = (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(1)
        return (log_likelihood + log_ratio).view(len(x), num) - math.log(num)
