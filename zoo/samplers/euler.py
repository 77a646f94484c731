"""Euler's method for the probability-flow ODE (Song et al. 2021, https://arxiv.org/abs/2011.13456, section 4.3).

    dy/dsigma = (y - D(y; sigma))/sigma

D is the denoised state.
"""

from dataclasses import dataclass

from torch import Tensor

from zoo.samplers.denoising import DenoisingSampler, Walk


@dataclass(frozen=True)
class Euler(DenoisingSampler):
    """Follows the tangent at the start of each step; of order 1."""

    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        return y + (to - sigma) * (y - denoised) / sigma
