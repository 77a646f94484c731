"""Common parts of the GANs: a game of two players with a loss and a penalty.

A loss or penalty that only one paper uses is in the file of that paper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from zoo.capabilities import Adversarial, Decoder
from zoo.random import Streams, randn

# -------------------------------------------------------------------------------------------------------------- losses


class Loss(ABC):
    """The losses of the two players, as functions of the critic's logits.

    Attributes:
        sees_real: Whether the generator's loss needs the logits of real examples even if they carry no gradient.
    """

    sees_real: ClassVar[bool] = False

    @abstractmethod
    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """The critic's loss: logits of real and of fake examples, [B] each -> a scalar."""

    @abstractmethod
    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        """The generator's loss: logits of fake and of real examples, [B] each -> a scalar.

        `on_real` is None unless the loss `sees_real`, or real examples carry a gradient, as the pairs of ALI do.
        """

    def accuracy(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """Fraction of correct answers if the critic calls examples with logits above zero real: [B], [B] -> a scalar.

        It is 0.5 for a critic that is fooled.
        """
        return ((on_real > 0).float().mean() + (on_fake < 0).float().mean()) / 2


def ranking_accuracy(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Fraction of all pairs of a real and a fake example whose logits are in the correct order.

    It is the accuracy of a critic whose loss depends only on differences of logits, so that no threshold separates real
    from fake: [B], [B] -> a scalar.
    """
    return (on_real[:, None] > on_fake).float().mean()


class NonSaturating(Loss):
    """E[-log D(x)] + E[-log(1 - D(G(z)))] and E[-log D(G(z))], where D is the sigmoid of the logit.

    Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, section 3.
    """

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return softplus(-on_real).mean() + softplus(on_fake).mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = softplus(-on_fake).mean()
        return loss if on_real is None else loss + softplus(on_real).mean()


class Wasserstein(Loss):
    """E[D(G(z))] - E[D(x)] and -E[D(G(z))] (Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, eq. 3)."""

    accuracy = staticmethod(ranking_accuracy)

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return on_fake.mean() - on_real.mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = -on_fake.mean()
        return loss if on_real is None else loss + on_real.mean()


# ----------------------------------------------------------------------------------------------------------- penalties

Score: TypeAlias = Callable[[Tensor], Tensor]
"""The critic: [B, ...] -> logits [B]."""

Penalty: TypeAlias = Callable[[Score, Tensor, Tensor, Streams], Tensor]
"""A term of the critic's loss: critic, real and fake examples [B, ...] without gradients, noise -> a scalar."""


def squared_slope(score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at x [B, ...] and squared norms of their gradients with respect to x; both [B] and differentiable."""
    x = x.detach().requires_grad_()
    logits = score(x)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, gradient.square().flatten(1).sum(1)


@dataclass(frozen=True)
class ZeroCentred:
    """gamma/2 E[|grad_x D|^2] at real examples (R1), and possibly at fake ones (R2).

    Mescheder et al. 2018, https://arxiv.org/abs/1801.04406, eqs. 9 and 10.
    """

    gamma: float
    on_fake: bool = False

    def __call__(self, score: Score, real: Tensor, fake: Tensor, streams: Streams) -> Tensor:
        penalty = squared_slope(score, real)[1].mean()
        if self.on_fake:
            penalty = penalty + squared_slope(score, fake)[1].mean()
        return 0.5 * self.gamma * penalty


# ------------------------------------------------------------------------------------------------------------ the game


class Game(Adversarial, Decoder):
    """A generator that turns Gaussian codes into images and is trained against a critic.

    The constructor of a model sets `generator`, `critic` and `loss`, and may set the other attributes.

    Attributes:
        loss: Losses of the two players.
        penalty: Penalty on the critic, or None.
        penalty_every: Number of steps from one penalty to the next. Each penalty is multiplied by this number, so that
            the mean gradient is the same at a fraction of the cost (Karras et al. 2020,
            https://arxiv.org/abs/1912.04958, appendix B).
    """

    loss: Loss
    penalty: Penalty | None = None
    penalty_every: int = 1

    @abstractmethod
    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.event_shape, self.latent_shape = tuple(event_shape), (latent_dim,)

    def score(self, x: Tensor, **given: Tensor) -> Tensor:
        """The critic's logits: [B, ...] -> [B]."""
        return self.critic(x.to(self.dtype)).squeeze(1)

    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        both = {name: torch.cat([value, value]) for name, value in given.items()}
        on_real, on_fake = self.score(torch.cat([real, fake]), **both).split([len(real), len(fake)])  # in one pass
        loss = self.loss.critic(on_real, on_fake)
        if self.penalty is not None and self.global_step % self.penalty_every == 0:
            penalty = self.penalty(lambda x: self.score(x, **given), real, fake, streams)
            loss = loss + self.penalty_every * penalty
        return {"loss": loss, "critic_accuracy": self.loss.accuracy(on_real.detach(), on_fake.detach())}

    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        on_fake = self.score(fake, **given)
        sees_real = self.loss.sees_real or real.requires_grad
        return self.loss.generator(on_fake, self.score(real, **given) if sees_real else None)

    def draw(self, streams: Streams, **given: Tensor) -> Tensor:
        return self.decode(randn((len(streams), *self.latent_shape), streams, self.device), **given)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.generator(z.to(self.dtype))

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, dtype=self.dtype, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)
