"""Energy-based model of binary images (Grathwohl et al. 2021, https://arxiv.org/abs/2102.04509).

    p(x) = exp(-E(x))/Z,    E(x) = E_RBM(x) + U(x)        E_RBM: a trained RBM; U: a convolutional network
    d(-log p(x)) = dU(x) - E_p[dU]                        the expectation from persistent chains

A sweep of the RBM is a reversible step of its own distribution. As a proposal x', accepted with probability

    min(1, exp(U(x) - U(x')))

it is a step of p: the Metropolis rule, from which E_RBM cancels. It moves all pixels at the price of one pass of U.

Density: unnormalised; log Z by annealed importance sampling from the base rates of the RBM.
Sampling: a chain of such steps; or of the paper's own, `GibbsWithGradients`, which flip single pixels.
Differs from the paper: sweeps of an RBM in place of flips of single pixels that the gradient of E proposes; a small
network tilts the RBM, which stays as it is. The checkpoint begins with the weights of an RBM. It is trained with AdamW
and a rate that falls linearly; averaged weights.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from zoo import objectives
from zoo.boltzmann.rbm import RBM, RBMChain
from zoo.boltzmann.units import MAX_ENUMERATED, bit_states
from zoo.capabilities import Completable, UnnormalizedDensity, ZooModule
from zoo.config import Between, ImageShape, Size
from zoo.energy.potential import Potential
from zoo.mcmc import accepted, run_clamped
from zoo.nn.precision import widest
from zoo.random import Streams
from zoo.samplers.gibbs_with_gradients import GibbsWithGradients
from zoo.samplers.metropolis import Metropolis


class BinaryEBM(UnnormalizedDensity, Completable):
    """An RBM times a factor that a convolutional network learns. The RBM is the `start` of a recipe.

    `complete` runs chains of `fill_steps` steps with the known pixels held, and so is approximate.

    Args:
        event_shape: Shape of one example, [C, H, W]; values in {0, 1}.
        num_hidden: Number of hidden units of the RBM.
        channels: Channels of the first layer of the network.
        hidden: Width of its last hidden layer.
        cd_steps: Number of steps of the chains between two steps of training.
        num_chains: Number of persistent chains. With 0, chains start from the examples of the batch at every step.
        burn_in: Number of steps of persistent chains before the first step of training.

    Attributes:
        fill_steps: Number of steps of a completion.
    """

    levels = 2
    samplers = (Metropolis, GibbsWithGradients)
    fill_steps = 500
    unrounded = ("base.base",)

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        num_hidden: Size = 500,
        channels: Size = 16,
        hidden: Size = 64,
        cd_steps: Annotated[int, Between(1, 10_000)] = 1,
        num_chains: Annotated[int, Between(0, 100_000)] = 100,
        burn_in: Annotated[int, Between(0, 100_000)] = 1000,
    ) -> None:
        self.objective = objectives.ContrastiveDivergence(cd_steps, num_chains, burn_in)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.base = RBM(event_shape, num_hidden).requires_grad_(False)
        self.network = Potential(event_shape, channels, hidden)

    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes a trained model of this class, or the RBM."""
        if not isinstance(start, RBM):
            return super().take_weights(start)
        return self.base.load_state_dict(start.state_dict()).unexpected_keys

    def set_base_rates(self, mean: Tensor) -> None:
        self.base.set_base_rates(mean)

    def energy(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # its sums are large
            of_base = self.base.energy(x)
        return of_base + self.network(x)

    def chain(self, temperature: float = 1.0) -> BinaryEBMChain:
        return BinaryEBMChain(self, temperature)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        return run_clamped(self.chain(), x, known, streams, self.fill_steps)

    def exact_log_z(self) -> Tensor | None:
        size = math.prod(self.event_shape)
        if size > MAX_ENUMERATED:
            return None
        blocks = bit_states(size, like=torch.empty(0, device=self.device))
        states = (x.to(self.dtype).view(-1, *self.event_shape) for x in blocks)
        return torch.cat([-widest(self.energy(x)) for x in states]).logsumexp(0)


class BinaryEBMChain(RBMChain):
    """The chain of the RBM, whose sweeps are accepted or rejected: states are pixels, [B, D].

    At inverse temperature beta its energy is that of the RBM's chain plus beta U/temperature.

    Args:
        model: The model. Changes of its parameters make the chain invalid.
        temperature: Number by which its energies are divided.
    """

    def __init__(self, model: BinaryEBM, temperature: float = 1.0) -> None:
        super().__init__(model.base, temperature)
        self.network, self.temperature = model.network, temperature
        self._potential: tuple[Tensor, Tensor] | None = None

    def energy(self, state: Tensor, beta: float = 1.0) -> Tensor:
        return super().energy(state, beta) + beta * self._of(state)

    @torch.no_grad()
    def step(self, state: Tensor, streams: Streams, beta: float = 1.0, known: Tensor | None = None) -> Tensor:
        proposed = super().step(state, streams, beta, known)
        before = self._of(state)
        self._potential = None
        after = self._of(proposed)
        moved = accepted(state, proposed, beta * (before - after), streams)
        self._potential = moved, torch.where((moved == proposed).all(1), after, before)
        return moved

    def _of(self, state: Tensor) -> Tensor:
        """U/temperature, [B], in the widest type. That of the last state is kept: chains and AIS ask for it again."""
        if self._potential is None or self._potential[0] is not state:
            with torch.set_grad_enabled(state.requires_grad):  # `GibbsWithGradients` needs a gradient, but of states
                found = widest(self.network(self.visible(state, Streams(0, [])))) / self.temperature
            self._potential = state, found
        return self._potential[1]
