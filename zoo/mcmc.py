"""Markov chains, and annealed importance sampling, which estimates log Z with them.

AIS (Neal 2001, https://doi.org/10.1023/A:1008923215028) moves a state from the base distribution p_0 to the model p_1
through the distributions p_b(s) = exp(-E(s, b))/Z_b of a chain at inverse temperatures 0 = b_0 < ... < b_T = 1:

    s_0 ~ p_0,    s_t = step(s_{t-1}, b_t),    log w = sum_t E(s_{t-1}, b_{t-1}) - E(s_{t-1}, b_t)
    E[w] = Z_1/Z_0

By Jensen's inequality, log mean w underestimates log(Z_1/Z_0) on average, which flatters a model. The same walk from
p_1 to p_0 has E[w] = Z_0/Z_1, and its estimate of log Z errs to the other side (Burda et al. 2015,
https://arxiv.org/abs/1412.8566; Grosse et al. 2015, https://arxiv.org/abs/1511.02543).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from zoo.nn.precision import widest_dtype
from zoo.progress import steps as progress
from zoo.random import Streams, rand


class MarkovChain(Protocol):
    """A chain that leaves exp(-energy(state, beta)) invariant at every inverse temperature beta in [0, 1].

    At beta = 0 it is a base distribution from which one can draw and whose log Z is known; at beta = 1 it is the model.
    States are [B, N], one row for each parallel chain: the visible units, then as many of the hidden ones as the model
    does not sum out.
    """

    log_z_base: float
    """log Z at beta = 0, in nats."""

    def start(self, streams: Streams) -> Tensor:
        """Exact draws at beta = 0, one per stream: [B, ...]."""

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        """States with the visible units x, the hidden ones drawn given x: [B, *event_shape] -> [B, ...]."""

    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        """The energy of states at an inverse temperature, in nats: [B, ...] -> [B]."""

    def step(self, state: Tensor, streams: Streams, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
        """One sweep over all units: [B, ...] -> [B, ...], a new tensor.

        Units at which `known`, bool [B, ...], is True keep their values, and the sweep leaves the distribution of the
        others given these invariant.
        """

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        """Data drawn given states at beta = 1: [B, ...] -> [B, *event_shape]."""


def run(chain: MarkovChain, state: Tensor, streams: Streams, steps: int, known: Tensor | None = None) -> Tensor:
    """Moves states by a number of sweeps at beta = 1: [B, ...] -> [B, ...].

    Args:
        chain: The chain.
        state: Where it starts.
        streams: Noise, one stream per state.
        steps: Number of sweeps.
        known: bool [B, ...], True at units that keep their values.
    """
    for _ in progress(range(steps), "sweep"):
        state = chain.step(state, streams, known=known)
    return state


def run_clamped(chain: MarkovChain, x: Tensor, known: Tensor, streams: Streams, steps: int) -> Tensor:
    """Draws unknown pixels given the known ones, by sweeps that start from noise and hold what is known.

    Args:
        chain: The chain.
        x: Examples, [B, *event_shape].
        known: bool [B, *event_shape], True where a pixel is known.
        streams: Noise, one stream per example.
        steps: Number of sweeps.

    Returns:
        [B, *event_shape].
    """
    start = chain.start(streams)
    num_others = start.shape[1] - x[0].numel() if len(x) else 0
    mask = pad(known.flatten(1), (0, num_others))
    start = torch.where(mask, pad(x.flatten(1), (0, num_others)), start)
    return chain.visible(run(chain, start, streams, steps, mask), streams)


@dataclass(frozen=True)
class LogZ:
    """An estimate of log Z from independent weighted runs.

    Attributes:
        base: log Z of the base distribution, in nats.
        log_weights: log w of each run, [R], float64.
        is_reverse: Whether the runs went from the model to the base distribution.
        states: Where the runs ended, [R, ...], if they are kept.
    """

    base: float
    log_weights: Tensor
    is_reverse: bool = False
    states: Tensor | None = None

    @property
    def estimate(self) -> float:
        """log Z in nats: too low on average by runs from the base distribution, too high by runs in reverse."""
        log_mean = (self.log_weights.logsumexp(0) - math.log(len(self.log_weights))).item()
        return self.base - log_mean if self.is_reverse else self.base + log_mean

    @property
    def error(self) -> float:
        """One standard error of the estimate in nats, from the spread of the weights."""
        num, squares = len(self.log_weights), self.log_weights.softmax(0).square().sum().item()
        return math.sqrt(max(0.0, num * squares - 1) / max(1, num - 1))

    @property
    def effective_runs(self) -> float:
        """(sum w)^2/sum w^2. The estimate and its error mean little below a tenth of the runs."""
        return 1 / self.log_weights.softmax(0).square().sum().item()


def annealed_importance_sampling(
    chain: MarkovChain,
    num_runs: int = 500,
    num_temperatures: int = 10_000,
    *,
    seed: int = 0,
    batch_size: int = 500,
    index: Tensor | None = None,
) -> LogZ:
    """Estimates log Z by runs from the base distribution to the model, at equally spaced inverse temperatures.

    Args:
        chain: The chain of the model.
        num_runs: Number of independent runs.
        num_temperatures: Number of sweeps of a run.
        seed: Seed for all random draws.
        batch_size: Number of runs computed at once; bounds the memory.
        index: Which of the runs to compute, int64; by default all.

    Returns:
        The estimate. The runs end near, but not in, the model's distribution; see `resampled`.
    """
    betas = [t / num_temperatures for t in range(num_temperatures + 1)]
    parts = []
    for rows in progress((torch.arange(num_runs) if index is None else index).split(batch_size), "block"):
        streams = Streams(seed, rows)
        parts.append(_anneal(chain, chain.start(streams), streams, betas))
    log_weights, states = (torch.cat(part) for part in zip(*parts, strict=True))
    return LogZ(chain.log_z_base, log_weights, False, states)


def reverse_annealed_importance_sampling(
    chain: MarkovChain,
    states: Tensor,
    num_temperatures: int = 10_000,
    *,
    seed: int = 0,
    batch_size: int = 500,
    index: Tensor | None = None,
) -> LogZ:
    """Estimates log Z by runs from the model to the base distribution.

    Args:
        chain: The chain of the model.
        states: One state for each run, [R, ...], from the model's distribution: exact samples, or the ends of chains
            that have run long enough. From other states the estimate is worth nothing.
        num_temperatures, seed, batch_size, index: As in `annealed_importance_sampling`.
    """
    betas = [t / num_temperatures for t in range(num_temperatures, -1, -1)]
    parts = []
    for rows in progress((torch.arange(len(states)) if index is None else index).split(batch_size), "block"):
        parts.append(_anneal(chain, states[rows], Streams(seed, rows, step=1), betas))
    log_weights, ends = (torch.cat(part) for part in zip(*parts, strict=True))
    return LogZ(chain.log_z_base, log_weights, True, ends)


@torch.no_grad()
def _anneal(chain: MarkovChain, state: Tensor, streams: Streams, betas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Log-weights, float64 on the CPU, and the last states of a walk through the inverse temperatures."""
    log_weights = torch.zeros(len(state), dtype=widest_dtype(state.device), device=state.device)
    for before, after in progress(list(pairwise(betas)), "temperature"):
        log_weights += chain.energy(state, before) - chain.energy(state, after)
        state = chain.step(state, streams, after)
    return log_weights.cpu(), state


def resampled(log_z: LogZ, seed: int = 0) -> Tensor:
    """The last states of runs, each as often as its weight says: [R, ...], nearer to the model than all alike."""
    assert log_z.states is not None, "the states of these runs are not kept"
    share = log_z.log_weights.softmax(0).cumsum(0)
    offset = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = (torch.arange(len(share)) + offset) / len(share)
    return log_z.states[torch.searchsorted(share, points).clamp(max=len(share) - 1)]


def accepted(state: Tensor, proposed: Tensor, log_ratio: Tensor, streams: Streams) -> Tensor:
    """Proposals where they are accepted, with probability min(1, exp(log_ratio)), else the states: [B, ...].

    Args:
        state, proposed: [B, ...].
        log_ratio: log of p(x') r(x | x')/(p(x) r(x' | x)) for proposals x' drawn from r(x' | x), [B].
        streams: Noise, one stream per state.
    """
    is_accepted = rand((len(state), 1), streams, state.device).log() < log_ratio[:, None]
    return torch.where(is_accepted, proposed, state)
