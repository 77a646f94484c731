"""Flow matching along straight lines: rectified flow (Liu et al. 2023, https://arxiv.org/abs/2209.03003).

    x_t = (1 - t) x + t epsilon,    dx_t/dt = E[epsilon - x | x_t]                                               (eq. 2)
    minimise  E[|F(x_t; t) - (epsilon - x)|^2],    t ~ U(0, 1)                                                   (eq. 1)

In units of sigma = t/(1 - t), with y = x_t/(1 - t), the model is the denoiser D(y; sigma) = x_t - t F, and its ODE is
the probability-flow ODE: one step of Euler's method in sigma is one step in t.

Density: lower bound, of 8-bit images or of points; one evaluation for an unbiased estimate. The ODE estimates the
density itself: see `zoo.diffusion.likelihood`.
Sampling: steps of a sampler.
Differs from the paper: time runs from data to noise, as in other diffusion models; no reflow, which straightens the
paths; a bound of the density, from the same denoiser; Muon with a rate that falls linearly; averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from zoo.config import Between, Size
from zoo.diffusion.denoiser import DiffusionModel
from zoo.diffusion.preconditioning import Velocity
from zoo.diffusion.schedules import UniformTime


class FlowMatching(DiffusionModel):
    """A network that predicts the velocity from data to noise.

    Args:
        event_shape: (C, H, W) for images in [0, 1], with sides that are multiples of 2^(levels - 1), or (D,) for
            points.
        channels: Widths of the levels of the U-Net from the finest, or of the blocks of the MLP for points.
        time_min: Time t at which samplers stop by default, before the step to 0.
        time_max: Time t at which samplers begin by default.
    """

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        channels: Sequence[Size] = (16, 32, 64),
        time_min: Annotated[float, Between(1e-6, 0.5)] = 0.002,
        time_max: Annotated[float, Between(0.5, 0.999999)] = 0.99,
    ) -> None:
        super().__init__(Velocity(), UniformTime(), event_shape, channels)
        self.save_hyperparameters()
        self.sigma_min = self.sigma_bound = time_min / (1 - time_min)
        self.sigma_max = time_max / (1 - time_max)
