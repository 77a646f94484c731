"""Gibbs sampling (Geman & Geman 1984, https://doi.org/10.1109/TPAMI.1984.4767596)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.errors import ConfigError
from zoo.mcmc import run
from zoo.random import Streams
from zoo.samplers.base import Sampler


@dataclass(frozen=True)
class Gibbs(Sampler):
    """Runs a chain from noise: each sweep draws every unit of an energy model given the others.

    The result tends to the model's distribution as the number of sweeps grows. The chain never starts from data.

    Args:
        steps: Number of sweeps.
        temperature: Number by which energies are divided, above 0; below 1, draws are more likely and less varied.

    Raises:
        ConfigError: An argument is out of range.
    """

    steps: int = 1000
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"Gibbs: steps: expected at least 0, found {self.steps}")
        if self.temperature <= 0:
            raise ConfigError(f"Gibbs: temperature: expected more than 0, found {self.temperature}")

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        chain = model.chain(self.temperature, **given)
        return chain.visible(run(chain, chain.start(streams), streams, self.steps), streams)
