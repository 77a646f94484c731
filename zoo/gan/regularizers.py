"""What keeps the two players stable: terms of their losses, noise on what the critic sees, bounds on its weights.

A regulariser overrides the hooks that it needs. It combines with any loss and any networks, and with others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.random import Streams, rand, randn

Score = Callable[[Tensor], Tensor]  # the critic: [B, ...] -> logits [B]
Decode = Callable[[Tensor], Tensor]  # the generator: codes [B, *latent_shape], one for each example -> [B, ...]


class Regularizer:
    """Hooks of a training step; each does nothing by default.

    Attributes:
        every: penalties are computed in one of this many steps, and weigh as much more there (Karras et al. 2020,
            https://arxiv.org/abs/1912.04958, appendix B): the mean gradient is the same, at a fraction of its cost.
    """

    every: int = 1

    def blur(self, x: Tensor, streams: Streams, progress: float) -> Tensor:
        """What the critic sees in place of x [B, ...]; progress: of training, from 0 to 1."""
        return x

    def critic_penalty(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor | None:
        """A term of the critic's loss, a scalar; real, fake: [B, ...], without gradient."""
        return None

    def generator_penalty(
        self, decode: Decode, latent_shape: tuple[int, ...], streams: Streams, device: torch.device
    ) -> Tensor | None:
        """A term of the generator's loss, a scalar, from codes on its device."""
        return None

    def bound(self, critic: nn.Module) -> None:
        """After each step of the critic."""


def squared_slope(score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's logits at x [B, ...] and the squared norms of their gradients by x, both [B], differentiable."""
    x = x.detach().requires_grad_()
    logits = score(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, gradient.square().flatten(1).sum(1)


class ZeroCentred(Regularizer):
    """gamma/2 E[|grad_x D|^2] at the reals, and so at the fakes (Mescheder et al. 2018, R1 and R2).

    https://arxiv.org/abs/1801.04406, eqs. 9 and 10.

    Args:
        gamma: weight.
        on_fake: at the fakes too.
        every: see `Regularizer`.
    """

    def __init__(self, gamma: float, *, on_fake: bool = False, every: int = 1) -> None:
        self.gamma, self.on_fake, self.every = gamma, on_fake, every

    def critic_penalty(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        penalty = squared_slope(score, real)[1].mean()
        if self.on_fake:
            penalty = penalty + squared_slope(score, fake)[1].mean()
        return 0.5 * self.gamma * penalty


class Roth(Regularizer):
    """gamma/2 (E[(1 - p(x))^2 |grad D(x)|^2] + E[p(G)^2 |grad D(G)|^2]), p = sigmoid(D) (Roth et al. 2017, eq. 21).

    What noise of variance gamma on all examples does to the critic's loss, to first order.
    https://arxiv.org/abs/1705.09367.
    """

    def __init__(self, gamma: float, *, every: int = 1) -> None:
        self.gamma, self.every = gamma, every

    def critic_penalty(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        (on_real, slope_real), (on_fake, slope_fake) = squared_slope(score, real), squared_slope(score, fake)
        weighted = (-on_real).sigmoid().square() * slope_real, on_fake.sigmoid().square() * slope_fake
        return 0.5 * self.gamma * (weighted[0].mean() + weighted[1].mean())


class GradientPenalty(Regularizer):
    """weight E[(|grad D(y)| - 1)^2] at y = e x + (1 - e) G(z), e uniform (Gulrajani et al. 2017, eq. 3).

    https://arxiv.org/abs/1704.00028.
    """

    def __init__(self, weight: float = 10.0, *, every: int = 1) -> None:
        self.weight, self.every = weight, every

    def critic_penalty(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        share = rand((len(real), 1), streams, real.device).view(-1, *[1] * (real.dim() - 1))
        slope = squared_slope(score, fake + share * (real - fake))[1]
        return self.weight * ((slope + 1e-12).sqrt() - 1).square().mean()


class WeightClipping(Regularizer):
    """Every weight of the critic in [-bound, bound] (Arjovsky et al. 2017, algorithm 1)."""

    def __init__(self, bound: float = 0.01) -> None:
        self.limit = bound

    @torch.no_grad()
    def bound(self, critic: nn.Module) -> None:
        for parameter in critic.parameters():
            parameter.clamp_(-self.limit, self.limit)


class InstanceNoise(Regularizer):
    """Gaussian noise on all that the critic sees, whose scale falls along a line to zero at the end of training.

    Sonderby et al. 2017, https://arxiv.org/abs/1610.04490; Arjovsky & Bottou 2017, https://arxiv.org/abs/1701.04862.

    Args:
        sigma: its scale at the beginning, in units of pixels.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def blur(self, x: Tensor, streams: Streams, progress: float) -> Tensor:
        scale = self.sigma * (1 - progress)
        return x + scale * randn(tuple(x.shape), streams, x.device) if scale > 0 else x


class JacobianClamping(Regularizer):
    """(max(Q, high) - high)^2 + (min(Q, low) - low)^2, Q = |G(z) - G(z')| / |z - z'| (Odena et al. 2018, algorithm 1).

    https://arxiv.org/abs/1802.08768. z' = z + step d/|d| with Gaussian d. Images count as in [-1, 1], the paper's.
    """

    def __init__(self, low: float = 1.0, high: float = 20.0, *, step: float = 1.0, every: int = 1) -> None:
        self.low, self.high, self.step, self.every = low, high, step, every

    def generator_penalty(
        self, decode: Decode, latent_shape: tuple[int, ...], streams: Streams, device: torch.device
    ) -> Tensor:
        z, direction = (randn((len(streams), *latent_shape), streams, device) for _ in range(2))
        moved = z + self.step * direction / direction.flatten(1).norm(dim=1).view(-1, *[1] * len(latent_shape))
        quotient = 2 * (decode(z) - decode(moved)).flatten(1).norm(dim=1) / self.step
        return ((quotient - self.high).relu().square() + (self.low - quotient).relu().square()).mean()
