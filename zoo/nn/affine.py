"""A convolution of single pixels as one product, bias and all."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


def with_bias(layer: nn.Conv2d) -> Tensor:
    """Bias, then weight: [1 + in, out], of an input whose first entry is one; a copy."""
    return torch.cat([cast(Tensor, layer.bias)[None], layer.weight[:, :, 0, 0].T])
