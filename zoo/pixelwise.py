"""What models that draw one pixel after another show: receptive fields, probabilities, a drawing in the making."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.autoregressive.raster import RasterOrder
from zoo.capabilities import GenerativeModel
from zoo.errors import ConfigError


def receptive_field(
    model: GenerativeModel, row: int, column: int, *, num: int = 64, generator: torch.Generator | None = None
) -> Tensor:
    """How much the logit of a pixel changes with every other: mean |d logit / d x| over images of coin flips.

    Where it is exactly zero, the pixel is blind. In double precision, so that what is small is not zero.

    Args:
        row, column: of the pixel, in the first channel.
        num: images to average over.
        generator: of the coin flips.

    Returns:
        [C, H, W], at least 0.

    Raises:
        ConfigError: the model is not `RasterOrder`, or has no such pixel.
    """
    model = _in_raster_order(model, "receptive-field")
    _, height, width = model.event_shape
    if not (0 <= row < height and 0 <= column < width):
        raise ConfigError(
            f"receptive-field: expected a pixel between 0,0 and {height - 1},{width - 1}, found {row},{column}"
        )
    double = copy.deepcopy(model).double()
    flips = torch.rand(num, *model.event_shape, generator=generator, dtype=torch.float64) < 0.5
    x = flips.to(model.device, torch.float64).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(double.logits(x)[:, row * width + column].sum(), x)
    return gradient.abs().mean(0).float()


@torch.no_grad()
def probabilities(model: GenerativeModel, x: Tensor) -> Tensor:
    """p(x_d = 1 given the pixels before) of every pixel: [B, *event_shape] -> the same.

    Raises:
        ConfigError: the model is not `RasterOrder`.
    """
    model = _in_raster_order(model, "probabilities")
    return model.logits(x.to(model.device)).sigmoid().view_as(x)


def drawing(x: Tensor, num_frames: int) -> Tensor:
    """Images as they are drawn, pixel by pixel, grey where nothing is yet: [B, ...] -> [num_frames, B, ...].

    The first frame is empty, and the last one is x; at least 2 frames.
    """
    if num_frames < 2:
        raise ConfigError(f"animate: expected at least 2 frames, the first and the last, found {num_frames}")
    size = x[0].numel()
    known = torch.linspace(0, size, num_frames, device=x.device).round()[:, None] > torch.arange(size, device=x.device)
    return x.where(known.view(num_frames, 1, *x.shape[1:]), 0.5)


def _in_raster_order(model: GenerativeModel, name: str) -> RasterOrder:
    if not isinstance(model, RasterOrder):
        raise ConfigError(
            f"{name}: expected a model that draws pixels in raster order (zoo.autoregressive.raster), found "
            f"{type(model).__name__}; `zoo list --family autoregressive` shows candidates"
        )
    return model
