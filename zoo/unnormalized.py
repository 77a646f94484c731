"""Capabilities of models whose densities are known up to a constant; see `zoo.capabilities`."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo import objectives
from zoo.module import GenerativeModel, Sampled
from zoo.random import Source, Streams

if TYPE_CHECKING:
    from zoo.mcmc import MarkovChain


class Unnormalized(Sampled):
    """A density up to its normaliser Z, which is not known. A Markov chain draws.

    Attributes:
        chains: States of the persistent chains of training; kept in the run's checkpoints, not among the weights.
        examples: Examples from which chains start if the sampler says so, [N, *event_shape]; None until they are set.
    """

    objective: objectives.Objective = objectives.ContrastiveDivergence()
    facts: ClassVar = {"density": "unnormalised", "generator": "chain"}
    chains: Tensor | None = None
    examples: Tensor | None = None

    @abstractmethod
    def chain(self, temperature: float = 1.0) -> MarkovChain:
        """A chain whose states have the model's distribution, energies divided by `temperature`; see `zoo.mcmc`."""

    @abstractmethod
    def training_energy(self, x: Tensor, streams: Streams) -> Tensor:
        """What training makes small for data, in nats, the state of hidden units being given: [B, *event_shape] -> [B].

        Its gradient does not depend on Z.
        """

    @abstractmethod
    def state_energy(self, states: Tensor) -> Tensor:
        """What training makes large for states of `chain`, in nats: [B, N] -> [B]."""

    def contrast(self, x: Tensor, states: Tensor, streams: Streams) -> Tensor:
        """The mean of `training_energy` over data minus that of `state_energy` over states, a scalar."""
        return self.training_energy(x, streams).mean() - self.state_energy(states).mean()

    def exact_log_z(self) -> Tensor | None:
        """log Z in nats, a scalar in float64, if it can be summed over all states; else None."""
        return None

    def base_units(self, x: Tensor) -> Tensor:
        """The units whose means `set_base_rates` takes: [B, *event_shape] -> [B, ...], x itself by default."""
        return x

    def set_base_rates(self, mean: Tensor) -> None:
        """Takes the mean of `base_units` over the training examples, before the first step; does nothing by default."""


class Filtered(GenerativeModel):
    """Hidden units that see every value of an example through a matrix of weights."""

    @property
    @abstractmethod
    def filters(self) -> Tensor:
        """The weights of each hidden unit, [H, *event_shape]."""


class UnnormalizedDensity(Unnormalized):
    """An energy: log p(x) = -energy(x) - log Z."""

    usage: ClassVar = {"energy": "energy = model.energy(x{labels})  # [8], nats, up to a constant"}

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """-log p(x) up to a constant, in nats, with hidden units summed out: [B, *event_shape] -> [B]."""

    def training_energy(self, x: Tensor, streams: Streams) -> Tensor:
        return self.energy(x)

    def state_energy(self, states: Tensor) -> Tensor:
        return self.energy(self._visible(states))

    def contrast(self, x: Tensor, states: Tensor, streams: Streams) -> Tensor:
        """One pass for both takes less time than two."""
        of_data, of_states = self.energy(torch.cat([x, self._visible(states)])).split([len(x), len(states)])
        return of_data.mean() - of_states.mean()

    def _visible(self, states: Tensor) -> Tensor:
        return states[:, : math.prod(self.event_shape)].view(-1, *self.event_shape)


class UnnormalizedBound(Unnormalized):
    """An energy whose hidden units cannot be summed out; importance samples of them bound log p(x) + log Z.

    The bound and log Z are estimated apart. As log Z is an estimate, so is the likelihood.
    """

    facts: ClassVar = {"density": "unnormalised, lower bound, tightens with samples"}
    usage: ClassVar = {"log_weights": "log_weights = model.log_weights(x, 100)  # [100, 8], nats, up to a constant"}

    @abstractmethod
    def log_weights(self, x: Tensor, num_samples: int, *, generator: Source = None) -> Tensor:
        """Logarithms of unbiased estimates of Z p(x), from independent draws of hidden units given x, in nats.

        [B, *event_shape] -> [num_samples, B]. Their mean is a lower bound of log p(x) + log Z on average, and so is
        logsumexp over the first dimension minus log num_samples, which is tighter.
        """
