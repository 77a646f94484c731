"""The logistic distribution over grey levels (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2).

    P(x) = sigmoid((x + 1/510 - loc)/scale) - sigmoid((x - 1/510 - loc)/scale),    x in {0, ..., 255}/255

with the tails beyond black and white added to the first and the last level.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

HALF = 1 / 510  # half the distance of two levels


class DiscretizedLogistic(Distribution):
    """Probabilities of 256 grey levels.

    Args:
        loc: centre, any shape, in units of pixels (black 0, white 1).
        scale: positive, same shape and units.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(value) in nats, for values in {0, ..., 255}/255."""
        centred, inverse = value - self.loc, 1 / self.scale
        upper, lower = (centred + HALF) * inverse, (centred - HALF) * inverse
        # log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)): exact in both tails
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * HALF * inverse))
        return torch.where(
            value <= HALF, F.logsigmoid(upper), torch.where(value >= 1 - HALF, F.logsigmoid(-lower), inside)
        )

    def icdf(self, uniform: Tensor) -> Tensor:
        """The level whose cell of the distribution function holds `uniform`: values in {0, ..., 255}/255."""
        continuous = self.loc + self.scale * torch.logit(uniform, eps=1e-7)
        return (continuous * 255).round().clamp(0, 255) / 255

    @property
    def mean(self) -> Tensor:
        """E[x] in [0, 1], the sum over levels k of P(x >= k/255)/255."""
        total = torch.zeros_like(self.loc)
        for level in range(1, 256):
            total += torch.sigmoid((self.loc - (level / 255 - HALF)) / self.scale)
        return total / 255
