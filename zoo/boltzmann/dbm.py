"""Deep Boltzmann machine (Salakhutdinov & Hinton 2009, https://proceedings.mlr.press/v5/salakhutdinov09a.html).

    p(x, h1, h2) = exp(-E)/Z,    x in {0, 1}^D,  h1 in {0, 1}^H,  h2 in {0, 1}^T
    E = -(m + b)'x - c2'h2 - (h1 - 1/2)'a,    a = c1 + W1 (x - sigmoid(m)) + W2 (h2 - 1/2)

The units x and h2 are not linked, nor are the units h1: this is an RBM with pixels v = (x, h2), whose hidden units h1
are summed out. Given x, h2 is approximated by independent units of probabilities mu2 (mean field):

    mu1 = sigmoid(a at h2 = mu2),    mu2 = sigmoid(c2 + W2'(mu1 - 1/2))
    log Z p(x) >= (m + b)'x + c2'mu2 + sum_j log(2 cosh(a_j/2)) + entropy of mu2,    a at h2 = mu2

Density: unnormalised, and bounded: log Z by annealed importance sampling over v, the rest by draws of h2 from the mean
    field.
Sampling: a Gibbs chain; a sweep draws h1, then x and h2.
Differs from the paper: all layers are trained at once, in centred units (Montavon & Mueller 2012,
https://doi.org/10.1007/978-3-642-35289-8_33). Training begins with an RBM, with W2 near zero; SGD with a rate that
falls linearly; averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import objectives
from zoo.boltzmann.rbm import RBM, RBMChain
from zoo.boltzmann.units import entropy_of_bits, log_bernoulli, log_two_cosh
from zoo.capabilities import Completable, Filtered, UnnormalizedBound, ZooModule
from zoo.checks import unchecked
from zoo.config import Between, Size
from zoo.mcmc import run_clamped
from zoo.random import Source, Streams, rand
from zoo.samplers.gibbs import Gibbs


class DBM(UnnormalizedBound, Completable, Filtered):
    """A deep Boltzmann machine: pixels, and two layers of hidden units, each linked to the next alone.

    `complete` draws by Gibbs sampling with the known pixels held: approximately, by chains of `fill_steps` sweeps.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        num_hidden: Number of units of the first hidden layer, H.
        num_top: Number of units of the second hidden layer, T.
        cd_steps: Number of sweeps of the chains between two steps of training.
        num_chains: Number of persistent chains. With 0, chains start from the examples of the batch at every step.
        burn_in: Number of sweeps of persistent chains before the first step.
        field_steps: Number of updates of the mean field.

    Attributes:
        fill_steps: Number of sweeps of a completion.
    """

    facts: ClassVar = {"latents": "code"}
    objective: objectives.Objective = objectives.ContrastiveDivergence()
    levels = 2
    samplers = (Gibbs,)
    fill_steps = 500
    unrounded = ("units.base",)

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        num_hidden: Size = 500,
        num_top: Size = 500,
        cd_steps: Annotated[int, Between(1, 10_000)] = 1,
        num_chains: Annotated[int, Between(0, 100_000)] = 100,
        burn_in: Annotated[int, Between(0, 100_000)] = 1000,
        field_steps: Annotated[int, Between(1, 1000)] = 10,
    ) -> None:
        self.objective = objectives.ContrastiveDivergence(cd_steps, num_chains, burn_in)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.field_steps = field_steps
        self.num_visible = math.prod(event_shape)
        self.units = RBM([self.num_visible + num_top], num_hidden)  # over v = (x, h2)

    @property
    def filters(self) -> Tensor:
        return self.units.weight[:, : self.num_visible].reshape(-1, *self.event_shape)

    @torch.no_grad()
    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes a trained DBM, or an RBM as the first layer."""
        if not isinstance(start, RBM):
            return super().take_weights(start)
        units, num = self.units, self.num_visible
        units.weight[:, :num].copy_(start.weight)
        units.hidden_bias.copy_(start.hidden_bias)
        units.visible_bias[:num].copy_(start.visible_bias)
        units.base[:num].copy_(start.base)
        return []

    def set_base_rates(self, mean: Tensor) -> None:
        self.units.base[: self.num_visible].copy_(mean.flatten().logit())  # those of h2 are one half

    def mean_field(self, x: Tensor) -> Tensor:
        """mu2 of p(h2 | x), without gradients: [B, *event_shape] -> [B, T]."""
        with torch.no_grad():
            bias, weight = self.units.visible_bias[self.num_visible :], self.units.weight[:, self.num_visible :]
            of_x = self._inputs(x)
            mean = bias.new_full((len(x), len(bias)), 0.5)
            for _ in range(self.field_steps):
                first = torch.addmm(of_x, mean - 0.5, weight.T).sigmoid()  # mu1
                mean = torch.addmm(bias, first - 0.5, weight).sigmoid()
        return mean

    def training_energy(self, x: Tensor, streams: Streams) -> Tensor:
        mean = self.mean_field(x)
        with unchecked():  # means are no bits
            return self.units.energy(torch.cat([x.flatten(1), mean], 1)) - entropy_of_bits(mean).sum(1)

    def state_energy(self, states: Tensor) -> Tensor:
        return self.units.energy(states)

    def log_weights(self, x: Tensor, num_samples: int, *, generator: Source = None) -> Tensor:
        units, num = self.units, self.num_visible
        mean = self.mean_field(x)[:, None]  # [B, 1, T]
        h2 = (rand((len(x), num_samples, mean.shape[2]), generator, x.device) < mean).to(mean.dtype)
        a = self._inputs(x)[:, None] + F.linear(h2 - 0.5, units.weight[:, num:])  # [B, k, H]
        linear = (x.flatten(1) @ (units.base + units.visible_bias)[:num])[:, None] + h2 @ units.visible_bias[num:]
        return (linear + log_two_cosh(a).sum(2) - log_bernoulli(h2, mean.logit(eps=1e-6))).T

    def chain(self, temperature: float = 1.0) -> DBMChain:
        return DBMChain(self, temperature)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        return run_clamped(self.chain(), x, known, streams, self.fill_steps)

    def exact_log_z(self) -> Tensor | None:
        return self.units.exact_log_z()

    def _inputs(self, x: Tensor) -> Tensor:
        """a at h2 = 1/2, [B, H]."""
        mean, weight = self.units.base[: self.num_visible].sigmoid(), self.units.weight[:, : self.num_visible]
        return F.linear(x.flatten(1) - mean, weight, self.units.hidden_bias)


class DBMChain(RBMChain):
    """The chain over v = (x, h2), [B, D + T]; h1 is summed out, and drawn in each sweep.

    Args:
        model: The machine. Changes of its parameters make the chain invalid.
        temperature: Number by which its energies are divided.
    """

    def __init__(self, model: DBM, temperature: float = 1.0) -> None:
        super().__init__(model.units, temperature)
        self.model = model

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        """h2 is drawn from its mean field given x, at the model's own temperature."""
        mean = self.model.mean_field(x)
        return torch.cat([x.flatten(1), (rand(tuple(mean.shape), streams, x.device) < mean).to(x.dtype)], 1)

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return state[:, : self.model.num_visible].reshape(-1, *self.model.event_shape)
