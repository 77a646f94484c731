"""IWAE: importance-weighted autoencoder (Burda et al. 2016, https://arxiv.org/abs/1509.00519).

    L_k(x) = E_{z_1, ..., z_k from q}[log 1/k sum_j w_j],    w_j = p(x, z_j)/q(z_j | x)                         (eq. 8)
    gradient of L_k = E[sum_j w_j/(sum_i w_i) gradient of log w_j]                                         (eqs. 13, 14)

A VAE that is trained to maximise L_k. The elbo, L_1, asks every code from q to explain the image; L_k asks only some of
k codes to do so. The posterior may therefore be wider than q, and have another shape.

Density: lower bound; k passes of the decoder.
Sampling: exact; one pass of the decoder.
Differs from the paper: the networks and likelihoods are those of `zoo.vae.vae`; training can begin with the elbo, which
is cheap. The checkpoint begins with the weights of a VAE. It is trained with AdamW in place of Adam, a learning rate
that rises and then falls along a cosine in place of steps, clipped gradients and averaged weights, on batches of 64
images in place of 20, and on images that are binarised once, not again in each epoch.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from zoo.capabilities import ImportanceWeighted
from zoo.config import Between, ImageShape, Size
from zoo.random import Streams, rand, randn
from zoo.vae.vae import VAE, LikelihoodName


def importance_weighted(model: ImportanceWeighted, x: Tensor, k: int, streams: Streams, **given: Tensor) -> Tensor:
    """An estimate of the importance-weighted bound in nats: [B, *event_shape] -> [B].

    Its gradient is the mean of the gradients of the k log-weights, weighted with w_j/sum w. It is estimated by the
    gradient of one of them, drawn with these weights: k passes forward and one backward (section 3 of the paper).
    """
    epsilon = randn((len(x), k, *model.latent_shape), streams, x.device).transpose(0, 1)
    with torch.no_grad():
        log_weights = model.log_weights_at(x, epsilon, **given)  # [k, B]
        chosen = (log_weights.softmax(0).cumsum(0) < rand((len(x), 1), streams, x.device)[:, 0]).sum(0)
        chosen = chosen.clamp(max=k - 1)  # rounded weights may sum to slightly less than 1
        bound = log_weights.logsumexp(0) - math.log(k)
    surrogate = model.log_weights_at(x, epsilon[chosen, torch.arange(len(x), device=x.device)][None], **given)[0]
    return bound + (surrogate - surrogate.detach())


class IWAE(VAE):
    """A VAE that is trained with the importance-weighted bound.

    Args:
        num_samples: Number of importance samples k.
        first_steps: Number of first training steps that maximise the elbo instead of L_k; ignored for pretrained
            weights.
        event_shape, latent_dim, channels, hidden, likelihood, min_scale: See `VAE`.
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

    def training_bound(self, x: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        is_first = self.global_step < self.first_steps and not self.pretrained
        if is_first or self.num_samples == 1:
            return self.elbo(x, generator=streams, **given)
        return importance_weighted(self, x, self.num_samples, streams, **given)
