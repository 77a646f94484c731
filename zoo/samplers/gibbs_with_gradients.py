"""Gibbs with gradients (Grathwohl et al. 2021, https://arxiv.org/abs/2102.04509), for binary pixels.

    d_i(x) = (2 x_i - 1) dE/dx_i        how much a flip of pixel i lowers the energy, to first order
    q(i | x) = softmax(d(x)/2)_i        the pixel that a step proposes to flip

The flip is accepted or not as in `zoo.samplers.metropolis`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.mcmc import MarkovChain, accepted
from zoo.random import Streams, rand
from zoo.samplers.chain import ChainSampler

Look = tuple[Tensor, Tensor]
"""The energies of states, [B], and log q(i | x), [B, D]."""


class GibbsWithGradients(ChainSampler):
    """Runs a Markov chain in which each step flips at most one pixel, at the price of one gradient of the energy."""

    def chain(self, model: Any, **given: Any) -> MarkovChain:
        return FlippingChain(super().chain(model, **given))


class FlippingChain:
    """A `MarkovChain` with the states and energies of another chain, and steps of its own.

    Args:
        chain: A chain whose states are binary pixels, [B, D], and whose energy has gradients.
    """

    def __init__(self, chain: MarkovChain) -> None:
        self.inner = chain
        self.log_z_base = chain.log_z_base
        self._last: tuple[Tensor, float, Look] | None = None

    def start(self, streams: Streams) -> Tensor:
        return self.inner.start(streams)

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        return self.inner.at(x, streams)

    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        return self.inner.energy(state, beta)

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return self.inner.visible(state, streams)

    def step(self, state: Tensor, streams: Streams, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
        """One proposed flip; a step costs one gradient, since that of the last state is kept."""
        is_kept = self._last is not None and self._last[0] is state and self._last[1] == beta
        here = self._last[2] if self._last is not None and is_kept else self._look(state, beta)
        forth = here[1] if known is None else _among(here[1], ~known)
        chosen = (rand((len(state), 1), streams, state.device) >= forth.exp().cumsum(1)).sum(1, keepdim=True)
        chosen = chosen.clamp(max=state.shape[1] - 1)
        proposed = state.scatter(1, chosen, 1 - state.gather(1, chosen))
        there = self._look(proposed, beta)
        back = there[1] if known is None else _among(there[1], ~known)
        ratio = here[0] - there[0] + (back - forth).gather(1, chosen)[:, 0]
        moved = accepted(state, proposed, ratio, streams)
        is_new = (moved == proposed).all(1)
        look = torch.where(is_new, there[0], here[0]), torch.where(is_new[:, None], there[1], here[1])
        self._last = moved, beta, look
        return moved

    def _look(self, state: Tensor, beta: float) -> Look:
        with torch.inference_mode(False), torch.enable_grad():
            x = state.clone().requires_grad_()
            energy = self.inner.energy(x, beta)
            (slope,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), ((state - 0.5) * slope).log_softmax(1)


def _among(log_q: Tensor, choices: Tensor) -> Tensor:
    """log q given that one of the `choices` is chosen, bool [B, D]; NaN if there is none: then no flip is accepted."""
    return torch.where(choices, log_q, -torch.inf).log_softmax(1)
