"""The logistic distribution over grey levels (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2).

    P(x) = sigmoid((x + h - loc)/scale) - sigmoid((x - h - loc)/scale),    x in {0, ..., L - 1}/(L - 1), h = 1/(2 L - 2)

with the tails beyond black and white added to the first and the last of L levels; and mixtures of such distributions.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F


class DiscretizedLogistic(Distribution):
    """Probabilities of grey levels.

    Args:
        loc: centre, any shape, in units of pixels (black 0, white 1).
        scale: positive, same shape and units.
        levels: how many there are, L.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256) -> None:
        self.loc, self.scale, self.levels = loc, scale, levels
        self.half = 1 / (2 * levels - 2)  # the distance of two levels
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(value) in nats, for values in {0, ..., L - 1}/(L - 1)."""
        centred, inverse = value - self.loc, 1 / self.scale
        upper, lower = (centred + self.half) * inverse, (centred - self.half) * inverse
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)): exact in both tails
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * self.half * inverse))
        last = torch.where(value >= 1 - self.half, F.logsigmoid(-lower), inside)
        return torch.where(value <= self.half, F.logsigmoid(upper), last)

    def icdf(self, uniform: Tensor) -> Tensor:
        """The level whose cell of the distribution function holds `uniform`: values in {0, ..., L - 1}/(L - 1)."""
        continuous, top = self.loc + self.scale * torch.logit(uniform, eps=1e-7), self.levels - 1
        return (continuous * top).round().clamp(0, top) / top

    @property
    def mean(self) -> Tensor:
        """E[x] in [0, 1], the mean over levels k > 0 of P(x >= k/(L - 1))."""
        total, top = torch.zeros_like(self.loc), self.levels - 1
        for level in range(1, self.levels):
            total += torch.sigmoid((self.loc - (level / top - self.half)) / self.scale)
        return total / top


def mixture_log_prob(parameters: Tensor, value: Tensor, levels: int) -> Tensor:
    """log P(value) in nats of mixtures of K such distributions (Salimans et al. 2017, eq. 1).

    Args:
        parameters: [..., 3 K]: logits of the weights, centres from 1/2, and logarithms of the scales from e^-2.
        value: [...], in {0, ..., levels - 1}/(levels - 1).

    Returns:
        [...].
    """
    weights, loc, scale = _mixture(parameters.to(value.dtype))
    part = DiscretizedLogistic(loc, scale, levels)
    return (weights.log_softmax(-1) + part.log_prob(value[..., None])).logsumexp(-1)


def mixture_cdf(parameters: Tensor, levels: int) -> Tensor:
    """P(x <= each level) of such mixtures: [..., 3 K] -> [..., levels]."""
    weights, loc, scale = _mixture(parameters)
    edges = (torch.arange(levels, device=loc.device, dtype=loc.dtype)[:, None] + 0.5) / (levels - 1)
    below = ((edges - loc[..., None, :]) / scale[..., None, :]).sigmoid()  # [..., levels, K]
    cumulative = (below @ weights.softmax(-1)[..., None])[..., 0]
    return torch.cat([cumulative[..., :-1], torch.ones_like(cumulative[..., :1])], -1)


def _mixture(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the weights, centres and scales, [..., K] each."""
    weights, loc, log_scale = parameters.chunk(3, -1)
    return weights, loc + 0.5, (log_scale - 2).clamp(-7, 3).exp()
