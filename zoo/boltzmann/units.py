"""Binary units: what the Boltzmann machines share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.precision import widest
from zoo.random import Streams, rand

MAX_ENUMERATED = 20
"""Number of units up to which sums over all their states are taken: about a million terms."""


def log_two_cosh(a: Tensor) -> Tensor:
    """log(e^(a/2) + e^(-a/2)): log of the sum of exp(h a) over h = -1/2, 1/2."""
    size = a.abs()
    return size / 2 - size.sigmoid().log()  # softplus computes the same five times as slowly


def log_bernoulli(units: Tensor, logits: Tensor) -> Tensor:
    """log of the probability of independent units: values in {0, 1} and logits, [..., N] -> [...]."""
    return (units * logits - F.softplus(logits)).sum(-1)


def entropy_of_bits(mean: Tensor) -> Tensor:
    """The entropy of each unit in nats: probabilities of 1, [..., N] -> [..., N]."""
    return torch.special.entr(mean) + torch.special.entr(1 - mean)


def draw_bits(logits: Tensor, streams: Streams) -> Tensor:
    """Independent units that are 1 with probability sigmoid(logits), else 0: [B, N] -> [B, N]."""
    return rand(tuple(logits.shape), streams, logits.device).lt_(logits.sigmoid()).to(logits.dtype)


def bit_states(num_units: int, *, like: Tensor, rows: int = 4096) -> Iterator[Tensor]:
    """All states of binary units in float64, in blocks of at most `rows`: [rows, num_units] each."""
    places = torch.arange(num_units - 1, -1, -1, device=like.device)
    for numbers in torch.arange(2**num_units, device=like.device).split(rows):
        yield widest((numbers[:, None] >> places) & 1)
