"""Distributions over grey levels: a logistic, a Gaussian or a mixture of logistics, integrated over each level's cell.

    P(x) = F((x + h - loc)/scale) - F((x - h - loc)/scale),    x in {0, ..., L - 1}/(L - 1), h = 1/(2 L - 2)

The tails beyond black and white belong to the first and the last of the L levels. F is the logistic function (Salimans
et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2), or the distribution function of N(0, 1) (as in Ho et al. 2020,
https://arxiv.org/abs/2006.11239, eq. 13).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

_LOG_NORM = 0.5 * math.log(2 * math.pi)


class Discretized(Distribution):
    """Probabilities of grey levels under a symmetric distribution with centre `loc` and scale `scale`.

    Args:
        loc: Centre, in units of pixel values (black is 0, white is 1); any shape.
        scale: Scale, in the same units; positive, same shape.
        levels: Number of levels, L.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256) -> None:
        self.loc, self.scale, self.levels = loc, scale, levels
        self.half = 1 / (2 * levels - 2)  # half the distance between two levels
        super().__init__(loc.shape, validate_args=False)

    @staticmethod
    @abstractmethod
    def standard_cdf(x: Tensor, /) -> Tensor:
        """The distribution function F."""

    @staticmethod
    @abstractmethod
    def standard_log_cdf(x: Tensor, /) -> Tensor:
        """log F, accurate in the tails."""

    @staticmethod
    @abstractmethod
    def standard_icdf(uniform: Tensor) -> Tensor:
        """The inverse of F, finite at 0 and 1."""

    @classmethod
    @abstractmethod
    def log_difference(cls, upper: Tensor, lower: Tensor, width: Tensor) -> Tensor:
        """log(F(upper) - F(lower)), accurate in the tails; `width` is upper - lower."""

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(value) in nats, for a value in {0, ..., L - 1}/(L - 1)."""
        centred, inverse = value - self.loc, 1 / self.scale
        upper, lower = (centred + self.half) * inverse, (centred - self.half) * inverse
        inside = self.log_difference(upper, lower, 2 * self.half * inverse)
        last = torch.where(value >= 1 - self.half, self.standard_log_cdf(-lower), inside)
        return torch.where(value <= self.half, self.standard_log_cdf(upper), last)

    def icdf(self, uniform: Tensor) -> Tensor:
        """The level whose cell holds the quantile `uniform`: a value in {0, ..., L - 1}/(L - 1)."""
        continuous, top = self.loc + self.scale * self.standard_icdf(uniform), self.levels - 1
        return (continuous * top).round().clamp(0, top) / top

    @property
    def mean(self) -> Tensor:
        """E[x] in [0, 1]: the mean of P(x >= k/(L - 1)) over levels k > 0."""
        total, top = torch.zeros_like(self.loc), self.levels - 1
        for level in range(1, self.levels):
            total += self.standard_cdf((self.loc - (level / top - self.half)) / self.scale)
        return total / top


class DiscretizedLogistic(Discretized):
    """F(x) = 1/(1 + e^-x)."""

    standard_cdf = staticmethod(torch.sigmoid)
    standard_log_cdf = staticmethod(F.logsigmoid)

    @staticmethod
    def standard_icdf(uniform: Tensor) -> Tensor:
        return torch.logit(uniform, eps=1e-7)

    @classmethod
    def log_difference(cls, upper: Tensor, lower: Tensor, width: Tensor) -> Tensor:
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u))
        return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))


class DiscretizedGaussian(Discretized):
    """F(x) = P(epsilon < x), epsilon ~ N(0, 1)."""

    standard_cdf = staticmethod(torch.special.ndtr)

    @staticmethod
    def standard_log_cdf(x: Tensor) -> Tensor:
        # far out, torch's own has a wrong gradient in single precision; the asymptotic series takes its place
        tail = x.clamp(max=-10)
        series = -tail.square() / 2 - (-tail).log() - _LOG_NORM + torch.log1p(3 / tail**4 - 1 / tail.square())
        return torch.where(x < -10, series, torch.special.log_ndtr(x.clamp(min=-10)))

    @staticmethod
    def standard_icdf(uniform: Tensor) -> Tensor:
        return torch.special.ndtri(uniform.clamp(1e-7, 1 - 1e-7))

    @classmethod
    def log_difference(cls, upper: Tensor, lower: Tensor, width: Tensor) -> Tensor:
        # by symmetry, both values are moved to the lower tail; in narrow cells, the density at the middle is used
        middle = (upper + lower) / 2
        near, far = -middle.abs() + width / 2, -middle.abs() - width / 2
        log_near = cls.standard_log_cdf(near)
        ratio = (cls.standard_log_cdf(far) - log_near).clamp(max=-1e-6)
        density = -middle.square() / 2 - _LOG_NORM + width.log()
        return torch.where(width * middle.abs().clamp(min=1) < 0.01, density, log_near + torch.log(-torch.expm1(ratio)))


def mixture_log_prob(parameters: Tensor, value: Tensor, levels: int) -> Tensor:
    """log P(value) in nats under a mixture of K discretised logistics (Salimans et al. 2017, eq. 1).

    Args:
        parameters: K logits of the weights, K centres minus 1/2, and K logarithms of the scales plus 2, [..., 3 K].
        value: Values in {0, ..., levels - 1}/(levels - 1), [...].
        levels: Number of levels.

    Returns:
        Log-probabilities, [...].
    """
    weights, loc, scale = _mixture(parameters.to(value.dtype))
    part = DiscretizedLogistic(loc, scale, levels)
    return (weights.log_softmax(-1) + part.log_prob(value[..., None])).logsumexp(-1)


def mixture_cdf(parameters: Tensor, levels: int) -> Tensor:
    """P(x <= each level) under the mixture of `mixture_log_prob`: [..., 3 K] -> [..., levels]."""
    weights, loc, scale = _mixture(parameters)
    edges = (torch.arange(levels, device=loc.device, dtype=loc.dtype)[:, None] + 0.5) / (levels - 1)
    below = ((edges - loc[..., None, :]) / scale[..., None, :]).sigmoid()  # [..., levels, K]
    cumulative = (below @ weights.softmax(-1)[..., None])[..., 0]
    return torch.cat([cumulative[..., :-1], torch.ones_like(cumulative[..., :1])], -1)


def _mixture(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the weights, centres and scales, [..., K] each."""
    weights, loc, log_scale = parameters.chunk(3, -1)
    return weights, loc + 0.5, (log_scale - 2).clamp(-7, 3).exp()
