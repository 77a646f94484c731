"""DDIM (Song et al. 2021, https://arxiv.org/abs/2010.02502, eq. 12), divided by sqrt(abar).

    y_to = D + sqrt(to^2 - s^2) (y - D)/sigma + s epsilon,    s^2 = eta^2 to^2 (1 - to^2/sigma^2)

D is the denoised state, sigma the noise level of y, and `to` the next one.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from zoo.config import Between
from zoo.samplers.denoising import DenoisingSampler, Walk


@dataclass(frozen=True)
class DDIM(DenoisingSampler):
    """Draws the next state from a family of distributions with the right marginals for every eta; of order 1.

    Args:
        eta: Share of fresh noise: 0 for none, as `Euler`; 1 for the posterior of DDPM, as `Ancestral`.
    """

    eta: Annotated[float, Between(0, 1)] = 0.0

    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        fresh = self.eta * to * math.sqrt(1 - (to / sigma) ** 2)
        y = denoised + math.sqrt(to**2 - fresh**2) / sigma * (y - denoised)
        return y + fresh * walk.noise(y) if fresh else y
