"""MADE: masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(o_d)                          (eq. 3)
    h1 = relu(b1 + (W1 * M1) x),  h2 = relu(b2 + (W2 * M2) h1),  o = c + (V * MV) h2 + (A * MA) x            (eq. 10)
    M1[k, d] = 1 if m1(k) >= d,  M2[k, j] = 1 if m2(k) >= m1(j),  MV[d, k] = 1 if d > m2(k)                  (eqs. 12, 13)

with the degrees m(k) drawn at random, and drawn anew for each of `num_masks` masks that share the weights
(connectivity-agnostic training). The model is the mixture of the masks' distributions, which averages probabilities.

Density: exact; one pass a mask.
Sampling: exact; each hidden unit is computed once, as soon as the pixels that it sees are known.
Differs from the paper: the natural order of pixels in all masks; Adam with averaged weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.capabilities import Completable, TractableDensity
from zoo.errors import ConfigError
from zoo.random import Streams, rand, seed_from


class MADE(TractableDensity, Completable):
    """A mixture of masked two-layer networks over binary pixels in raster order.

    Args:
        event_shape: shape of one example; values in {0, 1}.
        hidden: units of each of the two hidden layers.
        num_masks: number of sets of masks, used in turn in training and all together in `log_prob`.
        mask_seed: seed of the degrees.
    """

    degrees: Tensor

    def __init__(
        self,
        event_shape: list[int] = [1, 28, 28],  # noqa: B006
        hidden: int = 500,
        num_masks: int = 8,
        mask_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = math.prod(event_shape)
        self.num_masks = num_masks
        self.first = nn.Linear(self.size, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, self.size)
        self.direct = nn.Parameter(torch.zeros(self.size, self.size))
        # a unit of degree m sees the pixels 1 to m; the second layer's degrees are at least the smallest of the first's
        generator = torch.Generator().manual_seed(mask_seed)
        degrees = torch.randint(1, max(2, self.size), (num_masks, 2, hidden), generator=generator)
        degrees[:, 1] = degrees[:, 1].maximum(degrees[:, 0].amin(-1, keepdim=True))
        self.register_buffer("degrees", degrees.to(torch.int16))

    def _logits(self, x: Tensor, mask: int) -> Tensor:
        """Logits of every pixel given the earlier ones, under one set of masks: [B, D] -> [B, D]."""
        first, second = self.degrees[mask].long()
        pixel = torch.arange(1, self.size + 1, device=x.device)
        h = F.linear(x, self.first.weight * (first[:, None] >= pixel), self.first.bias).relu()
        h = F.linear(h, self.second.weight * (second[:, None] >= first), self.second.bias).relu()
        o = F.linear(h, self.output.weight * (pixel[:, None] > second), self.output.bias)
        return o + F.linear(x, self.direct.tril(-1))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats: [B, *event_shape] -> [B]; while training, that of the mask whose turn it is."""
        x = x.flatten(1)
        masks = [self.global_step % self.num_masks] if self.training else range(self.num_masks)
        components = [
            -F.binary_cross_entropy_with_logits(self._logits(x, k), x, reduction="none").sum(-1) for k in masks
        ]
        return torch.stack(components).logsumexp(0) - math.log(len(masks))

    def draw(self, streams: Streams) -> Tensor:
        mask = (rand((len(streams), 1), streams)[:, 0] * self.num_masks).long()
        uniforms = rand((len(streams), self.size), streams, self.device)
        x = torch.empty(len(streams), self.size, device=self.device)
        for k in mask.unique().tolist():
            rows = (mask == k).nonzero()[:, 0].to(self.device)
            x[rows] = self._scan(uniforms[rows], k)
        return x.view(-1, *self.event_shape)

    @torch.no_grad()
    def complete(self, x: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Samples the pixels after the known ones, which come first in raster order; see `Completable`."""
        known = mask.expand_as(x).flatten(1)
        if (known[:, 1:] & ~known[:, :-1]).any():
            raise ConfigError(
                "complete: MADE conditions on pixels that come first in raster order (rows from the top), but the mask "
                "has an unknown pixel before a known one; mark as known only the first pixels"
            )
        streams = Streams(seed_from(generator), range(len(x)))
        uniforms = rand((len(x), self.size), streams, self.device)
        flat, prefix = x.flatten(1).to(self.device), known.to(self.device)
        # the known pixels choose the component: p(k given known) is proportional to p_k(known)
        logits = torch.stack([self._logits(flat * prefix, k) for k in range(self.num_masks)], 1)  # [B, K, D]
        target = (flat * prefix)[:, None].expand_as(logits)
        terms = -F.binary_cross_entropy_with_logits(logits, target, reduction="none") * prefix[:, None]
        cumulative = terms.sum(-1).softmax(-1).cumsum(-1)
        choice = (rand((len(x), 1), streams, self.device) > cumulative).sum(-1).clamp_(max=self.num_masks - 1)
        out = torch.empty_like(flat)
        for k in choice.unique().tolist():
            rows = (choice == k).nonzero()[:, 0]
            out[rows] = self._scan(uniforms[rows], k, flat[rows], prefix[rows])
        return out.view_as(x)

    def _scan(self, uniforms: Tensor, mask: int, x: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Pixels from uniforms [B, D] in order, each hidden unit computed once; `known` pixels are taken from x."""
        first, second = self.degrees[mask].long()
        order1, order2 = first.argsort(), second.argsort()
        first, second = first[order1], second[order2]
        # units sorted by degree, pixels in columns: what is known at a step is a block at the top of each array
        w1, b1 = self.first.weight[order1], self.first.bias[order1, None]
        w2, b2 = self.second.weight[order2][:, order1], self.second.bias[order2, None]
        v, c = self.output.weight[:, order2], self.output.bias
        steps = torch.arange(self.size + 1, device=first.device)
        ends1 = torch.searchsorted(first, steps, right=True).tolist()  # ends1[d]: units of degree at most d
        ends2 = torch.searchsorted(second, steps, right=True).tolist()
        u = uniforms.T.contiguous()
        pixels, h1, h2 = torch.empty_like(u), u.new_empty(len(w1), u.shape[1]), u.new_empty(len(w2), u.shape[1])
        for d in range(self.size):
            logit = c[d] + v[d, : ends2[d]] @ h2[: ends2[d]] + self.direct[d, :d] @ pixels[:d]
            pixels[d] = u[d] < logit.sigmoid()
            if x is not None and known is not None:
                pixels[d] = torch.where(known[:, d], x[:, d], pixels[d])
            new1, new2 = slice(ends1[d], ends1[d + 1]), slice(ends2[d], ends2[d + 1])
            if new1.start < new1.stop:
                h1[new1] = torch.addmm(b1[new1], w1[new1, : d + 1], pixels[: d + 1]).relu_()
            if new2.start < new2.stop:
                h2[new2] = torch.addmm(b2[new2], w2[new2, : new1.stop], h1[: new1.stop]).relu_()
        return pixels.T
