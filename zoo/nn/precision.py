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


NO_DOUBLE = frozenset({"mps"})
"""Types of devices that have no double precision."""


def widest_dtype(device: torch.device) -> torch.dtype:
    """Double precision where a device has it, else single: the type of sums over many examples or states."""
    return torch.float32 if device.type in NO_DOUBLE else torch.float64


def widest(x: Tensor) -> Tensor:
    """x in the widest precision that its device has; see `widest_dtype`."""
    return x.to(widest_dtype(x.device))
