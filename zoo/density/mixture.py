"""Mixture of Bernoullis, fitted by expectation maximisation (Bishop 2006, Pattern Recognition, section 9.3.3).

    p(x) = sum_k pi_k prod_d mu_kd^x_d (1 - mu_kd)^(1 - x_d)                                             (eq. 9.47)
    E step: r_nk = p(k | x_n)                                                                             (eq. 9.56)
    M step: pi_k = N_k/N,  mu_k = (sum_n r_nk x_n + a m)/(N_k + a),  N_k = sum_n r_nk            (eqs. 9.59 and 9.60)

Density: exact; one matrix product.
Sampling: exact; draws a component, then its pixels.
Completion: exact, from any mask: draws a component given the known pixels, then the other pixels.
Differs from the book: a prior on the means mu_k, which counts as much as `a` images equal to the average m of the data;
no weight and no average is exactly 0. Components start as averages of images that are assigned to them at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.capabilities import ClosedForm, Completable, TractableDensity
from zoo.config import Between, Size
from zoo.nn.precision import at_least_single, widest
from zoo.random import Source, Streams, rand


class BernoulliMixture(ClosedForm, TractableDensity, Completable):
    """A mixture of distributions of independent pixels. An epoch of training is one step of EM.

    Args:
        event_shape: Shape of one example; values are in {0, 1}.
        num_components: Number of components K.
        prior: Weight `a` of the prior, in images.
    """

    levels = 2
    iterative = True
    regularizer = "prior"
    log_weights: Tensor
    logits: Tensor
    fitted: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        num_components: Size = 500,
        prior: Annotated[float, Between(1e-3, 1e6)] = 1.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.num_components = num_components
        self.prior = prior
        self.register_buffer("log_weights", torch.full((num_components,), -math.log(num_components)))
        self.register_buffer("logits", torch.zeros(num_components, math.prod(event_shape)))
        self.register_buffer("fitted", torch.tensor(False))

    def _log_joint(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """log p(x, k), or log p(known pixels of x, k): [B, D], bool [B, D] -> [B, K]."""
        logits = at_least_single(self.logits)
        log_weights = at_least_single(self.log_weights).log_softmax(0)  # rounded weights do not sum to one
        x = x.to(logits)
        if known is None:
            return F.linear(x, logits, log_weights - F.softplus(logits).sum(-1))
        known = known.to(logits)
        return F.linear(x * known, logits, log_weights) - F.linear(known, F.softplus(logits))

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_joint(x.flatten(1)).logsumexp(-1)

    def draw(self, streams: Streams) -> Tensor:
        return self._pixels(at_least_single(self.log_weights).expand(len(streams), -1), streams)

    def _pixels(self, log_joint: Tensor, streams: Streams) -> Tensor:
        """Draws a component by its log-probability, up to a constant, and its pixels: [B, K] -> [B, *event_shape]."""
        cumulative = log_joint.softmax(-1).cumsum(-1)
        component = (rand((len(streams), 1), streams, self.device) >= cumulative).sum(-1)
        probs = self.logits[component.clamp_(max=self.num_components - 1)].sigmoid()
        return (rand(tuple(probs.shape), streams, self.device) < probs).float().view(-1, *self.event_shape)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        return self._pixels(self._log_joint(x.flatten(1), known.flatten(1)), streams)

    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        x = x.flatten(1)
        if self.fitted:
            responsibility = self._log_joint(x).softmax(-1)
        else:
            which = rand((len(x), 1), generator, x.device)[:, 0] * self.num_components
            responsibility = F.one_hot(which.long(), self.num_components)
        responsibility = widest(responsibility)  # in single precision, some processors lose one image of 4,000
        return {"counts": responsibility.sum(0), "sums": responsibility.T @ widest(x)}

    def finish(self, statistics: dict[str, Tensor]) -> None:
        counts, sums = statistics["counts"], statistics["sums"]
        average = (sums.sum(0) + 0.5) / (counts.sum() + 1)  # never exactly 0 or 1
        on = sums + self.prior * average
        off = (counts[:, None] - sums).clamp(min=0) + self.prior * (1 - average)  # rounded sums can exceed counts
        self.log_weights.copy_(((counts + 1e-3) / (counts + 1e-3).sum()).log())
        self.logits.copy_(on.log() - off.log())
        self.fitted.fill_(True)
