"""Multistep consistency sampling (Song et al. 2023, https://arxiv.org/abs/2303.01469, algorithm 1).

    y_to = f(y; sigma) + to epsilon

f maps a state to the end of its path, sigma is the noise level of y, and `to` the next one.
"""

from dataclasses import dataclass

from torch import Tensor

from zoo.config import Size
from zoo.samplers.denoising import DenoisingSampler, Walk, noise_levels


@dataclass(frozen=True)
class Consistency(DenoisingSampler):
    """Jumps to the end of the path and adds fresh noise, less each time; one evaluation in each of few steps.

    The noise levels are those of the other samplers for one more step, without the last.
    """

    steps: Size = 2

    def levels(self, first: float, last: float) -> list[float]:
        return noise_levels(first, last, self.steps + 1, self.rho)[:-1]

    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        return denoised + to * walk.noise(y) if to else denoised
