"""Ladder VAE (Sonderby et al. 2016, https://arxiv.org/abs/1602.02282), with convolutions.

    p(x, z) = p(x given z_1, ..., z_L) p(z_L) product over i < L of p(z_i given z_{i+1}, ..., z_L)
    q(z given x) = product over i of q(z_i given z_{i+1}, ..., z_L, x),    all Gaussian, diagonal
    sigma_q^2 = 1/(sigma_hat^-2 + sigma_p^-2),    mu_q = (mu_hat sigma_hat^-2 + mu_p sigma_p^-2) sigma_q^2

A pass up the image gives the evidence (mu_hat, sigma_hat) of each layer, a pass down the layers the prior (mu_p,
sigma_p) that the layers above imply; the posterior weighs the two by their precision, so that the generative pass is
part of the inference.

Density: lower bound; a pass up and a pass down. Importance sampling tightens it, by k passes down.
Sampling: exact; one pass down.
Codes: the noise from which a pass down makes its layers. No encoder: what an image says of the noise of a layer depends
on the layers above as they were drawn, and is no distribution of all of it that could be written down.
Differs from the paper: the highest layer is a vector, those below are maps over patches of 4x4 pixels, with residual
convolutions in place of fully connected layers; a layer sees all those above through them; no batch normalisation.
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
from zoo.nn.patches import PATCH, Residual, patches_of
from zoo.random import Source, Streams, rand, randn


class _Descent(NamedTuple):
    """What a pass down gives of N rows."""

    pixels: Bernoulli  # [N, *event_shape]
    kl: Tensor  # [N], of q from p, given the layers above as they were drawn
    log_ratio: Tensor  # [N], log p(z) - log q(z given x)


class LadderVAE(ImportanceWeighted, Decoder):
    """A hierarchical VAE of binary images, with inference from the top down.

    Its code is the standard normal noise of all layers, side by side from the highest to the lowest, from which either
    the prior or the posterior makes the z.

    Args:
        event_shape: (C, H, W); H and W multiples of 4.
        top_dim: dimension of the highest layer.
        map_channels: channels of the layers below it, maps of H/4 x W/4, from the highest to the lowest.
        channels: width of the convolutions.
        hidden: units of the layer between convolutions and highest layer.
        warmup_steps: steps of training over which the weight of the divergences rises from 0 to 1, as in the paper.
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

        self.patches = nn.Sequential(nn.PixelUnshuffle(PATCH), nn.Conv2d(PATCH**2 * inputs, channels, 3, padding=1))
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
        features, found = self.patches(x), []
        for residual, evidence in zip(reversed(self.up), reversed(self.evidence), strict=True):
            features = residual(features)
            found.append(_gaussian(evidence(features)))
        return [_gaussian(self.top_evidence(features)), *reversed(found)]

    def _descend(self, epsilon: Tensor, evidence: list[Normal] | None = None) -> _Descent:
        """From noise [N, *latent_shape] through the posterior, or without evidence through the prior."""
        noise = self._layers(epsilon)
        kl = log_ratio = torch.zeros(len(epsilon), device=epsilon.device)
        state: Tensor | None = None
        for layer, shape in enumerate(self.shapes):
            if state is None:
                p = Normal(torch.zeros(shape, device=epsilon.device), 1.0, validate_args=False)
            else:
                p = _gaussian(self.priors[layer - 1](state))
            q = p if evidence is None else _combine(evidence[layer], p)
            z = q.loc + q.scale * next(noise)
            if evidence is not None:
                kl = kl + kl_divergence(q, p).flatten(1).sum(1)
                log_ratio = log_ratio + (p.log_prob(z) - q.log_prob(z)).flatten(1).sum(1)
            state = self.top(z) if state is None else self.down[layer - 1](state + self.inject[layer - 1](z))
        return _Descent(Bernoulli(logits=self.pixels(state).float(), validate_args=False), kl, log_ratio)

    def _layers(self, epsilon: Tensor) -> Iterator[Tensor]:
        parts = epsilon.split([math.prod(shape) for shape in self.shapes], -1)
        return (part.view(len(epsilon), *shape) for part, shape in zip(parts, self.shapes, strict=True))

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc)), 1)

    def likelihood(self, z: Tensor) -> Distribution:
        """p(x given the noise z): batch shape [B], event shape `event_shape`."""
        return Independent(self._descend(z).pixels, 3)

    def decode(self, z: Tensor) -> Tensor:
        return self._descend(z).pixels.mean

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
        k, evidence = len(epsilon), self._ascend(x)
        repeated = [_repeat(e, k) for e in evidence]
        descent = self._descend(epsilon.flatten(0, 1), repeated)
        log_likelihood = descent.pixels.log_prob(x.repeat(k, 1, 1, 1)).flatten(1).sum(1)
        return (log_likelihood + descent.log_ratio).view(k, len(x))

    def draw(self, streams: Streams) -> Tensor:
        pixels = self._descend(randn((len(streams), *self.latent_shape), streams, self.device)).pixels
        uniforms = rand((len(streams), *self.event_shape), streams, self.device)
        return (uniforms < pixels.probs).float()


def _gaussian(parameters: Tensor) -> Normal:
    """[N, 2 C, ...] -> a Gaussian [N, C, ...]."""
    loc, log_scale = parameters.float().chunk(2, 1)
    return Normal(loc, log_scale.clamp(-7, 3).exp(), validate_args=False)


def _repeat(gaussian: Normal, k: int) -> Normal:
    """[B, ...] -> [k B, ...], all rows k times over."""
    times = (k, *[1] * (gaussian.loc.dim() - 1))
    return Normal(gaussian.loc.repeat(times), gaussian.scale.repeat(times), validate_args=False)


def _combine(evidence: Normal, prior: Normal) -> Normal:
    """The product of two Gaussians."""
    precisions = evidence.scale**-2, prior.scale**-2
    variance = 1 / (precisions[0] + precisions[1])
    loc = (evidence.loc * precisions[0] + prior.loc * precisions[1]) * variance
    return Normal(loc, variance.sqrt(), validate_args=False)
