"""EoNADE: one network for every ordering of the pixels, and an ensemble over orderings (Uria et al. 2014, A Deep and
Tractable Density Estimator, https://arxiv.org/abs/1310.1757; Uria et al. 2016, sections 4 and 5).

    p(x_d = 1 given the pixels that m marks) = sigmoid(b_d + V_d h(x m, m))
    log p(x given o) = sum_d log p(x_o(d) given x_o(<d)),    log p(x) = logsumexp_o log p(x given o) - log K
    training: D/(D - d) sum_{i >= d} log p(x_o(i) given x_o(<d)),    o and d drawn anew for each image        (eq. 18)

The probabilities of the orderings are averaged, and not their logits, which would be no probabilities.

Density: exact, of K orderings; O(K D H^2).
Sampling: exact, O(D H^2): the first layer changes by one pixel at a time.
Completion: from any mask, in an ordering of the ensemble with the known pixels moved to its front. That is the exact
conditional where nothing is known, and for K = 1 where the ordering begins with the known pixels. Otherwise it is what
the network says: orderings are drawn alike, however likely each makes the known pixels.
Prediction: exact, given an ordering: that of the ensemble in which an image was drawn. The ensemble itself has no order
in which pixels come.
Differs from the paper: Adam with averaged weights.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import forced, log_likelihood
from zoo.capabilities import Autoregressive, Batch, Completable, TractableDensity
from zoo.config import Between, Size
from zoo.progress import steps
from zoo.random import Streams, rand


class EoNADE(TractableDensity, Completable, Autoregressive):
    """A network that sees some pixels, and which ones, and tells the others.

    Args:
        event_shape: shape of one example; values in {0, 1}.
        hidden: units of each hidden layer.
        num_layers: of hidden units.
        num_orderings: K.
        order_seed: of the orderings of the ensemble.
    """

    levels = 2
    orders: Tensor

    def __init__(
        self,
        event_shape: list[Size] = [1, 28, 28],  # noqa: B006
        hidden: Size = 500,
        num_layers: Annotated[int, Between(1, 20)] = 2,
        num_orderings: Annotated[int, Between(1, 1000)] = 8,
        order_seed: Annotated[int, Between(0, 1_000_000)] = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = size = math.prod(event_shape)
        self.num_orderings = num_orderings
        scale = 1 / math.sqrt(size)
        self.weight = nn.Parameter(torch.randn(size, hidden) * scale)  # of pixels, a row each
        self.mask_weight = nn.Parameter(torch.randn(size, hidden) * scale)  # of whether they are known
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(num_layers - 1))
        self.output = nn.Parameter(torch.randn(size, hidden) / math.sqrt(hidden))  # V
        self.output_bias = nn.Parameter(torch.zeros(size))  # b
        uniforms = torch.rand(num_orderings, size, generator=torch.Generator().manual_seed(order_seed))
        self.register_buffer("orders", uniforms.argsort(1), persistent=False)  # [K, D]

    def _first(self, x: Tensor, known: Tensor) -> Tensor:
        """What enters the first nonlinearity: [B, D], [B, D] -> [B, H]."""
        return torch.addmm(self.bias, x * known, self.weight) + known @ self.mask_weight

    def _hidden(self, first: Tensor) -> Tensor:
        h = first.relu()
        for layer in self.layers:
            h = layer(h).relu()
        return h

    def logits(self, x: Tensor, known: Tensor) -> Tensor:
        """Of all pixels given the known ones: x [B, D], known [B, D] of 0 and 1 -> [B, D]; see `log_prob`."""
        return F.linear(self._hidden(self._first(x, known)), self.output, self.output_bias)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """An estimate of the mean of log p(x given o) over all orderings, from one pass."""
        rank = rand((len(x), self.size), streams, x.device).argsort(1).argsort(1)
        num_known = (rand((len(x), 1), streams, x.device) * self.size).long()
        unknown = (rank >= num_known).to(x)
        log_probs = log_likelihood(self.logits(x.flatten(1), 1 - unknown), x)
        return self.size / (self.size - num_known[:, 0]) * (log_probs * unknown).sum(1)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """What training minimises: in the mean, no less than the ensemble of all orderings has."""
        return {"nll": -self.training_log_prob(batch.x, self.streams(batch, training=False))}

    def log_prob_given(self, x: Tensor, order: Tensor) -> Tensor:
        """log p(x given one ordering [D]) in nats, each pixel given those before it: [B, *event_shape] -> [B]."""
        x = x.flatten(1)
        first, logits = self.bias.expand(len(x), -1), []
        for d in order.tolist():
            logits.append(self._hidden(first) @ self.output[d] + self.output_bias[d])
            first = first + torch.addcmul(self.mask_weight[d], x[:, d, None], self.weight[d])
        return log_likelihood(torch.stack(logits, 1), x[:, order]).sum(1)

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """By the density of one ordering, which each image may have for itself; see `Autoregressive`."""
        values, rows = x.flatten(1), torch.arange(len(x), device=x.device)
        order = self.orders[:1].expand(len(x), -1) if order is None else order
        first, logits = self.bias.expand(len(x), -1), torch.empty_like(values)
        for d in order.T:
            logits[rows, d] = (self._hidden(first) * self.output[d]).sum(1) + self.output_bias[d]
            first = first + torch.addcmul(self.mask_weight[d], values[rows, d, None], self.weight[d])
        return logits.sigmoid().view_as(x)

    def order(self, streams: Streams) -> Tensor:
        """That of the ensemble in which each image is drawn."""
        return self.orders[self._choice(streams)]

    def _choice(self, streams: Streams) -> Tensor:
        """The number of an ordering for each image, its first draw: [len(streams)]."""
        return (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_orderings).long()

    def log_prob(self, x: Tensor) -> Tensor:
        log_probs = torch.stack([self.log_prob_given(x, order) for order in self.orders])
        return log_probs.logsumexp(0) - math.log(self.num_orderings)

    def draw(self, streams: Streams) -> Tensor:
        known = torch.zeros(len(streams), self.size, dtype=torch.bool, device=self.device)
        return self._fill(known.to(self.dtype), known, streams).view(-1, *self.event_shape)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """As `Completable.fill`, from any mask, by what the network says: rarely exact, see the module."""
        return self._fill(x.flatten(1).to(self.dtype), known.flatten(1), streams).view_as(x)

    def _fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """The unknown pixels in the order of one of the orderings, which an image draws: [B, D], [B, D] -> [B, D]."""
        choice = self._choice(streams)
        uniforms = forced(rand((len(x), self.size), streams, self.device), x, known)
        rank = self.orders.argsort(1)[choice] - self.size * known.long()  # the known ones come first
        order = rank.argsort(1)
        begin = int(known.sum(1).min()) if len(x) else 0
        seen = torch.zeros_like(x).scatter_(1, order[:, :begin], 1)
        x, rows = x * seen, torch.arange(len(x), device=x.device)
        with torch.autocast(self.device.type, enabled=False):
            first = self._first(x, seen)
            for d in steps(order[:, begin:].T, "pixel"):
                logits = (self._hidden(first) * self.output[d]).sum(1) + self.output_bias[d]
                x[rows, d] = (uniforms[rows, d] < logits.sigmoid()).to(x)
                first += x[rows, d, None] * self.weight[d] + self.mask_weight[d]
        return x
