"""Restricted Boltzmann machine (Smolensky 1986; Hinton 2002, https://doi.org/10.1162/089976602760128018).

    p(x) = sum_h exp(-E(x, h))/Z,    x in {0, 1}^D,  h in {0, 1}^H
    E(x, h) = -(m + b)'x - (h - 1/2)'a(x),    a(x) = c + W (x - sigmoid(m))
    energy(x) = -log sum_h exp(-E(x, h)) = -(m + b)'x - sum_j log(2 cosh(a_j(x)/2))
    p(h_j = 1 | x) = sigmoid(a_j(x)),    p(x_i = 1 | h) = sigmoid(m_i + b_i + W_i'(h - 1/2))

Density: unnormalised; log Z is exact for at most 20 hidden or visible units, else estimated by annealed importance
    sampling from the base rates.
Sampling: a Gibbs chain; a sweep draws all hidden units, then all pixels, two matrix products.
Differs from the paper: units are centred (Montavon & Mueller 2012, https://doi.org/10.1007/978-3-642-35289-8_33). m are
    the base rates, logits of the mean of each pixel over the training images. This only renames the biases, b' = m + b
    - W'1/2 and c' = c - W sigmoid(m), but their gradients no longer pull at W. Chains persist (Tieleman 2008,
    https://doi.org/10.1145/1390156.1390290) unless `num_chains` is 0. The rate falls linearly; weights
    decay, and are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import objectives
from zoo.boltzmann.units import MAX_ENUMERATED, bit_states, draw_bits, log_two_cosh
from zoo.capabilities import Completable, Filtered, UnnormalizedDensity
from zoo.config import Between, Size
from zoo.mcmc import run_clamped
from zoo.nn.precision import widest, widest_dtype
from zoo.random import Streams
from zoo.samplers.gibbs import Gibbs
from zoo.samplers.gibbs_with_gradients import GibbsWithGradients


class RBM(UnnormalizedDensity, Completable, Filtered):
    """A restricted Boltzmann machine: binary pixels and binary hidden units, with no links among either.

    `complete` draws by Gibbs sampling with the known pixels held: approximately, by chains of `fill_steps` sweeps.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        num_hidden: Number of hidden units H.
        cd_steps: Number of sweeps of the chains between two steps of training.
        num_chains: Number of persistent chains. With 0, chains start from the examples of the batch at every step.

    Attributes:
        fill_steps: Number of sweeps of a completion.
    """

    facts: ClassVar = {"latents": "code"}
    objective: objectives.Objective = objectives.ContrastiveDivergence()
    levels = 2
    samplers = (Gibbs, GibbsWithGradients)
    fill_steps = 500
    unrounded = ("base",)
    base: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        num_hidden: Size = 500,
        cd_steps: Annotated[int, Between(1, 10_000)] = 1,
        num_chains: Annotated[int, Between(0, 100_000)] = 100,
    ) -> None:
        self.objective = objectives.ContrastiveDivergence(cd_steps, num_chains)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        num_visible = math.prod(event_shape)
        self.weight = nn.Parameter(0.01 * torch.randn(num_hidden, num_visible))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.register_buffer("base", torch.zeros(num_visible))  # m

    @property
    def filters(self) -> Tensor:
        return self.weight.view(-1, *self.event_shape)

    def set_base_rates(self, mean: Tensor) -> None:
        self.base.copy_(mean.flatten().logit())

    def hidden_inputs(self, x: Tensor) -> Tensor:
        """a(x), the logits of p(h | x): [B, *event_shape] -> [B, H]."""
        return F.linear(x.flatten(1) - self.base.sigmoid(), self.weight, self.hidden_bias)

    def visible_inputs(self, h: Tensor) -> Tensor:
        """The logits of p(x | h): [..., H] -> [..., D]."""
        return self.base + self.visible_bias + (h - 0.5) @ self.weight

    def energy(self, x: Tensor) -> Tensor:
        return -(x.flatten(1) @ (self.base + self.visible_bias)) - log_two_cosh(self.hidden_inputs(x)).sum(1)

    def chain(self, temperature: float = 1.0) -> RBMChain:
        return RBMChain(self, temperature)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        return run_clamped(self.chain(), x, known, streams, self.fill_steps)

    def exact_log_z(self) -> Tensor | None:
        bias = widest(self.base + self.visible_bias)  # of the pixels
        weight, inputs = widest(self.weight), widest(self.hidden_bias - self.weight @ self.base.sigmoid())
        parts = []
        if len(inputs) <= MAX_ENUMERATED:
            for h in bit_states(len(inputs), like=bias):
                parts.append((h - 0.5) @ inputs + F.softplus(bias + (h - 0.5) @ weight).sum(1))
        elif len(bias) <= MAX_ENUMERATED:
            for x in bit_states(len(bias), like=bias):
                parts.append(x @ bias + log_two_cosh(F.linear(x, weight, inputs)).sum(1))
        return torch.cat(parts).logsumexp(0) if parts else None


class RBMChain:
    """The `MarkovChain` of an RBM: states are pixels, [B, D]; hidden units are summed out, and drawn in each sweep.

    At inverse temperature beta its energy is that of -m'x - beta ((E(x, h))/temperature + m'x); at 0, pixels are
    independent at the base rates m.

    Args:
        model: The machine. Changes of its parameters make the chain invalid.
        temperature: Number by which its energies are divided.
    """

    def __init__(self, model: RBM, temperature: float = 1.0) -> None:
        self.event_shape = model.event_shape
        self.base, self.mean = model.base, model.base.sigmoid()
        self.weight, self.hidden_bias = model.weight.detach(), model.hidden_bias.detach()
        bias = (model.base + model.visible_bias).detach()
        if temperature != 1:
            self.weight, self.hidden_bias, bias = (v / temperature for v in (self.weight, self.hidden_bias, bias))
        self.bias = bias - self.base
        self.log_z_base = F.softplus(widest(self.base)).sum().item() + len(self.hidden_bias) * math.log(2)
        self._last: tuple[Tensor, Tensor] | None = None

    def start(self, streams: Streams) -> Tensor:
        return draw_bits(self.base.expand(len(streams), -1), streams)

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        return x.flatten(1)

    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        linear = torch.addmv(state @ self.base, state, self.bias, alpha=beta)
        return -widest(linear) - log_two_cosh(beta * self._inputs(state)).sum(1, dtype=widest_dtype(state.device))

    def step(self, state: Tensor, streams: Streams, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
        inputs = self._inputs(state)
        h = draw_bits(inputs if beta == 1 else beta * inputs, streams).sub_(0.5)
        x = draw_bits(torch.addmm(torch.add(self.base, self.bias, alpha=beta), h, self.weight, alpha=beta), streams)
        return x if known is None else torch.where(known, state, x)

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return state.view(-1, *self.event_shape)

    def _inputs(self, state: Tensor) -> Tensor:
        """a(x), [B, H]; AIS asks for two energies and a sweep of each state, which share this product."""
        if self._last is None or self._last[0] is not state:
            self._last = state, torch.addmm(self.hidden_bias, state - self.mean, self.weight.T)
        return self._last[1]
