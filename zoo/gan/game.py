"""A loss and regularisers on a pair of networks: what the adversarial models are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from zoo.capabilities import Adversarial, Decoder
from zoo.gan.losses import LOSSES, LossName
from zoo.gan.networks import Critic, Generator
from zoo.gan.regularizers import Regularizer
from zoo.random import Streams, randn


class Game(Adversarial):
    """Two players with a `Loss` and any number of `Regularizer`s.

    Args:
        loss: name of the loss.
        regularizers: applied in this order.
        critic_steps: updates of the critic for each of the generator.
    """

    latent_shape: tuple[int, ...]

    @abstractmethod  # a model has networks, and plain arguments
    def __init__(self, loss: LossName, regularizers: Sequence[Regularizer] = (), critic_steps: int = 1) -> None:
        super().__init__()
        self.loss = LOSSES[loss]
        self.regularizers = tuple(regularizers)
        self.critic_steps = critic_steps

    def score(self, x: Tensor, **given: Tensor) -> Tensor:
        """The critic's logits of what it sees: [B, ...] -> [B]."""
        return self.critic(x).squeeze(1)

    def generate(self, z: Tensor, **given: Tensor) -> Tensor:
        """What the generator makes of codes: [B, *latent_shape] -> [B, *event_shape]."""
        return self.generator(z)

    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        """Of reals and fakes without gradient; with `critic_accuracy`."""
        real, fake = self._blurred(real, streams), self._blurred(fake, streams)
        both = {name: torch.cat([value, value]) for name, value in given.items()}
        on_real, on_fake = self.score(torch.cat([real, fake]), **both).split([len(real), len(fake)])  # in one pass
        loss = self.loss.critic(on_real, on_fake)
        for part in self.regularizers:
            if self.global_step % part.every == 0:
                penalty = part.critic_penalty(lambda x: self.score(x, **given), real, fake, streams)
                loss = loss if penalty is None else loss + part.every * penalty
        return {"loss": loss, "critic_accuracy": self.loss.accuracy(on_real.detach(), on_fake.detach())}

    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        """Of fakes, and of reals where they carry a gradient or the loss compares the two."""
        on_fake = self.score(self._blurred(fake, streams), **given)
        sees_real = self.loss.sees_real or real.requires_grad
        on_real = self.score(self._blurred(real, streams), **given) if sees_real else None
        loss = self.loss.generator(on_fake, on_real)
        for part in self.regularizers:
            if self.global_step % part.every == 0:
                penalty = part.generator_penalty(
                    lambda z: self.generate(z, **given), self.latent_shape, streams, self.device
                )
                loss = loss if penalty is None else loss + part.every * penalty
        return loss

    def after_critic_step(self) -> None:
        for part in self.regularizers:
            part.bound(self.critic)

    def _blurred(self, x: Tensor, streams: Streams) -> Tensor:
        for part in self.regularizers:
            x = part.blur(x, streams, self.progress)
        return x


class LatentGame(Game, Decoder):
    """A game whose generator turns Gaussian codes into data."""

    def build(
        self, event_shape: Sequence[int], latent_dim: int, channels: int, hidden: int | None, *, bias: bool
    ) -> None:
        """The networks of `zoo.gan.networks`; hidden units in both, or None; whether the critic's logit has a bias."""
        self.event_shape, self.latent_shape = tuple(event_shape), (latent_dim,)
        self.generator = Generator(event_shape, latent_dim, channels, hidden=hidden)
        self.critic = Critic(event_shape, channels, hidden=hidden, bias=bias)

    def prior(self) -> Distribution:
        loc = torch.zeros(self.latent_shape, device=self.device)
        return Independent(Normal(loc, torch.ones_like(loc)), 1)

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.generator(z)

    def generate(self, z: Tensor, **given: Tensor) -> Tensor:
        return self.decode(z, **given)

    def draw(self, streams: Streams, **given: Tensor) -> Tensor:
        return self.decode(randn((len(streams), *self.latent_shape), streams, self.device), **given)
