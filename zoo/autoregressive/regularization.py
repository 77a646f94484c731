"""Ways to keep a model from memorising its training images: shifted images, dropout, teachers.

Shifts (distribution augmentation, Jun et al. 2020, https://proceedings.mlr.press/v119/jun20a.html): training moves
each image by a few pixels with probability 1/2, and biases tell the network how far. It maximises log p(x | shift). At
shift zero, the model is a density of the original images.

Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html), with one stream of noise per image.

Teachers (distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531): other models predict the probability of
each pixel given the earlier ones, and the pupil learns this probability instead of the pixel's value. The logits of
several teachers are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import log_likelihood
from zoo.capabilities import Conditional, ZooModule
from zoo.config import brief
from zoo.errors import ConfigError
from zoo.random import Streams, rand


def dropout(x: Tensor, rate: float, streams: Streams | None) -> Tensor:
    """Zeroes a fraction `rate` of x, [B, ...], and scales up the rest; without streams, returns x itself."""
    if streams is None or not rate:
        return x
    return x * (rand(tuple(x.shape), streams, x.device) >= rate) / (1 - rate)


def shift(x: Tensor, max_shift: int, streams: Streams) -> tuple[Tensor, Tensor]:
    """Moves each image with probability 1/2 by up to `max_shift` pixels along each axis, and pads it with zeros.

    Args:
        x: Images, [B, C, H, W].
        max_shift: Largest shift in pixels.
        streams: Noise, one stream per image.

    Returns:
        The images, and the rows and columns by which each has moved up and left, [B, 2], int64.
    """
    if not max_shift:
        return x, torch.zeros(len(x), 2, dtype=torch.long, device=x.device)
    which, chance = rand((len(x), 2), streams, x.device).unbind(1)
    width = 2 * max_shift + 1
    numbers = (which * width**2).long().where(chance < 0.5, width**2 // 2)  # the middle number is shift zero
    shifts = torch.stack([numbers // width, numbers % width], 1)
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
    rows, columns = rows + shifts[:, :1], columns + shifts[:, 1:]  # of the padded images, [B, H], [B, W]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    # [B, H, W, C]: with a slice between them, dimensions of indices come first
    moved = F.pad(x, [max_shift] * 4)[image, :, rows[:, :, None], columns[:, None, :]]
    return moved.movedim(-1, 1), shifts - max_shift


def shift_biases(event_shape: Sequence[int], max_shift: int, channels: int) -> nn.Parameter:
    """Biases that tell a network the shift of an image: a row of zeros for each shift, [(2 max_shift + 1)^2, channels].

    Raises:
        ConfigError: Examples of that shape are not images.
    """
    if len(event_shape) != 3:
        raise ConfigError(f"max_shift: expected images (C, H, W) to shift, found an event_shape of {list(event_shape)}")
    return nn.Parameter(torch.zeros((2 * max_shift + 1) ** 2, channels))


def bias_of(shifts: Tensor, biases: Tensor) -> Tensor:
    """Rows of `shift_biases` for shifts: [B, 2] -> [B, channels]. Shift zero gets no gradient; its row stays 0."""
    width = math.isqrt(len(biases))
    rows, columns = (shifts + width // 2).unbind(1)
    return F.embedding(rows * width + columns, biases, padding_idx=len(biases) // 2)


class PositionBias(nn.Module):
    """A learned bias at each position of a map, which convolutions cannot tell apart, and one for each shift.

    Args:
        channels: Channels of the map.
        height: Rows of the map.
        width: Columns of the map.
        max_shift: Largest shift of an image in pixels.
    """

    def __init__(self, channels: int, height: int, width: int, max_shift: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, height, width))
        self.shifts = shift_biases([1, height, width], max_shift, channels) if max_shift else None

    def forward(self, shifts: Tensor | None) -> Tensor:
        """Biases, [B or 1, C, H, W], given the shifts of the images, [B, 2] or None."""
        if shifts is None or self.shifts is None:
            return self.bias[None]
        return self.bias + bias_of(shifts, self.shifts)[..., None, None]


@runtime_checkable
class Regularized(Protocol):
    """A model of binary pixels in raster order that trains with shifts and dropout, and can have teachers.

    Attributes:
        event_shape: Shape of one example.
        max_shift: Largest shift of the images that the model has biases for, in pixels.
        teachers: Models that it learns from; none by default.
    """

    event_shape: tuple[int, ...]
    max_shift: int
    teachers: tuple[Regularized, ...]

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        """Logits of every pixel given the earlier ones and the image's shift, with dropout if there are streams."""
        ...


def take_teachers(pupil: Regularized, teachers: Sequence[ZooModule]) -> None:
    """Implements `ZooModule.learn_from`: makes these models the `teachers` of the pupil.

    Raises:
        ConfigError: A teacher is not a `Regularized` model, or its `event_shape` is not the pupil's.
    """
    for each in teachers:
        is_suited = isinstance(each, Regularized) and not isinstance(each, Conditional)
        if not is_suited or each.event_shape != pupil.event_shape:
            shape = list(cast(Sequence[int], getattr(each, "event_shape", ())))
            raise ConfigError(
                "teachers: expected a NADE, RNN, PixelCNN, GatedPixelCNN or PixelRNN of event_shape "
                f"{list(pupil.event_shape)}, found a {type(each).__name__} of {brief(shape)}"
            )
    pupil.teachers = tuple(cast(Sequence[Regularized], teachers))


def regularized_log_prob(model: Regularized, x: Tensor, streams: Streams, **given: Tensor) -> Tensor:
    """Implements `TractableDensity.training_log_prob`: log p(x | shift) of shifted images with dropout, in nats, [B].

    With teachers, this is the mean over pixels drawn from the teachers' probabilities. No image is then shifted further
    than the smallest `max_shift` of the pupil and its teachers.
    """
    x, shifts = shift(x, min(each.max_shift for each in (model, *model.teachers)), streams)
    logits = cast(Any, model).logits(x, shifts, streams, **given)  # labels, if the model is Conditional
    return log_likelihood(logits, _taught(model.teachers, x, shifts) if model.teachers else x).sum(-1)


@torch.no_grad()
def _taught(teachers: Sequence[Regularized], x: Tensor, shifts: Tensor) -> Tensor:
    """Probability of each pixel given the earlier ones, by the mean of the teachers' logits, [B, D]."""
    logits = []
    for each in teachers:
        if (module := cast(ZooModule, each)).device != x.device:  # even a needless move lays out a GRU's weights again
            module.to(x.device)
        logits.append(each.logits(x, shifts).to(x))
    return torch.stack(logits).mean(0).sigmoid()
