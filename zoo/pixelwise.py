"""Views of models that draw one pixel after another: receptive fields, expectations, and images as they are drawn."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from zoo.capabilities import Autoregressive, GenerativeModel
from zoo.errors import ConfigError
from zoo.given import check_images
from zoo.progress import steps
from zoo.random import Streams, rand, seed_from

PART = 1  # images per backward pass; more are no faster, and each takes 0.6 GB more for colours of 32x32 pixels


def receptive_field(
    model: GenerativeModel, row: int, column: int, *, num: int = 16, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of |dE[x_d | the values before x_d] / dx| over images of noise, for a pixel d.

    In the noise, all levels are equally likely. If the field is exactly zero somewhere, the model does not see that
    pixel; gradients are in double precision, so that small ones are not rounded to zero. Values that select a level
    have no gradient: in `zoo.autoregressive.color_pixelcnn`, these are the earlier channels of the same pixel, and with
    `embedding` the learned vectors of levels. The field is then that of the values alone.

    Args:
        model: An Autoregressive model of images.
        row, column: Position of the pixel.
        num: Number of images to average over.
        generator: Source of the noise, and of the order if the model has several; all images have the same order.

    Returns:
        The field of each channel of the pixel, float64, at least 0; and a bool mask of the values that come before it.
        Both are [C, *event_shape].

    Raises:
        ConfigError: The model is not `Autoregressive` or has no such pixel, or `num` is below 1.
    """
    levels = autoregressive(model).levels
    assert levels is not None  # the models that draw value by value are of grey levels
    if len(model.event_shape) != 3 or num < 1:
        raise ConfigError(
            f"receptive-field: expected a model of images (C, H, W) and num at least 1, found an event_shape of "
            f"{list(model.event_shape)} and num {num}"
        )
    channels, height, width = model.event_shape
    if not (0 <= row < height and 0 <= column < width):
        raise ConfigError(
            f"receptive-field: expected a pixel between 0,0 and {height - 1},{width - 1}, found {row},{column}"
        )
    double: Any = copy.deepcopy(model).cpu().double()  # Apple's MPS has no double precision
    seed = seed_from(generator)
    order = double.order(Streams(seed, [0]))
    x = rand((num, *model.event_shape), Streams(seed, range(num)), double.device).double()
    x = (x * levels).floor() / (levels - 1)
    total = x.new_zeros(channels, *model.event_shape)
    with torch.enable_grad():
        for part in steps(x.split(PART), "batch"):
            expected = double.expected(part.requires_grad_(), order.expand(len(part), -1))[:, :, row, column].sum(0)
            for field, value in zip(total, expected, strict=True):
                field += torch.autograd.grad(value, part, retain_graph=True)[0].abs().sum(0)
    rank = order[0].argsort().view(model.event_shape)
    return total / num, rank < rank[:, row, column, None, None, None]


@torch.no_grad()
def draw(model: GenerativeModel, num: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draws images, and returns the order in which the pixels of each were drawn.

    Args:
        model: An Autoregressive model.
        num: Number of images.
        generator: Source of the random draws.

    Returns:
        The images, [num, *event_shape], and the orders, [num, D], int64: positions in the flattened image.

    Raises:
        ConfigError: The model is not `Autoregressive`.
    """
    generator = generator or torch.Generator().manual_seed(seed_from(None))
    again = generator.clone_state()
    order = autoregressive(model).order(Streams(seed_from(again), range(num)))
    return model.sample(num, generator=generator), order


@torch.no_grad()
def probabilities(model: GenerativeModel, x: Tensor, order: Tensor | None = None) -> Tensor:
    """E[x_d | the pixels before x_d] of every pixel d: the probability of 1 if pixels are binary.

    Args:
        model: An Autoregressive model.
        x: Images, [B, *event_shape].
        order: Order in which the pixels of each image were drawn, [B, D]; by default, the first one of the model.

    Returns:
        Expectations in [0, 1], [B, *event_shape].

    Raises:
        ConfigError: The model is not `Autoregressive`.
        DataError: The images do not have the shape of the model's examples.
    """
    density = autoregressive(model)
    check_images(model, x, "probabilities")
    return density.expected(x.to(model.device, model.dtype), order)


def drawing(x: Tensor, num_frames: int, order: Tensor | None = None) -> Tensor:
    """Images as they are drawn pixel by pixel; pixels that are not drawn yet are grey.

    Args:
        x: Images, [B, *event_shape].
        num_frames: Number of frames, at least 2: the first is empty, and the last is x.
        order: Order in which the pixels come, [B, D], as positions in the flattened image; by default, from the first
            position to the last.

    Returns:
        [num_frames, B, *event_shape].

    Raises:
        ConfigError: There are fewer than 2 frames.
    """
    if num_frames < 2:
        raise ConfigError(f"animate: expected at least 2 frames, the first and the last, found {num_frames}")
    size = math.prod(x.shape[1:])
    rank = torch.arange(size, device=x.device).expand(len(x), -1) if order is None else order.argsort(1)
    known = torch.linspace(0, size, num_frames, device=x.device).round()[:, None, None] > rank
    return x.where(known.view(num_frames, *x.shape), 0.5)


def autoregressive(model: GenerativeModel) -> Autoregressive:
    """Returns the model if it draws one pixel after another.

    Raises:
        ConfigError: The model is not `Autoregressive`.
    """
    if not isinstance(model, Autoregressive):
        raise ConfigError(
            f"pixel by pixel: expected a model that draws one after another (zoo.capabilities.Autoregressive), found "
            f"{type(model).__name__}; `zoo list --capability Autoregressive` shows candidates"
        )
    return model
