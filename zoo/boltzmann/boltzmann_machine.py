"""Boltzmann machine (Ackley, Hinton & Sejnowski 1985, https://doi.org/10.1207/s15516709cog0901_7).

    p(y) = exp(-E(y)/T)/Z,    E(y) = -1/2 y'Wy - b'y,    y in {0, 1}^N: all pixels x and hidden units h
    p(y_i = 1 | the others) = sigmoid((W_i'y + b_i)/T)
    energy(x) = -log sum_h exp(-E(x, h)/T)

W is symmetric, and its diagonal is zero.

Density: unnormalised; log Z is exact for at most 20 units.
Sampling: a Gibbs chain; a sweep draws one unit after another.
Differs from the paper: up to 20 units, the gradient is exact, by sums over all states; beyond, chains persist.
Adam with a rate that falls linearly; averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import objectives
from zoo.boltzmann.units import MAX_ENUMERATED, bit_states, draw_bits
from zoo.capabilities import Completable, Filtered, UnnormalizedDensity
from zoo.config import Between, Size
from zoo.mcmc import run_clamped
from zoo.nn.precision import widest
from zoo.random import Streams, rand
from zoo.samplers.gibbs import Gibbs


class BoltzmannMachine(UnnormalizedDensity, Completable, Filtered):
    """A Boltzmann machine: binary pixels and hidden units, each linked to all others.

    `complete` draws by Gibbs sampling with the known pixels held: approximately, by chains of `fill_steps` sweeps.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        num_hidden: Number of hidden units. `energy` sums over all their states.
        temperature: T. It scales what a parameter does, and so the steps of training; a sampler has a temperature of
            its own, by which energies are divided once more.
        cd_steps: Number of sweeps of the chains between two steps of training, if there are more than 20 units.
        num_chains: Number of persistent chains, likewise.

    Attributes:
        fill_steps: Number of sweeps of a completion.
    """

    facts: ClassVar = {"latents": "code"}
    levels = 2
    samplers = (Gibbs,)
    fill_steps = 500
    unrounded = ("base",)
    base: Tensor

    lacks_onnx = True  # a shift of bits

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 4, 4),
        num_hidden: Annotated[int, Between(0, 12)] = 0,
        temperature: Annotated[float, Between(1e-3, 1e3)] = 1.0,
        cd_steps: Annotated[int, Between(1, 10_000)] = 1,
        num_chains: Annotated[int, Between(0, 100_000)] = 100,
    ) -> None:
        num_visible = math.prod(event_shape)
        num_units = num_visible + num_hidden
        if num_units <= MAX_ENUMERATED:
            self.objective = objectives.Enumeration()
        else:
            self.objective = objectives.ContrastiveDivergence(cd_steps, num_chains)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.num_hidden = num_hidden
        self.temperature = temperature
        self.couplings = nn.Parameter(0.1 * torch.randn(num_units * (num_units - 1) // 2))  # W above its diagonal
        self.bias = nn.Parameter(torch.zeros(num_units))
        self.register_buffer("base", torch.zeros(num_visible))  # logits of the mean of each pixel, where chains start

    @property
    def filters(self) -> Tensor:
        return self.weight[math.prod(self.event_shape) :, : math.prod(self.event_shape)].reshape(-1, *self.event_shape)

    @property
    def weight(self) -> Tensor:
        """W, [N, N]."""
        num_units = len(self.bias)
        rows, columns = torch.triu_indices(num_units, num_units, 1, device=self.bias.device)
        upper = torch.zeros(num_units, num_units, dtype=self.bias.dtype, device=self.bias.device)
        upper = upper.index_put((rows, columns), self.couplings)
        return upper + upper.T

    def set_base_rates(self, mean: Tensor) -> None:
        self.base.copy_(mean.flatten().logit())

    def energy(self, x: Tensor) -> Tensor:
        weight, x = self.weight, x.flatten(1)
        visible, hidden = slice(0, x.shape[1]), slice(x.shape[1], None)
        h = self._hidden_states()  # [2^H, H]
        of_x = _log_weight(x, weight[visible, visible], self.bias[visible])
        of_h = _log_weight(h, weight[hidden, hidden], self.bias[hidden])
        return -(of_x[:, None] + x @ weight[visible, hidden] @ h.T + of_h).div(self.temperature).logsumexp(1)

    def chain(self, temperature: float = 1.0) -> BoltzmannChain:
        return BoltzmannChain(self, self.temperature * temperature)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        return run_clamped(self.chain(), x, known, streams, self.fill_steps)

    def exact_log_z(self) -> Tensor | None:
        if len(self.bias) > MAX_ENUMERATED:
            return None
        blocks = bit_states(math.prod(self.event_shape), like=self.bias)
        return torch.cat(
            [-widest(self.energy(x.view(-1, *self.event_shape).to(self.bias.dtype))) for x in blocks]
        ).logsumexp(0)

    def _hidden_states(self) -> Tensor:
        return torch.cat(list(bit_states(self.num_hidden, like=self.bias))).to(self.bias.dtype)


def _log_weight(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1/2 y'Wy + b'y: [B, N] -> [B]."""
    return (y @ weight * y).sum(1) / 2 + y @ bias


class BoltzmannChain:
    """The `MarkovChain` of a Boltzmann machine: states are all units, [B, N], pixels first.

    At inverse temperature beta its energy is -(1 - beta) m'x + beta E(y)/T; at 0, pixels are independent at their base
    rates m, and hidden units at one half.

    Args:
        model: The machine. Changes of its parameters make the chain invalid.
        temperature: T, the number by which its energies are divided.
    """

    def __init__(self, model: BoltzmannMachine, temperature: float) -> None:
        self.event_shape = model.event_shape
        self.weight, self.bias = model.weight.detach() / temperature, model.bias.detach() / temperature
        self.base = F.pad(model.base, (0, model.num_hidden))
        self.hidden_states = model._hidden_states()
        self.log_z_base = F.softplus(widest(self.base)).sum().item()

    def start(self, streams: Streams) -> Tensor:
        return draw_bits(self.base.expand(len(streams), -1), streams)

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        x, h = x.flatten(1), self.hidden_states
        hidden = slice(x.shape[1], None)
        logits = x @ self.weight[: x.shape[1], hidden] @ h.T + _log_weight(
            h, self.weight[hidden, hidden], self.bias[hidden]
        )
        chosen = (rand((len(x), 1), streams, x.device) >= logits.softmax(1).cumsum(1)).sum(1)
        return torch.cat([x, h[chosen.clamp(max=len(h) - 1)]], 1)

    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        mixed = (1 - beta) * (state @ self.base) + beta * _log_weight(state, self.weight, self.bias)
        return -widest(mixed)

    def step(self, state: Tensor, streams: Streams, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
        y, noise = state.clone(), rand(tuple(state.shape), streams, state.device)
        for i, (weight, bias, base) in enumerate(zip(self.weight, self.bias, self.base, strict=True)):
            logits = (1 - beta) * base + beta * (y @ weight + bias)
            drawn = (noise[:, i] < logits.sigmoid()).to(y.dtype)
            y[:, i] = drawn if known is None else torch.where(known[:, i], y[:, i], drawn)
        return y

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return state[:, : math.prod(self.event_shape)].reshape(-1, *self.event_shape)
