"""Heun's method for the probability-flow ODE (Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1)."""

from dataclasses import dataclass

from torch import Tensor

from zoo.samplers.denoising import DenoisingSampler, Walk


@dataclass(frozen=True)
class Heun(DenoisingSampler):
    """Follows the mean of the tangents at both ends of a step; of order 2. The last step is one of Euler's method.

    Every step but the last evaluates the network twice.
    """

    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        slope = (y - denoised) / sigma
        end = y + (to - sigma) * slope
        if not to:
            return end
        return y + (to - sigma) * (slope + (end - walk.denoise(end, to)) / to) / 2

    @property
    def evaluations(self) -> int:
        return super().evaluations // self.steps * (2 * self.steps - 1)
