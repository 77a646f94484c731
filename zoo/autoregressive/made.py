"""MADE: masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(o_d)                          (eq. 3)
    h1 = relu(b1 + (W1 * M1) x),  h2 = relu(b2 + (W2 * M2) h1),  o = c + (V * MV) h2 + (A * MA) x            (eq. 10)
    M1[k, d] = 1 if m1(k) >= d,  M2[k, j] = 1 if m2(k) >= m1(j),  MV[d, k] = 1 if d > m2(k)           (eqs. 12, 13)

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

BLOCK = (
    28  # pixels whose units sampling follows one by one; any size gives the same samples, and this is about the fastest
)


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
        mask = (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_masks).long()
        uniforms = rand((len(streams), self.size), streams, self.device)
        with torch.autocast(self.device.type, enabled=False):
            return self._scan(uniforms, mask).view(-1, *self.event_shape)

    @torch.no_grad()
    def complete(self, x: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Samples the pixels after the known ones, which come first in raster order; see `Completable`."""
        if tuple(mask.shape) not in (self.event_shape, tuple(x.shape)) or mask.dtype != torch.bool:
            raise ConfigError(
                f"complete: expected a bool mask of shape {list(self.event_shape)} or {list(x.shape)}, "
                f"found {str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}"
            )
        known = mask.to(self.device).expand_as(x).flatten(1)
        if (known[:, 1:] & ~known[:, :-1]).any():
            raise ConfigError(
                "complete: MADE conditions on pixels that come first in raster order (rows from the top), but the mask "
                "has an unknown pixel before a known one; mark as known only the first pixels"
            )
        streams = Streams(seed_from(generator), range(len(x)))
        uniforms = rand((len(x), self.size), streams, self.device)
        x = x.to(self.device)
        values = x.flatten(1).where(known, 0)
        # the known pixels choose the component: p(k given known) is proportional to p_k(known)
        log_likelihoods = [
            -F.binary_cross_entropy_with_logits(self._logits(values, k), values, known, reduction="none").sum(-1)
            for k in range(self.num_masks)
        ]
        cumulative = torch.stack(log_likelihoods, -1).softmax(-1).cumsum(-1)
        choice = (rand((len(x), 1), streams, self.device) >= cumulative).sum(-1).clamp_(max=self.num_masks - 1)
        # a uniform of -1 draws 1, a uniform of 1 draws 0
        with torch.autocast(self.device.type, enabled=False):
            drawn = self._scan(torch.where(known, 1 - 2 * values, uniforms), choice)
        return torch.where(known, values, drawn).view_as(x)

    def _scan(self, uniforms: Tensor, masks: Tensor) -> Tensor:
        """Pixels from uniforms [B, D] in order, under the masks of number [B]; each hidden unit is computed once.

        A unit of degree m is complete after pixel m. What pixels and units of a block get from earlier blocks comes in
        one matrix product a layer; only the few units that complete inside the block are followed pixel by pixel.
        """
        used, group = masks.unique(return_inverse=True)  # images with equal masks make a group
        place = F.one_hot(group, len(used)).cumsum(0)[torch.arange(len(group)), group] - 1
        u = uniforms.new_zeros(len(used), self.size, int(place.max()) + 1)  # [K, D, G]: pixels and units in rows
        u[group, :, place] = uniforms
        pixels = torch.zeros_like(u)
        first, second = self.degrees[used].long().unbind(1)  # [K, H]
        h1, h2 = (u.new_zeros(*m.shape, u.shape[-1]) for m in (first, second))
        pixel = torch.arange(1, self.size + 1, device=u.device)
        for block in pixel.split(BLOCK):
            n, start, stop = len(block), int(block[0]) - 1, int(block[-1])
            new1, m1, is1 = self._completed(first, start, stop)
            new2, m2, is2 = self._completed(second, start, stop)
            # sums over pixels, in rows: the block's logits, then the inputs of the first layer's new units
            degrees = torch.cat([(block - 1).expand(len(used), -1), m1], 1)
            direct = self.direct[start:stop, :stop].expand(len(used), -1, -1)
            weight = torch.cat([direct, self.first.weight[new1, :stop]], 1) * (degrees[..., None] >= pixel[:stop])
            bias = torch.cat([self.output.bias[start:stop].expand(len(used), -1), self.first.bias[new1]], 1)
            sums = torch.baddbmm(bias[..., None], weight[..., :start], pixels[:, :start])
            sums[:, :n].baddbmm_(self.output.weight[start:stop].expand(len(used), -1, -1), h2)
            inputs2 = torch.baddbmm(self.second.bias[new2][..., None], self.second.weight[new2], h1)
            # and what comes from inside the block
            weight = weight[..., start:]
            weight2 = self.second.weight[new2[..., None], new1[:, None]] * (m2[..., None] >= m1[:, None])
            output = self.output.weight[block[:, None] - 1, new2[:, None]] * (block[:, None] > m2[:, None])
            for d in range(n):
                h = torch.baddbmm(inputs2, weight2, sums[:, n:].relu()).relu_()
                logits = torch.baddbmm(sums[:, d : d + 1], output[:, d : d + 1], h)
                pixels[:, start + d] = u[:, start + d] < logits[:, 0].sigmoid_()
                sums.addcmul_(weight[..., d : d + 1], pixels[:, start + d : start + d + 1])
            complete = sums[:, n:].relu()
            h1[is1.nonzero()[:, 0], new1[is1]] = complete[is1]
            h2[is2.nonzero()[:, 0], new2[is2]] = torch.baddbmm(inputs2, weight2, complete).relu_()[is2]
        return pixels[group, :, place]

    def _completed(self, degrees: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Units with degrees from start + 1 to stop: indices, degrees, and whether it is one, all [K, width].

        Where a mask has fewer of them than another, the rest are other units, of a degree that nothing sees.
        """
        inside = (degrees > start) & (degrees <= stop)  # [K, H]
        is_one, index = inside.byte().topk(int(inside.sum(1).max()))
        return index, degrees.gather(1, index).where(is_one > 0, self.size + 1), is_one > 0
