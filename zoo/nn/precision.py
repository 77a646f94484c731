"""Precision of the network outputs from which probabilities are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """x in single precision if it is in half precision; otherwise x itself.

    The weights of a model and autocast determine the precision of its networks. Half precision has too few digits for
    sums of log-probabilities over pixels.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
