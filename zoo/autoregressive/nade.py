"""NADE: neural autoregressive distribution estimator (Larochelle & Murray 2011; Uria et al. 2016, section 2).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(b_d + V_d h_d)                 (eq. 2)
    h_d = sigmoid(c + W_<d x_<d)                                                                               (eq. 3)

https://proceedings.mlr.press/v15/larochelle11a.html, https://arxiv.org/abs/1605.02226. Training may shift the images,
with the shift as an input (Jun et al. 2020): see `zoo.nn.shift`.

Density: exact, O(D H); h changes only after a pixel that is on, so it is computed for these alone.
Sampling: exact, O(D H), likewise.
Differs from the paper: shifted images; dropout; Adam with averaged weights.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import RasterOrder, log_likelihood
from zoo.config import Fraction, Shift, Size
from zoo.nn.dropout import dropout
from zoo.nn.shift import num_shifts, shift
from zoo.random import Streams

warnings.filterwarnings("ignore", "Sparse (CSR tensor support is in beta|invariant checks are)", UserWarning)

BLOCK = 32  # terms of a cumulative sum that one matrix product adds up; any number gives the same sums


class NADE(RasterOrder):
    """One hidden layer per pixel, all with the same weights.

    Args:
        event_shape: shape of one example; values in {0, 1}.
        hidden: units of a hidden layer.
        dropout: fraction of the hidden units that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

    def __init__(
        self,
        event_shape: list[Size] = [1, 28, 28],  # noqa: B006
        hidden: Size = 500,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = math.prod(event_shape)
        self.dropout = dropout
        self.max_shift = max_shift
        self.weight = nn.Parameter(torch.randn(self.size, hidden) * 0.05)  # W, a row per pixel
        self.output = nn.Parameter(torch.randn(self.size, hidden) * 0.05)  # V
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))  # c
        self.bias = nn.Parameter(torch.zeros(self.size))  # b
        if max_shift:
            self.shift_biases = nn.Parameter(torch.zeros(num_shifts(max_shift), hidden + self.size))

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        x = x.flatten(1)
        biases = torch.cat([self.hidden_bias, self.bias])
        if shifts is not None:
            none = num_shifts(self.max_shift) // 2  # its row stays zero
            biases = biases + F.embedding(shifts, self.shift_biases, padding_idx=none)
        hidden_bias, bias = biases.split([len(self.hidden_bias), self.size], -1)
        # state e of an image: h after e pixels that are on
        count = x.long().cumsum(1)
        image, pixel = x.nonzero(as_tuple=True)
        num_states = BLOCK * (int(count.max()) // BLOCK + 1)
        events = torch.full((num_states, len(x)), self.size, device=x.device)  # none, unless
        events[count[image, pixel], image] = pixel
        terms = F.embedding(events, F.pad(self.weight, (0, 0, 0, 1)))  # [E, B, H]
        states = (hidden_bias + cumulative(terms)).sigmoid()
        states = states * dropout(torch.ones_like(states[0]), self.dropout, streams)
        # the logit of a pixel takes the state before it: one entry of the matrix of all states by all pixels
        state = (count - x.long()) * len(x) + torch.arange(len(x), device=x.device)[:, None]
        order = state.flatten().argsort(stable=True)
        ends = F.pad(state.flatten().bincount(minlength=num_states * len(x)).cumsum(0), (1, 0))
        shape = (num_states * len(x), self.size)
        pattern = torch.sparse_csr_tensor(
            ends, order % self.size, torch.zeros_like(order, dtype=states.dtype), shape, check_invariants=False
        )
        chosen = torch.sparse.sampled_addmm(pattern, states.flatten(0, 1), self.output.T, beta=0.0).values()
        return torch.zeros_like(chosen).scatter(0, order, chosen).view_as(x) + bias

    def logits(self, x: Tensor) -> Tensor:
        return self._logits(x)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """log p(x given its shift), with dropout."""
        x, shifts = shift(x, self.max_shift, streams) if self.max_shift else (x, None)
        with torch.autocast(self.device.type, enabled=False):  # sparse products have no half precision
            return log_likelihood(self._logits(x, shifts, streams), x).sum(-1)

    def scan(self, uniforms: Tensor) -> Tensor:
        u = uniforms.T.contiguous()  # [D, B], so that a pixel is a row
        x = torch.zeros_like(u)
        sums = self.hidden_bias.expand(u.shape[1], -1).clone()
        h = sums.sigmoid()
        for d in range(self.size):
            x[d] = u[d] < (h @ self.output[d] + self.bias[d]).sigmoid()
            on = x[d].nonzero()[:, 0]
            sums[on] += self.weight[d]
            h[on] = sums[on].sigmoid()
        return x.T


def cumulative(terms: Tensor) -> Tensor:
    """Sums over the first dimension up to each place, [N, ...] with N a multiple of BLOCK: as matrix products."""
    blocks = terms.reshape(-1, BLOCK, terms[0].numel())
    sums = torch.ones(BLOCK, BLOCK, device=terms.device).tril() @ blocks
    before = F.pad(sums[:-1, -1:], (0, 0, 0, 0, 1, 0)).cumsum(0)
    return (sums + before).view_as(terms)
