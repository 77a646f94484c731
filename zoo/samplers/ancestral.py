"""Ancestral sampling (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 6-7), divided by sqrt(abar).

    y_to ~ q(y_to | y, x = D) = N(D + to^2/sigma^2 (y - D), to^2 (1 - to^2/sigma^2) I)

D is the denoised state, sigma the noise level of y, and `to` the next one. The variance is that of the posterior, the
smaller of the two choices in section 3.2 of the paper.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from zoo.samplers.denoising import DenoisingSampler, Walk


@dataclass(frozen=True)
class Ancestral(DenoisingSampler):
    """Draws each state from its posterior given the one before and the denoised example; of order 1."""

    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        ratio = (to / sigma) ** 2
        y = denoised + ratio * (y - denoised)
        return y + to * math.sqrt(1 - ratio) * walk.noise(y) if to else y
