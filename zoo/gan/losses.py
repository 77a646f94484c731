"""What the two players minimise, given what the critic says of real and of fake examples.

A loss is two formulas of logits [B]. It combines with any networks and any regularisers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor
from torch.nn.functional import softplus

LossName = Literal["minimax", "non-saturating", "wasserstein", "hinge", "relativistic"]


class Loss(ABC):
    """Two objectives.

    Attributes:
        sees_real: whether the generator's depends on the reals where they carry no gradient.
    """

    sees_real = False

    @abstractmethod
    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """What the critic minimises: [B], [B] -> a scalar."""

    @abstractmethod
    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        """What the generator minimises: [B], [B] or None -> a scalar.

        `on_real` is given where the reals carry a gradient (an encoder is trained too) or the loss `sees_real`.
        """

    def accuracy(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """Share of right answers of the critic, which calls real what is above zero: 0.5 when it is fooled."""
        return ((on_real > 0).float().mean() + (on_fake < 0).float().mean()) / 2


class NonSaturating(Loss):
    """E[-log D(x)] + E[-log(1 - D(G(z)))] and E[-log D(G(z))], D = sigmoid of the logit: section 3 of the GAN paper."""

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return softplus(-on_real).mean() + softplus(on_fake).mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = softplus(-on_fake).mean()
        return loss if on_real is None else loss + softplus(on_real).mean()


class Minimax(NonSaturating):
    """The same critic, of which the generator minimises the opposite: eq. 1 of the GAN paper."""

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = -softplus(on_fake).mean()
        return loss if on_real is None else loss - softplus(-on_real).mean()


class Hinge(Loss):
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] and -E[D(G(z))] (Lim & Ye 2017, https://arxiv.org/abs/1705.02894)."""

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return (1 - on_real).relu().mean() + (1 + on_fake).relu().mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = -on_fake.mean()
        return loss if on_real is None else loss + on_real.mean()


class _Difference(Loss):
    """Only differences of logits count, so that no threshold tells real from fake: pairs do."""

    def accuracy(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """Share of all pairs of a real and a fake example that the critic puts in the right order."""
        return (on_real[:, None] > on_fake).float().mean()


class Wasserstein(_Difference):
    """E[D(G(z))] - E[D(x)], and -E[D(G(z))] (Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, eq. 3)."""

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return on_fake.mean() - on_real.mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        loss = -on_fake.mean()
        return loss if on_real is None else loss + on_real.mean()


class Relativistic(_Difference):
    """E[-log sigmoid(D(x) - D(G(z)))] over pairs, and the opposite pairs (Jolicoeur-Martineau 2018).

    https://arxiv.org/abs/1807.00734. Pairs are those at equal positions of the two batches.
    """

    sees_real = True

    def critic(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        return softplus(on_fake - on_real).mean()

    def generator(self, on_fake: Tensor, on_real: Tensor | None) -> Tensor:
        assert on_real is not None, "the relativistic loss compares fakes with reals"
        return softplus(on_real - on_fake).mean()


LOSSES: dict[LossName, Loss] = {
    "minimax": Minimax(),
    "non-saturating": NonSaturating(),
    "wasserstein": Wasserstein(),
    "hinge": Hinge(),
    "relativistic": Relativistic(),
}
