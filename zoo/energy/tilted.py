"""A known density times a learned factor, and its Markov chain.

p(x) = q(x) exp(-U(x))/Z,    energy(x) = U(x) - log q(x)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from zoo.boltzmann.units import MAX_ENUMERATED, bit_states
from zoo.capabilities import TractableDensity, UnnormalizedDensity, ZooModule
from zoo.mcmc import accepted
from zoo.nn.precision import widest
from zoo.random import Streams, randn

GRID = 512
"""Number of points along each axis of the grid on which Z is integrated, in up to two dimensions."""
REACH = 8.0
"""Half of the width of that grid, in standard deviations of q."""


Terms: TypeAlias = tuple[Tensor, Tensor]
"""U and log q of states, [B] each, float64."""


class Tilted(UnnormalizedDensity):
    """A density q, which stays as it is, tilted by exp(-U). With trained weights of q, U begins at zero.

    Attributes:
        reference: q, from which one can draw.
    """

    reference: TractableDensity

    @abstractmethod
    def potential(self, x: Tensor) -> Tensor:
        """U(x) in nats, [B, *event_shape] -> [B]."""

    def energy(self, x: Tensor) -> Tensor:
        return self.potential(x) - self.reference.log_prob(x)

    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes a trained model of the same class, or the one that is q."""
        if type(start) is not type(self.reference):
            return super().take_weights(start)
        return self.reference.load_state_dict(start.state_dict(), strict=False).unexpected_keys

    def exact_log_z(self) -> Tensor | None:
        size = math.prod(self.event_shape)
        if self.levels == 2 and size <= MAX_ENUMERATED:
            blocks = bit_states(size, like=torch.empty(0, device=self.device))
            return torch.cat([-widest(self.energy(self._shaped(x))) for x in blocks]).logsumexp(0)
        if self.levels is None and size <= 2:
            x = self.reference.sample(10_000, generator=torch.Generator().manual_seed(0))
            loc, half = x.mean(0), REACH * x.std(0)
            ticks = torch.linspace(-1, 1, GRID, device=self.device)
            points = loc + half * torch.cartesian_prod(*[ticks] * size).view(-1, size)
            total = torch.cat([-widest(self.energy(part)) for part in points.split(2**16)]).logsumexp(0)
            return total + widest(2 * half / (GRID - 1)).log().sum()
        return None

    def _shaped(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).view(-1, *self.event_shape)


class TiltedChain:
    """The `MarkovChain` of a tilted density: states are examples, [B, D].

    A step proposes a new draw from q, whatever the state. For real numbers, a second proposal is a step of Langevin
    dynamics. At inverse temperature beta the energy is -(1 - beta) log q + beta energy/temperature.

    Args:
        model: The density. Changes of its parameters make the chain invalid.
        temperature: Number by which its energies are divided.
        step_size: Standard deviation of the noise of a step of Langevin dynamics; None for none.
    """

    log_z_base = 0.0

    def __init__(self, model: Tilted, temperature: float = 1.0, step_size: float | None = None) -> None:
        self.model = model
        self.temperature = temperature
        self.step_size = step_size
        self._last: tuple[Tensor, Terms] | None = None

    def start(self, streams: Streams) -> Tensor:
        return self.model.reference.draw(streams).flatten(1)

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        return x.flatten(1)

    @torch.no_grad()
    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        return self._mixed(self._terms(state), beta)

    @torch.no_grad()
    def step(self, state: Tensor, streams: Streams, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
        assert known is None, "a draw from q replaces all values"
        before, proposed = self._terms(state), self.start(streams)
        after = self._compute(proposed)

        def ratio(terms: Terms) -> Tensor:
            return self._mixed(terms, beta) + terms[1]

        moved = accepted(state, proposed, ratio(before) - ratio(after), streams)
        if self.step_size is not None:
            return langevin(lambda x: self._mixed(self._compute(x), beta), moved, streams, self.step_size)
        is_new = (moved == proposed).all(1)
        self._last = moved, (torch.where(is_new, after[0], before[0]), torch.where(is_new, after[1], before[1]))
        return moved

    def _mixed(self, terms: Terms, beta: float) -> Tensor:
        potential, log_q = terms
        return beta / self.temperature * potential - (1 - beta + beta / self.temperature) * log_q

    def _terms(self, state: Tensor) -> Terms:
        """`_compute`. That of the last state is kept: chains and AIS ask for it again."""
        if self._last is None or self._last[0] is not state:
            self._last = state, self._compute(state)
        return self._last[1]

    def _compute(self, state: Tensor) -> Terms:
        x = self.model._shaped(state)
        return widest(self.model.potential(x)), widest(self.model.reference.log_prob(x))

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return state.view(-1, *self.model.event_shape)


def langevin(energy: Callable[[Tensor], Tensor], state: Tensor, streams: Streams, size: float) -> Tensor:
    """A step of Metropolis-adjusted Langevin dynamics: [B, D] -> [B, D]."""

    def drift(state: Tensor) -> tuple[Tensor, Tensor]:
        """Energies [B], and the means of proposals [B, D]."""
        with torch.inference_mode(False), torch.enable_grad():
            x = state.clone().requires_grad_()
            values = energy(x)
            (gradient,) = torch.autograd.grad(values.sum(), x)
        return values.detach(), state - size**2 / 2 * gradient

    before, mean = drift(state)
    proposed = mean + size * randn(tuple(state.shape), streams, state.device)
    after, back = drift(proposed)
    forth = (proposed - mean).square().sum(1) - (state - back).square().sum(1)
    return accepted(state, proposed, before - after + widest(forth) / (2 * size**2), streams)
