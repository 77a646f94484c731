"""Runs a recurrent layer as a single kernel if the GPU supports it; see `zoo.autoregressive.fast.scans`."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lstm(inputs: Tensor, weight: Tensor, before: int, after: int) -> Tensor | None:
    """Fast version of `_lstm` in `zoo.autoregressive.pixelrnn`, for up to 32 places per line and 32 channels."""
    if inputs.shape[3] > 32 or not is_fused(inputs, inputs.shape[-1] // 4, 32):
        return None
    from zoo.autoregressive.fast.scans import lstm

    return lstm(inputs, weight, before, after)


def gru(layer: nn.GRU, x: Tensor) -> Tensor | None:
    """Fast version of `_gru` in `zoo.autoregressive.rnn`, for up to 128 units."""
    if not is_fused(x, layer.hidden_size, 128):
        return None
    from zoo.autoregressive.fast.scans import gru

    weight_x, weight_h, bias_x, bias_h = layer.all_weights[0]
    return gru(F.linear(x, weight_x, bias_x), weight_h, bias_h)


def is_fused(x: Tensor, width: int, widest: int) -> bool:
    """Whether a kernel can run. It needs a GPU with bfloat16, autocast, Triton, and a width that fills a tile.

    Args:
        x: Input of the layer.
        width: Width of the states; it fills a tile if it is a power of two and at least 16.
        widest: Largest width of the kernel. Widths above 64 fit into the shared memory of A100, H100 and H200 only.
    """
    if not (x.is_cuda and torch.is_autocast_enabled("cuda") and x.dtype != torch.float64):
        return False
    is_tile = width & (width - 1) == 0 and 16 <= width <= widest
    capability = torch.cuda.get_device_capability(x.device)
    fits = capability in ((8, 0), (9, 0)) if width > 64 else capability >= (8, 0)
    return is_tile and fits and find_spec("triton") is not None
