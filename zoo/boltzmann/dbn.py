"""Deep belief net with two hidden layers (Hinton, Osindero & Teh 2006, https://doi.org/10.1162/neco.2006.18.7.1527).

    p(x, h) = p(x | h) p(h),    h in {0, 1}^H
    p(x | h) = prod_i Bernoulli(x_i; sigmoid(m_i + b_i + W_i'(h - 1/2)))        the lower layer, downwards
    p(h) = exp(-energy(h))/Z                                                    an RBM over h, with T hidden units
    q(h | x) = prod_j Bernoulli(h_j; sigmoid(c_j + W_j (x - sigmoid(m))))       the lower layer, upwards
    log Z p(x) = log E_q[p(x | h) exp(-energy(h))/q(h | x)]

The lower layer has the weights of an RBM that was trained before. The upper RBM learns from draws of q(h | x). If it
has as many hidden units as there are pixels, it starts with the weights of the lower one, transposed. Then p(x) is that
of the lower RBM, the bound E_q[log p(x | h) - energy(h) - log q(h | x)] - log Z is tight, and it rises from there.

Density: unnormalised, and bounded: log Z of the upper RBM by annealed importance sampling, the rest by draws of q.
Sampling: a Gibbs chain of the upper RBM, then one pass down.
Differs from the paper: training begins with an RBM, whose weights stay as they are, with no fine-tuning by the up-down
algorithm; the upper RBM learns by persistent chains (Tieleman 2008) in centred units; labels are not modelled; SGD with
a rate that falls linearly; averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import objectives
from zoo.boltzmann.rbm import RBM, RBMChain
from zoo.boltzmann.units import draw_bits, log_bernoulli
from zoo.capabilities import Filtered, UnnormalizedBound, ZooModule
from zoo.config import Between, Size
from zoo.random import Source, Streams, rand
from zoo.samplers.gibbs import Gibbs


class DBN(UnnormalizedBound, Filtered):
    """A deep belief net: an RBM over the hidden units of a lower layer that generates the pixels.

    Training moves the upper RBM alone. The lower layer takes its weights from a trained RBM, the `start` of a recipe.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        num_hidden: Number of hidden units of the lower layer, H.
        num_top: Number of hidden units of the upper RBM, T.
        cd_steps: Number of sweeps of the chains between two steps of training.
        num_chains: Number of persistent chains. With 0, chains start from the codes of the batch at every step.
        burn_in: Number of sweeps of persistent chains before the first step.
    """

    facts: ClassVar = {"latents": "code"}
    objective: objectives.Objective = objectives.ContrastiveDivergence()
    levels = 2
    samplers = (Gibbs,)
    unrounded = ("bottom.base", "top.base")

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        num_hidden: Size = 500,
        num_top: Size = 784,
        cd_steps: Annotated[int, Between(1, 10_000)] = 1,
        num_chains: Annotated[int, Between(0, 100_000)] = 100,
        burn_in: Annotated[int, Between(0, 100_000)] = 1000,
    ) -> None:
        self.objective = objectives.ContrastiveDivergence(cd_steps, num_chains, burn_in)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.bottom = RBM(event_shape, num_hidden).requires_grad_(False)
        self.top = RBM([num_hidden], num_top)

    @property
    def filters(self) -> Tensor:
        return self.bottom.filters

    @torch.no_grad()
    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes a trained DBN, or an RBM as the lower layer and, transposed, as the upper one."""
        if not isinstance(start, RBM):
            return super().take_weights(start)
        self.bottom.load_state_dict(start.state_dict())
        if self.top.weight.shape == self.bottom.weight.T.shape:
            weight, hidden, visible = self.bottom.weight, self.bottom.hidden_bias, self.bottom.visible_bias
            self.top.weight.copy_(weight.T)
            self.top.visible_bias.copy_(hidden - weight @ self.bottom.base.sigmoid() + weight.sum(1) / 2)
            self.top.hidden_bias.copy_(self.bottom.base + visible)  # the base rates of h are one half so far
        self.pretrained = False  # the first step of the upper RBM is still to come
        return []

    def base_units(self, x: Tensor) -> Tensor:
        """q(h_j = 1 | x), [B, H]."""
        return self.bottom.hidden_inputs(x).sigmoid()

    def set_base_rates(self, mean: Tensor) -> None:
        """Takes the mean of h over the training examples; the upper RBM is the same in the new units."""
        top, base = self.top, mean.logit().to(self.dtype)
        with torch.no_grad():
            top.hidden_bias.add_(F.linear(base.sigmoid() - top.base.sigmoid(), top.weight))
            top.visible_bias.add_(top.base - base)
            top.base.copy_(base)

    def training_energy(self, x: Tensor, streams: Streams) -> Tensor:
        return self.top.energy(draw_bits(self.bottom.hidden_inputs(x), streams))

    def state_energy(self, states: Tensor) -> Tensor:
        return self.top.energy(states)

    def log_weights(self, x: Tensor, num_samples: int, *, generator: Source = None) -> Tensor:
        up = self.bottom.hidden_inputs(x)[:, None]  # [B, 1, H]
        noise = rand((len(x), num_samples, up.shape[2]), generator, x.device)
        h = (noise < up.sigmoid()).to(up.dtype)
        log_likelihood = log_bernoulli(x.flatten(1)[:, None], self.bottom.visible_inputs(h))
        energy = self.top.energy(h.flatten(0, 1)).view(len(x), num_samples)
        return (log_likelihood - energy - log_bernoulli(h, up)).T

    def chain(self, temperature: float = 1.0) -> DBNChain:
        return DBNChain(self, temperature)

    def exact_log_z(self) -> Tensor | None:
        return self.top.exact_log_z()


class DBNChain(RBMChain):
    """The chain of the upper RBM: states are h, [B, H]. A temperature divides its energies, and not those of p(x | h).

    Args:
        model: The net. Changes of its parameters make the chain invalid.
        temperature: Number by which the energies of h are divided.
    """

    def __init__(self, model: DBN, temperature: float = 1.0) -> None:
        super().__init__(model.top, temperature)
        self.bottom = model.bottom

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        return draw_bits(self.bottom.hidden_inputs(x), streams)

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return draw_bits(self.bottom.visible_inputs(state), streams).view(-1, *self.bottom.event_shape)
