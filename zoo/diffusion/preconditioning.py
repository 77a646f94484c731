"""How a network F becomes a denoiser, in the symbols of Karras et al. 2022 (https://arxiv.org/abs/2206.00364, eq. 7).

    D(y; sigma) = c_skip(sigma) y + c_out(sigma) F(c_in(sigma) y; c_noise(sigma))

The loss lambda(sigma) |D(x + sigma epsilon; sigma) - x|^2 has lambda = 1/c_out^2 in all three papers: F learns its own
target with weight 1. Two of them state it in other variables, which a change of scale turns into sigma:

    DDPM              x_t = sqrt(abar_t) x + sqrt(1 - abar_t) epsilon,    sigma^2 = (1 - abar_t)/abar_t
    rectified flow    x_t = (1 - t) x + t epsilon,                        sigma = t/(1 - t)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zoo.diffusion.schedules import Schedule


class Coefficients(NamedTuple):
    """The four functions of sigma, each [B]."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor


class Preconditioning(ABC):
    """A choice of the four functions."""

    @abstractmethod
    def __call__(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at each noise level: [B] -> four tensors, [B] each."""

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight lambda(sigma) of the loss: [B] -> [B]."""
        return self(sigma).out ** -2


@dataclass(frozen=True)
class EDM(Preconditioning):
    """The input and target of F have variance 1 at every sigma, and errors of F are amplified as little as possible.

    Attributes:
        sigma_data: Standard deviation of the states without noise.
    """

    sigma_data: float

    def __call__(self, sigma: Tensor) -> Coefficients:
        variance = sigma**2 + self.sigma_data**2
        return Coefficients(
            skip=self.sigma_data**2 / variance,
            out=sigma * self.sigma_data / variance.sqrt(),
            input=variance.rsqrt(),
            noise=sigma.log() / 4,
        )


@dataclass(frozen=True)
class NoisePrediction(Preconditioning):
    """F predicts epsilon from x_t (Ho et al. 2020, https://arxiv.org/abs/2006.11239, eq. 14).

    Attributes:
        schedule: Schedule that maps each sigma to its step t; F is given t/T.
    """

    schedule: Schedule

    def __call__(self, sigma: Tensor) -> Coefficients:
        return Coefficients(
            skip=sigma**0,
            out=-sigma,
            input=(1 + sigma**2).rsqrt(),  # sqrt(abar_t): the state y is x_t/sqrt(abar_t)
            noise=self.schedule.time(sigma),
        )


@dataclass(frozen=True)
class Velocity(Preconditioning):
    """F predicts epsilon - x from x_t (Liu et al. 2023, https://arxiv.org/abs/2209.03003, eq. 1, reversed)."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        rest = 1 / (1 + sigma)  # 1 - t
        return Coefficients(skip=rest, out=-sigma * rest, input=rest, noise=sigma * rest)  # the state y is x_t/(1 - t)
