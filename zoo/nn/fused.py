"""Where recurrent layers run as one kernel: see `zoo.nn.scans`."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor


def is_fused(x: Tensor, width: int, most: int) -> bool:
    """On GPUs under autocast, where Triton is, for widths of tiles: powers of two from 16 to `most`."""
    is_tile = width & (width - 1) == 0 and 16 <= width <= most
    return is_tile and x.is_cuda and torch.is_autocast_enabled("cuda") and find_spec("triton") is not None
