"""Deep belief net with two hidden layers (Hinton, Osindero & Teh 2006, https://doi.org/10.1162/neco.2006.18.7.1527).

    p(x, h) = p(x | h) p(h),    h in {0, 1}^H
    p(x | h) = prod_i Bernoulli(x_i; sigmoid(m_i + b_i + W_i'(h - 1/2)))        the generative weights, downwards
    p(h) = exp(-energy(h))/Z                                                    an RBM over h, with T hidden units
    q(h | x) = prod_j Bernoulli(h_j; sigmoid(c_j + R_j (x - sigmoid(m))))       the recognition weights, upwards
    log Z p(x) = log E_q[p(x | h) exp(-energy(h))/q(h | x)]

Both kinds of weights begin as those of an RBM that was trained before, R = W. If the upper RBM has as many hidden units
as there are pixels, it begins with them too, transposed. Then p(x) is that of the lower RBM, and the bound
E_q[log p(x | h) - energy(h) - log q(h | x)] - log Z is tight. From there it rises, as W learns to predict x from draws
of q(h | x), and the upper RBM learns their distribution. R stays as it is.

Density: unnormalised, and bounded: log Z of the upper RBM by annealed importance sampling, the rest by draws of q.
Sampling: a Gibbs chain of the upper RBM, then one pass down.
Differs from the paper: of its up-down algorithm (appendix B) there is the way up, which trains W; chains of the upper
RBM persist (Tieleman 2008), and units are centred; labels are not modelled; SGD with a rate that falls linearly;
averaged weights. The checkpoint begins with the weights of an RBM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
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

    A trained RBM, the `start` of a recipe, gives both kinds of weights. Training keeps the recognition weights.

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
    unrounded = ("base", "top.base")
    base: Tensor

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
        num_visible = math.prod(event_shape)
        self.down, self.up = nn.Linear(num_hidden, num_visible), nn.Linear(num_visible, num_hidden)
        self.up.requires_grad_(False)
        self.top = RBM([num_hidden], num_top)
        self.register_buffer("base", torch.zeros(num_visible))  # m

    @property
    def filters(self) -> Tensor:
        return self.down.weight.T.reshape(-1, *self.event_shape)

    @torch.no_grad()
    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes a trained DBN, or an RBM as the lower layer and, transposed, as the upper one."""
        if not isinstance(start, RBM):
            return super().take_weights(start)
        self.base.copy_(start.base)
        for layer, weight, bias in (
            (self.up, start.weight, start.hidden_bias),
            (self.down, start.weight.T, start.visible_bias),
        ):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        if self.top.weight.shape == start.weight.T.shape:
            self.top.weight.copy_(start.weight.T)
            self.top.visible_bias.copy_(start.hidden_bias + start.weight @ (0.5 - start.base.sigmoid()))
            self.top.hidden_bias.copy_(start.base + start.visible_bias)  # the base rates of h are one half so far
        self.pretrained = False  # the first step of the upper RBM is still to come
        return []

    def hidden_inputs(self, x: Tensor) -> Tensor:
        """The logits of q(h | x): [B, *event_shape] -> [B, H]."""
        return self.up(x.flatten(1) - self.base.sigmoid())

    def visible_inputs(self, h: Tensor) -> Tensor:
        """The logits of p(x | h): [..., H] -> [..., D]."""
        return self.base + self.down(h - 0.5)

    def base_units(self, x: Tensor) -> Tensor:
        """q(h_j = 1 | x), [B, H]."""
        return self.hidden_inputs(x).sigmoid()

    def set_base_rates(self, mean: Tensor) -> None:
        """Takes the mean of h over the training examples; the upper RBM is the same in the new units."""
        top, base = self.top, mean.logit().to(self.dtype)
        with torch.no_grad():
            top.hidden_bias.add_(F.linear(base.sigmoid() - top.base.sigmoid(), top.weight))
            top.visible_bias.add_(top.base - base)
            top.base.copy_(base)

    def training_energy(self, x: Tensor, streams: Streams) -> Tensor:
        h = draw_bits(self.hidden_inputs(x), streams)
        return self.top.energy(h) - log_bernoulli(x.flatten(1), self.visible_inputs(h))

    def state_energy(self, states: Tensor) -> Tensor:
        return self.top.energy(states)

    def log_weights(self, x: Tensor, num_samples: int, *, generator: Source = None) -> Tensor:
        up = self.hidden_inputs(x)[:, None]  # [B, 1, H]
        noise = rand((len(x), num_samples, up.shape[2]), generator, x.device)
        h = (noise < up.sigmoid()).to(up.dtype)
        log_likelihood = log_bernoulli(x.flatten(1)[:, None], self.visible_inputs(h))
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
        self.model = model

    def at(self, x: Tensor, streams: Streams) -> Tensor:
        return draw_bits(self.model.hidden_inputs(x), streams)

    def visible(self, state: Tensor, streams: Streams) -> Tensor:
        return draw_bits(self.model.visible_inputs(state), streams).view(-1, *self.model.event_shape)
