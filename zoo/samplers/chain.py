"""What samplers that run a Markov chain share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.errors import ConfigError
from zoo.mcmc import run
from zoo.random import Streams
from zoo.samplers.base import Sampler


@dataclass(frozen=True)
class ChainSampler(Sampler):
    """Runs the chain of a model from noise: from its base distribution, such as the base rates of pixels.

    The result tends to the model's distribution with the number of steps. It never starts from data.

    Args:
        steps: Number of steps of the chain.
        temperature: Number by which energies are divided; below 1, draws are more likely and less varied.

    Raises:
        ConfigError: An argument is out of range.
    """

    steps: int = 1000
    temperature: float = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.steps < 0:
            raise ConfigError(f"{name}: steps: expected at least 0, found {self.steps}")
        if self.temperature <= 0:
            raise ConfigError(f"{name}: temperature: expected more than 0, found {self.temperature}")

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        chain = model.chain(self.temperature, **given)
        return chain.visible(run(chain, chain.start(streams), streams, self.steps), streams)
