"""Distributions of the noise level in training: maps from uniform u to sigma, and the discrete schedule of DDPM."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


class NoiseDistribution(ABC):
    """A distribution of sigma in training, given as the inverse of its distribution function."""

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """Maps uniform u in (0, 1) to sigma, both [B]."""


@dataclass(frozen=True)
class LogNormal(NoiseDistribution):
    """ln sigma ~ N(P_mean, P_std^2) (Karras et al. 2022, table 1).

    With mean 0, it is the logit-normal distribution of the time t of rectified flow.
    """

    mean: float
    std: float

    def __call__(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * math.sqrt(2) * (2 * u - 1).erfinv()).exp()


@dataclass(frozen=True)
class UniformTime(NoiseDistribution):
    """t ~ U(0, 1), with sigma = t/(1 - t): the time of rectified flow."""

    def __call__(self, u: Tensor) -> Tensor:
        return u / (1 - u)


@dataclass(frozen=True)
class Schedule(NoiseDistribution):
    """beta_t rises linearly, and t is uniform on {1, ..., T} (Ho et al. 2020, section 4).

        abar_t = prod_s<=t (1 - beta_s),    sigma_t^2 = (1 - abar_t)/abar_t

    Attributes:
        num_steps: T.
        beta_min: beta_1.
        beta_max: beta_T.
    """

    num_steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02

    @cached_property
    def _sigmas(self) -> list[float]:
        sigmas, abar = [], 1.0
        for t in range(self.num_steps):  # plain numbers also exist in a model that is built without memory
            abar *= 1 - self.beta_min - t / (self.num_steps - 1) * (self.beta_max - self.beta_min)
            sigmas.append(math.sqrt((1 - abar) / abar))
        return sigmas

    @property
    def sigma_min(self) -> float:
        """sigma_1."""
        return self._sigmas[0]

    @property
    def sigma_max(self) -> float:
        """sigma_T."""
        return self._sigmas[-1]

    def sigmas(self, device: torch.device | str = "cpu") -> Tensor:
        """sigma_1, ..., sigma_T in ascending order: [T]."""
        return torch.tensor(self._sigmas, device=device)

    def __call__(self, u: Tensor) -> Tensor:
        return self.sigmas(u.device)[(u * self.num_steps).long()]

    def time(self, sigma: Tensor) -> Tensor:
        """t/T, interpolated linearly in ln sigma between steps, and constant beyond the first and last: [B] -> [B]."""
        known, wanted = self.sigmas(sigma.device).log(), sigma.float().log()
        above = (known < wanted[:, None]).sum(1).clamp(1, self.num_steps - 1)  # ONNX has no searchsorted
        low, high = known[above - 1], known[above]
        part = ((wanted - low) / (high - low)).clamp(0, 1)
        return (above + part) / self.num_steps  # known[0] is that of step 1
