"""EoNADE: one network for every ordering of the pixels, and an ensemble over orderings (Uria et al. 2014, A Deep and
Tractable Density Estimator, https://arxiv.org/abs/1310.1757; Uria et al. 2016, section 4).

    p(x_d = 1 | the pixels that m marks) = p<k>_d
    p<t> = sigmoid(b + V h(x m + p<t-1> (1 - m), m)),    p<0> = sigmoid(b);    EoNADE: p<1> = sigmoid(b + V h(x m, m))
    log p(x | o) = sum_d log p(x_o(d) | x_o(<d)),    log p(x) = logsumexp_o log p(x | o) - log K
    training: D/(D - d) sum_{i >= d} log p(x_o(i) | x_o(<d)),    o and d drawn for each image and step        (eq. 18)
              for k > 1, the mean of this over p<1>, ..., p<k>; after that, p<k> alone

The ensemble averages the probabilities of the orderings; averaging their logits would not give a density. With k > 1
steps of inference of the unknown pixels, the model is EoNADE-k (Raiko et al. 2014, Iterative Neural Autoregressive
Distribution Estimator NADE-k, https://arxiv.org/abs/1406.1485). In the sums of the first layer, an unknown pixel counts
as p<t-1> - p<0>; the biases and the weights of m can absorb the rest. The first step is therefore the same as for
k = 1 and needs no sums over unknown pixels.

Density: exact, for K orderings; O(K D (k H^2 + (k - 1) D H)). Only the first layer of the first step can be updated
one pixel at a time; the later steps sum over all unknown pixels each time.
Sampling: exact, one pixel at a time, O(D (k H^2 + (k - 1) D H)).
Completion: from any mask, in an ordering of the ensemble with the known pixels moved to its front. This is exact if
nothing is known, or if K = 1 and the ordering begins with the known pixels. Otherwise it is an approximation: each
ordering is chosen with equal probability, however likely it makes the known pixels.
Prediction: exact, given the ordering of the ensemble in which an image was drawn. The ensemble itself has no order.
Differs from the papers: shifted images (see `zoo.autoregressive.regularization`); clipped gradients; AdamW with a
warm-up and a cosine schedule; averaged weights. For k > 1, p<0> is learned, not the mean of the training images; every
step sees m, which the authors' settings leave out (https://github.com/yaoli/nade_k); relu, not tanh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import forced, log_likelihood
from zoo.autoregressive.regularization import bias_of, shift, shift_biases
from zoo.batch import Batch
from zoo.capabilities import Autoregressive, Completable, TractableDensity
from zoo.config import Between, Shift, Size
from zoo.objectives import Losses, MaximumLikelihood, Objective
from zoo.progress import steps
from zoo.random import Streams, rand


class _AllOrderings(MaximumLikelihood):
    """Validates with the last step's estimate, whose mean is at least the `nll` of the mixture of all orderings."""

    def validation_step(self, model: EoNADE, batch: Batch) -> Losses:
        return {"nll": -model.estimates(batch.x, model.streams(batch, training=False))[-1]}


class EoNADE(TractableDensity, Completable, Autoregressive):
    """A network that sees some of the pixels, and a mask of their positions, and predicts the others.

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        hidden: Number of units of each hidden layer.
        num_layers: Number of hidden layers.
        num_orderings: Number of orderings in the ensemble, K.
        order_seed: Seed for drawing these orderings.
        num_steps: Number of inference steps, k.
        cost: Cost that training minimises: the `mean` over all steps, or that of the `last` step alone.
        max_shift: Largest shift along each axis, in pixels; training shifts each image with probability 1/2.
    """

    objective: Objective = _AllOrderings()
    facts: ClassVar = {"completes": "approximately"}
    levels: int = 2
    orders: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        hidden: Size = 500,
        num_layers: Annotated[int, Between(1, 20)] = 2,
        num_orderings: Annotated[int, Between(1, 1000)] = 8,
        order_seed: Annotated[int, Between(0, 1_000_000)] = 0,
        num_steps: Annotated[int, Between(1, 20)] = 1,
        cost: Literal["mean", "last"] = "mean",
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = size = math.prod(event_shape)
        self.num_orderings = num_orderings
        self.num_steps = num_steps
        self.cost, self.max_shift = cost, max_shift
        scale = 1 / math.sqrt(size)
        self.weight = nn.Parameter(torch.randn(size, hidden) * scale)  # of the pixels, [D, H]
        self.mask_weight = nn.Parameter(torch.randn(size, hidden) * scale)  # of the mask m, [D, H]
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(num_layers - 1))
        self.output = nn.Parameter(torch.randn(size, hidden) / math.sqrt(hidden))  # V
        self.output_bias = nn.Parameter(torch.zeros(size))  # b
        if max_shift:
            self.shift_biases = shift_biases(event_shape, max_shift, hidden)
        uniforms = torch.rand(num_orderings, size, generator=torch.Generator().manual_seed(order_seed))
        self.register_buffer("orders", uniforms.argsort(1), persistent=False)  # [K, D]

    def _first(self, x: Tensor, known: Tensor) -> Tensor:
        """Input of the first nonlinearity, [B, H], given x and known, [B, D]."""
        return torch.addmm(self.bias, x * known, self.weight) + known @ self.mask_weight

    def _hidden(self, first: Tensor) -> Tensor:
        h = first.relu()
        for layer in self.layers:
            h = layer(h).relu()
        return h

    def _infer(
        self, first: Tensor, unknown: Tensor | None = None, pixels: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The last hidden layer of the last step, [B, H], and the logits of the steps before, each [B, D].

        Args:
            first: Input of the first nonlinearity in the first step, [B, H].
            unknown: 1 for each unknown pixel, else 0, [B, D]; None if all pixels are unknown.
            pixels: Rows of W, V and b for some pixels, including all unknown ones; None for all pixels.
        """
        weight, output, bias = pixels or (self.weight, self.output, self.output_bias)
        h, earlier = self._hidden(first), []
        for _ in range(self.num_steps - 1):
            earlier.append(F.linear(h, output, bias))
            change = earlier[-1].sigmoid() - bias.sigmoid()
            change = change if unknown is None else change * unknown
            h = self._hidden(torch.addmm(first, change, weight))
        return h, earlier

    def _every_step(self, x: Tensor, known: Tensor, shifts: Tensor | None = None) -> list[Tensor]:
        """Logits of each step, [B, D], given the shifts of the images, [B, 2]; see `logits`."""
        first = self._first(x, known)
        if shifts is not None and self.max_shift:
            first = first + bias_of(shifts, self.shift_biases)
        h, earlier = self._infer(first, 1 - known)
        return [*earlier, F.linear(h, self.output, self.output_bias)]

    def logits(self, x: Tensor, known: Tensor) -> Tensor:
        """Logits of all pixels, [B, D], given the pixels of x, [B, D], where the mask `known`, [B, D], is 1."""
        return self._every_step(x, known)[-1]

    def log_prob_given(self, x: Tensor, order: Tensor) -> Tensor:
        """log p(x | order) in nats, [B], given images, [B, *event_shape], and one ordering of the pixels, [D]."""
        weight, mask_weight, output, bias = (
            p[order] for p in (self.weight, self.mask_weight, self.output, self.output_bias)
        )
        x, first, logits = x.flatten(1)[:, order], self.bias.expand(x.shape[0], -1), []
        for i in range(self.size):
            h, _ = self._infer(first, pixels=[weight[i:], output[i:], bias[i:]])
            logits.append(h @ output[i] + bias[i])
            first = first + torch.addcmul(mask_weight[i], x[:, i, None], weight[i])
        return log_likelihood(torch.stack(logits, 1), x).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        log_probs = torch.stack([self.log_prob_given(x, order) for order in self.orders])
        return log_probs.logsumexp(0) - math.log(self.num_orderings)

    def draw(self, streams: Streams) -> Tensor:
        known = torch.zeros(len(streams), self.size, dtype=torch.bool, device=self.device)
        return self._fill(known.to(self.dtype), known, streams).view(-1, *self.event_shape)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Draws the unknown pixels under any mask. The distribution is rarely exact; see the module's docstring."""
        return self._fill(x.flatten(1).to(self.dtype), known.flatten(1), streams).view_as(x)

    def _fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Draws an ordering for each image, then its unknown pixels in this order: [B, D], [B, D] -> [B, D]."""
        choice = self._choice(streams)
        uniforms = forced(rand((len(x), self.size), streams, self.device), x, known)
        order = (self.orders.argsort(1)[choice] - self.size * known.long()).argsort(1)  # the known ones come first
        rank, rows = order.argsort(1), torch.arange(len(x), device=x.device)
        begin = int(known.sum(1).min()) if len(x) else 0
        seen = (rank < begin).to(x)
        x = x * seen
        with torch.autocast(self.device.type, enabled=False):
            first = self._first(x, seen)
            for i, d in enumerate(steps(order[:, begin:].T, "pixel"), begin):
                h, _ = self._infer(first, rank >= i)
                logits = (h * self.output[d]).sum(1) + self.output_bias[d]
                x[rows, d] = (uniforms[rows, d] < logits.sigmoid()).to(x)
                first += x[rows, d, None] * self.weight[d] + self.mask_weight[d]
        return x

    def order(self, streams: Streams) -> Tensor:
        """The ordering of the ensemble in which each image is drawn."""
        return self.orders[self._choice(streams)]

    def _choice(self, streams: Streams) -> Tensor:
        """Index of the ordering of each image, the first draw from its stream: [len(streams)]."""
        return (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_orderings).long()

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """Expectations given an ordering, which may differ between images; see `Autoregressive`."""
        values, rows = x.flatten(1), torch.arange(len(x), device=x.device)
        order = self.orders[:1].expand(len(x), -1) if order is None else order
        first, logits, rank = self.bias.expand(len(x), -1), torch.empty_like(values), order.argsort(1)
        for i, d in enumerate(order.T):
            h, _ = self._infer(first, rank >= i)
            logits[rows, d] = (h * self.output[d]).sum(1) + self.output_bias[d]
            first = first + torch.addcmul(self.mask_weight[d], values[rows, d, None], self.weight[d])
        return logits.sigmoid().view_as(x)

    def estimates(self, x: Tensor, streams: Streams, shifts: Tensor | None = None) -> Tensor:
        """Estimates of the mean of log p(x | o, shift) over all orderings o, one from each step of a pass, [k, B]."""
        rank = rand((len(x), self.size), streams, x.device).argsort(1).argsort(1)
        num_known = (rand((len(x), 1), streams, x.device) * self.size).long()
        unknown = (rank >= num_known).to(x)
        each = self._every_step(x.flatten(1), 1 - unknown, shifts)
        log_probs = torch.stack([(log_likelihood(logits, x) * unknown).sum(1) for logits in each])
        return self.size / (self.size - num_known[:, 0]) * log_probs

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """A one-pass estimate, [B], of the mean of log p(x | o) over all orderings, for shifted images; see `cost`."""
        x, shifts = shift(x, self.max_shift, streams)
        estimates = self.estimates(x, streams, shifts)
        return estimates.mean(0) if self.cost == "mean" else estimates[-1]
