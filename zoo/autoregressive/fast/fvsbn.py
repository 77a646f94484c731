"""FVSBN pixel by pixel: one product of a row of W for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.progress import steps

if TYPE_CHECKING:
    from zoo.autoregressive.fvsbn import FVSBN


def from_uniforms(model: FVSBN, uniforms: Tensor) -> Tensor:
    """Takes the place of `FVSBN.from_uniforms`."""
    u = uniforms.flatten(1).T.contiguous()  # [D, B], so that a pixel is a row
    x = torch.zeros_like(u)
    for d in steps(range(len(u)), "pixel"):
        row = model.weight[d * (d - 1) // 2 : d * (d + 1) // 2]
        x[d] = u[d] < (model.bias[d] + row @ x[:d]).sigmoid()
    return x.T.reshape(uniforms.shape)
