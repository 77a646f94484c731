"""Where recurrent layers run as one kernel: see `zoo.nn.scans`."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor


def is_fused(x: Tensor, width: int, most: int) -> bool:
    """On GPUs that know bfloat16, under autocast and where Triton is, for widths of tiles: powers of two from 16 on.

    Args:
        width: of the states.
        most: the largest width of a kernel; above 64, its weights fit into the shared memory of A100, H100 and H200.
    """
    if not (x.is_cuda and torch.is_autocast_enabled("cuda") and x.dtype != torch.float64):
        return False
    is_tile = width & (width - 1) == 0 and 16 <= width <= most
    capability = torch.cuda.get_device_capability(x.device)
    return is_tile and _holds(capability, width) and find_spec("triton") is not None


def _holds(capability: tuple[int, int], width: int) -> bool:
    return capability in ((8, 0), (9, 0)) if width > 64 else capability >= (8, 0)
