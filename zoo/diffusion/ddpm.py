"""DDPM, denoising diffusion probabilistic models (Ho et al. 2020, https://arxiv.org/abs/2006.11239).

    x_t = sqrt(abar_t) x + sqrt(1 - abar_t) epsilon,    abar_t = prod_s<=t (1 - beta_s)                          (eq. 4)
    minimise  E[|F(x_t; t) - epsilon|^2],    t uniform on {1, ..., T}                                           (eq. 14)

In units of sigma_t = sqrt((1 - abar_t)/abar_t), with y = x_t/sqrt(abar_t), the model is the denoiser
D(y; sigma) = y - sigma F.

Density: lower bound, of 8-bit images or of points; one evaluation for an unbiased estimate.
Sampling: steps of a sampler; by default 20 of DPM-Solver++ for images, and 200 of ancestral sampling for points.
Differs from the paper: the network is given t/T, and also times between the steps, so that it works with every sampler;
the default samplers take fewer steps, the ancestral one with the smaller of the paper's two variances; the bound is in
continuous time; small networks without attention, which normalise each pixel over its channels, not in groups; Muon
with a rate that falls linearly; averaged weights. Checkpoints continue from the weights of an earlier run, that of
MNIST from the one of Fashion-MNIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from zoo.config import Between, Size
from zoo.diffusion.denoiser import DiffusionModel
from zoo.diffusion.preconditioning import NoisePrediction
from zoo.diffusion.schedules import Schedule
from zoo.errors import ConfigError
from zoo.samplers.ancestral import Ancestral
from zoo.samplers.base import Sampler
from zoo.samplers.dpm import DPMSolver

Beta = Annotated[float, Between(1e-8, 0.999)]


class DDPM(DiffusionModel):
    """A network that predicts the noise.

    Args:
        event_shape: (C, H, W) for images in [0, 1], with sides that are multiples of 2^(levels - 1), or (D,) for
            points.
        channels: Widths of the levels of the U-Net from the finest, or of the blocks of the MLP for points.
        num_steps: Number of steps T.
        beta_min: beta_1.
        beta_max: beta_T; beta_t rises linearly from beta_1 to beta_T.

    Raises:
        ConfigError: beta_max is smaller than beta_min, or T is 1.
    """

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        channels: Sequence[Size] = (16, 32, 64),
        num_steps: Size = 1000,
        beta_min: Beta = 1e-4,
        beta_max: Beta = 0.02,
    ) -> None:
        if num_steps < 2 or beta_max < beta_min:
            raise ConfigError(
                f"DDPM: expected two steps or more, and beta_min of at most beta_max, found {num_steps} steps from "
                f"{beta_min} to {beta_max}"
            )
        schedule = Schedule(num_steps, beta_min, beta_max)
        super().__init__(NoisePrediction(schedule), schedule, event_shape, channels)
        self.save_hyperparameters()
        self.sigma_min = self.sigma_bound = schedule.sigma_min
        self.sigma_max = schedule.sigma_max

    @property
    def sampler(self) -> Sampler:
        return DPMSolver(steps=20) if self.is_image else Ancestral(steps=200)
