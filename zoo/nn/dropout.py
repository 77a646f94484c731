"""Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html) with noise keyed by example."""

from __future__ import annotations

from torch import Tensor

from zoo.random import Streams, rand


def dropout(x: Tensor, rate: float, streams: Streams | None) -> Tensor:
    """Zeroes a fraction `rate` of x [B, ...] and scales up the rest; without streams, or at rate 0, x itself."""
    if streams is None or not rate:
        return x
    return x * (rand(tuple(x.shape), streams, x.device) >= rate) / (1 - rate)
