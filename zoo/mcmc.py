"""Markov chains, and the estimates of log Z that they give."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from zoo.random import Streams


class MarkovChain(Protocol):
    """A chain that leaves exp(-energy(state, beta)) invariant at every inverse temperature beta in [0, 1].

    At beta = 0 it is a base distribution from which one can draw and whose log Z is known; at beta = 1 it is the model.
    A state is a tensor whose first dimension counts parallel chains: visible and hidden units, as the model needs.
    """

    log_z_base: float
    """log Z at beta = 0, in nats."""

    def start(self, streams: Streams) -> Tensor:
        """Exact draws at beta = 0, one per stream: [B, ...]."""

    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        """The energy of states at an inverse temperature, in nats: [B, ...] -> [B]."""

    def step(self, state: Tensor, streams: Streams, beta: float = 1.0) -> Tensor:
        """One sweep: [B, ...] -> [B, ...]."""

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        """Data drawn given states at beta = 1: [B, ...] -> [B, *event_shape]."""
