"""DPM-Solver++ (2M) (Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2), divided by alpha.

    y_to = to/sigma y + (1 - to/sigma) D',    D' = D + h/(2 h_before) (D - D_before),    h = ln(sigma/to)

D is the denoised state, sigma the noise level of y, and `to` the next one.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from zoo.samplers.denoising import DenoisingSampler, Walk


@dataclass(frozen=True)
class DPMSolver(DenoisingSampler):
    """Extrapolates the denoised state from the last two evaluations; of order 2, with one evaluation per step.

    The first and the last step are steps of Euler's method.
    """

    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        if walk.before is not None and to:
            part = math.log(sigma / to) / (2 * math.log(walk.before.sigma / sigma))
            denoised = denoised + part * (denoised - walk.before.value)
        return denoised + to / sigma * (y - denoised)
