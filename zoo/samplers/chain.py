"""The base of all samplers that run a Markov chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.mcmc import MarkovChain, run
from zoo.random import Streams, rand
from zoo.samplers.base import Sampler


@dataclass(frozen=True)
class ChainSampler(Sampler):
    """Runs the Markov chain of a model, by default from noise: draws from a base such as the base rates of the pixels.

    The result tends to the model's distribution as the number of steps grows.

    Args:
        steps: Number of steps of the chain.
        temperature: Number by which energies are divided, above 0; below 1, draws are more likely and less varied.
        start: "noise", or "data" to start each chain from one of `model.examples`, drawn at random. Samples that start
            from data look good after any number of steps, and say little about the model.

    Raises:
        ConfigError: An argument is out of range, or there are no examples to start from.
    """

    steps: int = 1000
    temperature: float = 1.0
    start: Literal["noise", "data"] = "noise"

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.steps < 0:
            raise ConfigError(f"{name}: steps: expected at least 0, found {self.steps}")
        if self.temperature <= 0:
            raise ConfigError(f"{name}: temperature: expected more than 0, found {self.temperature}")
        if self.start not in ("noise", "data"):
            raise ConfigError(f"{name}: start: expected 'noise' or 'data', found {self.start!r}")

    def chain(self, model: Any, **given: Any) -> MarkovChain:
        """The chain of a model at the temperature."""
        chain: MarkovChain = model.chain(self.temperature, **given)
        return chain

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        chain = self.chain(model, **given)
        return chain.visible(run(chain, self._begin(model, chain, streams), streams, self.steps), streams)

    @torch.no_grad()
    def course(self, model: Any, streams: Streams, num_frames: int) -> Tensor:
        """Examples along the chains at equal distances in steps: [num_frames, len(streams), *event_shape]."""
        chain = self.chain(model)
        state, frames = self._begin(model, chain, streams), []
        times = torch.linspace(0, self.steps, num_frames).round().long().tolist()
        for before, after in zip([0, *times], times, strict=False):
            state = run(chain, state, streams, after - before)
            frames.append(chain.visible(state, streams))
        return torch.stack(frames)

    def _begin(self, model: Any, chain: MarkovChain, streams: Streams) -> Tensor:
        if self.start == "noise":
            return chain.start(streams)
        if model.examples is None:
            raise ConfigError(
                f"{type(self).__name__}: start: expected examples in model.examples to start from, found none; set them"
            )
        chosen = (rand((len(streams), 1), streams)[:, 0] * len(model.examples)).long()
        return chain.at(model.examples[chosen].to(model.device), streams)
