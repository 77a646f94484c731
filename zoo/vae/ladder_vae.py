"""Ladder VAE (Sonderby et al. 2016, https://arxiv.org/abs/1602.02282), with convolutions.

    p(x, z) = p(x | z_1, ..., z_L) p(z_L) product over i < L of p(z_i | z_{i+1}, ..., z_L)
    q(z | x) = product over i of q(z_i | z_{i+1}, ..., z_L, x),    all Gaussian, diagonal
    sigma_q^2 = 1/(sigma_hat^-2 + sigma_p^-2),    mu_q = (mu_hat sigma_hat^-2 + mu_p sigma_p^-2) sigma_q^2

A pass up from the image gives the evidence (mu_hat, sigma_hat) of each layer. A pass down the layers gives the prior
(mu_p, sigma_p) of each layer, given those above. The posterior weighs evidence and prior by their precisions, so that
the generative pass is part of the inference.

Density: lower bound; a pass up and a pass down. Importance sampling tightens it, by k passes down.
Sampling: exact; one pass down.
Codes: the noise that a pass down turns into all layers. There is no encoder: the posterior of a layer's noise depends
on the sampled layers above it, so the joint posterior has no simple form.
Differs from the paper: three layers; the highest is a vector, and those below are maps over patches of 4x4 pixels, with
residual convolutions in place of fully connected layers; a layer sees all those above it through the features between
them; no batch normalisation. The checkpoint is trained with AdamW and a cosine schedule, clipped gradients and averaged
weights, on batches of 128 images in place of 256, and warms up over 5 epochs in place of 200.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, kl_divergence

from zoo.capabilities import Decoder, ImportanceWeighted
from zoo.config import Between, ImageShape, Size
from zoo.nn.patches import PATCH, Patches, Residual, patches_of
from zoo.nn.precision import at_least_single
from zoo.random import Source, Streams, rand, randn
from zoo.vae.vae import gaussian


class _Descent(NamedTuple):
    """Results of a pass down for N codes."""

    pixels: Bernoulli  # [N, *event_shape]
    kl: Tensor  # [N], KL(q || p) summed over layers, each given the sampled layers above
    log_ratio: Tensor  # [N], log p(z) - log q(z | x)


class LadderVAE(ImportanceWeighted, Decoder):
    """A hierarchical VAE of binary images, with inference from the top down.

    Its code is the standard normal noise of all layers, concatenated from the highest to the lowest. The prior or the
    posterior turns it into z.

    Args:
        event_shape: (C, H, W); H and W are multiples of 4; values are in {0, 1}.
        top_dim: Dimension of the highest layer.
        map_channels: Numbers of channels of the layers below it, which are maps of H/4 x W/4, from the highest to the
            lowest.
        channels: Number of channels of the convolutions.
        hidden: Number of units of the layers between the convolutions and the highest layer.
        warmup_steps: Number of training steps over which the weight of the KL divergences rises from 0 to 1; ignored
            for pretrained weights.
    """

    levels = 2

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        top_dim: Size = 24,
        map_channels: Sequence[Size] = (4, 4),
        channels: Size = 32,
        hidden: Size = 192,
        warmup_steps: Annotated[int, Between(0, 10**9)] = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.warmup_steps = warmup_steps
        inputs, (rows, columns) = event_shape[0], patches_of(event_shape)
        size = channels * rows * columns
        self.shapes = [(top_dim,), *((maps, rows, columns) for maps in map_channels)]  # of the layers
        self.latent_shape = (sum(map(math.prod, self.shapes)),)

        self.patches = nn.Sequential(Patches(), nn.Conv2d(PATCH**2 * inputs, channels, 3, padding=1))
        self.up = nn.ModuleList(Residual(channels) for _ in map_channels)  # from the highest to the lowest, as below
        self.evidence = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Conv2d(channels, 2 * m, 1)) for m in map_channels)
        self.top_evidence = nn.Sequential(
            Residual(channels),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(size, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 2 * top_dim),
        )
        self.top = nn.Sequential(
            nn.Linear(top_dim, hidden), nn.SiLU(), nn.Linear(hidden, size), nn.Unflatten(1, (channels, rows, columns))
        )
        self.priors = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Conv2d(channels, 2 * m, 1)) for m in map_channels)
        self.inject = nn.ModuleList(nn.Conv2d(m, channels, 3, padding=1) for m in map_channels)
        self.down = nn.ModuleList(Residual(channels) for _ in map_channels)
        self.pixels = nn.Sequential(
            nn.SiLU(), nn.Conv2d(channels, PATCH**2 * inputs, 3, padding=1), nn.PixelShuffle(PATCH)
        )

    def _ascend(self, x: Tensor) -> list[Normal]:
        """The evidence of each layer, from the highest to the lowest: Gaussians [B, *shape of the layer]."""
        features, found = self.patches(x.to(self.dtype)), []
        for residual, evidence in zip(reversed(self.up), reversed(self.evidence), strict=True):
            features = residual(features)
            found.append(gaussian(evidence(features)))
        return [gaussian(self.top_evidence(features)), *reversed(found)]

    def _descend(self, epsilon: Tensor, evidence: list[Normal] | None = None) -> _Descent:
        """Turns noise, [N, *latent_shape], into layers and pixels, by the posterior or, without evidence, the prior."""
        epsilon = at_least_single(epsilon)
        noise = self._layers(epsilon)
        kl = log_ratio = epsilon.new_zeros(epsilon.shape[0])
        state: Tensor | None = None
        for layer, shape in enumerate(self.shapes):
            if state is None:
                p = Normal(epsilon.new_zeros(shape), 1.0, validate_args=False)
            else:
                p = gaussian(self.priors[layer - 1](state))
            q = p if evidence is None else _combine(evidence[layer], p)
            z = q.loc + q.scale * next(noise)
            if evidence is not None:
                kl = kl + kl_divergence(q, p).flatten(1).sum(1)
                log_ratio = log_ratio + (p.log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
            z = z.to(self.dtype)
            state = self.top(z) if state is None else self.down[layer - 1](state + self.inject[layer - 1](z))
        logits = at_least_single(self.pixels(state))
        return _Descent(Bernoulli(logits=logits, validate_args=False), kl, log_ratio)

    def _layers(self, epsilon: Tensor) -> Iterator[Tensor]:
        parts = epsilon.split([math.prod(shape) for shape in self.shapes], -1)
        return (part.view(epsilon.shape[0], *shape) for part, shape in zip(parts, self.shapes, strict=True))

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, dtype=self.dtype, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)

    def likelihood(self, z: Tensor) -> Bernoulli:
        """p(x | noise z): [B, *latent_shape] -> distributions of each pixel, [B, *event_shape]."""
        return self._descend(z).pixels

    def decode(self, z: Tensor) -> Tensor:
        return self.likelihood(z).mean

    def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
        return self._elbo(x, generator, 1.0)

    def _elbo(self, x: Tensor, source: Source, weight: float) -> Tensor:
        descent = self._descend(randn((len(x), *self.latent_shape), source, x.device), self._ascend(x))
        return descent.pixels.log_prob(x).flatten(1).sum(1) - weight * descent.kl

    def training_bound(self, x: Tensor, streams: Streams) -> Tensor:  # type: ignore[override]
        if self.global_step < self.warmup_steps and not self.pretrained:
            return self._elbo(x, streams, self.global_step / self.warmup_steps)
        return super().training_bound(x, streams)

    def log_weights_at(self, x: Tensor, epsilon: Tensor) -> Tensor:
        k, evidence = epsilon.shape[0], self._ascend(x)
        repeated = [_repeat(e, k) for e in evidence]
        descent = self._descend(epsilon.flatten(0, 1), repeated)
        log_likelihood = descent.pixels.log_prob(x.repeat(k, 1, 1, 1)).flatten(1).sum(1)
        return (log_likelihood + descent.log_ratio).view(k, x.shape[0])

    def draw(self, streams: Streams) -> Tensor:
        pixels = self._descend(randn((len(streams), *self.latent_shape), streams, self.device)).pixels
        uniforms = rand((len(streams), *self.event_shape), streams, self.device)
        return (uniforms < pixels.probs).to(pixels.probs)


def _repeat(gaussian: Normal, k: int) -> Normal:
    """Repeats all rows k times: [B, ...] -> [k B, ...]."""
    times = (k, *[1] * (gaussian.loc.dim() - 1))
    return Normal(gaussian.loc.repeat(times), gaussian.scale.repeat(times), validate_args=False)


def _combine(evidence: Normal, prior: Normal) -> Normal:
    """The product of two Gaussians."""
    precisions = evidence.scale**-2, prior.scale**-2
    variance = 1 / (precisions[0] + precisions[1])
    loc = (evidence.loc * precisions[0] + prior.loc * precisions[1]) * variance
    return Normal(loc, variance.sqrt(), validate_args=False)
