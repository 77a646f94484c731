"""What models that draw one pixel after another show: receptive fields, expectations, a drawing in the making."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.autoregressive.raster import RasterOrder
from zoo.capabilities import Autoregressive, GenerativeModel
from zoo.errors import ConfigError
from zoo.random import Streams, seed_from


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
    if not isinstance(model, RasterOrder):
        raise ConfigError(
            "receptive-field: expected a model that draws pixels in raster order (zoo.autoregressive.raster), found "
            f"{type(model).__name__}; `zoo list --family autoregressive` shows candidates"
        )
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
def draw(model: GenerativeModel, num: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draws, and the order in which the pixels of each came.

    Returns:
        [num, *event_shape], and [num, D], int64.

    Raises:
        ConfigError: the model is not `Autoregressive`.
    """
    generator = generator or torch.Generator().manual_seed(seed_from(None))
    again = generator.clone_state()
    order = autoregressive(model).order(Streams(seed_from(again), range(num)))
    return model.sample(num, generator=generator), order


@torch.no_grad()
def probabilities(model: GenerativeModel, x: Tensor, order: Tensor | None = None) -> Tensor:
    """p(x_d = 1 given the pixels before) of every binary pixel, or the grey level or colour expected of it.

    Args:
        x: [B, *event_shape].
        order: in which the pixels of each image came, [B, D]; by default, the first order that the model has.

    Returns:
        [B, *event_shape].

    Raises:
        ConfigError: the model is not `Autoregressive`.
    """
    return autoregressive(model).expected(x.to(model.device), order)


def drawing(x: Tensor, num_frames: int, order: Tensor | None = None) -> Tensor:
    """Images as they are drawn, pixel by pixel, grey where nothing is yet: [B, ...] -> [num_frames, B, ...].

    The first frame is empty, and the last one is x; at least 2 frames.

    Args:
        order: in which the pixels come, [B, D], places in a flattened image; by default, as they lie there.
    """
    if num_frames < 2:
        raise ConfigError(f"animate: expected at least 2 frames, the first and the last, found {num_frames}")
    size = x[0].numel()
    rank = torch.arange(size, device=x.device).expand(len(x), -1) if order is None else order.argsort(1)
    known = torch.linspace(0, size, num_frames, device=x.device).round()[:, None, None] > rank
    return x.where(known.view(num_frames, *x.shape), 0.5)


def autoregressive(model: GenerativeModel) -> Autoregressive:
    """The model, one that draws one pixel after another; ConfigError where it does not."""
    if not isinstance(model, Autoregressive):
        raise ConfigError(
            f"pixel by pixel: expected a model that draws one after another (zoo.capabilities.Autoregressive), found "
            f"{type(model).__name__}; `zoo list --capability Autoregressive` shows candidates"
        )
    return model
