"""What keeps a model from memorising its training images: shifted images, dropout, teachers.

Shifts (distribution augmentation, Jun et al. 2020, https://proceedings.mlr.press/v119/jun20a.html): training moves
every second image by a few pixels and tells the network how far, as biases. It maximises log p(x | shift). Without a
shift, the model is a density of the images as they are.

Dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html): the noise comes from one stream per
image.

Teachers (distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531): other models say what they expect of each
pixel given the earlier ones, and the pupil learns that probability in place of the pixel. Several teachers count by the
mean of their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import log_likelihood
from zoo.capabilities import ZooModule
from zoo.config import brief
from zoo.errors import ConfigError
from zoo.random import Streams, rand


def dropout(x: Tensor, rate: float, streams: Streams | None) -> Tensor:
    """Zeroes a fraction of x and scales up the rest.

    Args:
        x: Values of any shape [B, ...].
        rate: Probability of zero.
        streams: Noise, one stream for each of B; None leaves x as it is.

    Returns:
        The same shape.
    """
    if streams is None or not rate:
        return x
    return x * (rand(tuple(x.shape), streams, x.device) >= rate) / (1 - rate)


# -------------------------------------------------------------------------------------------------------------- shifts


def num_shifts(max_shift: int) -> int:
    """Number of shifts by at most `max_shift` pixels along both axes. The middle one moves nothing."""
    return (2 * max_shift + 1) ** 2


def shift(x: Tensor, max_shift: int, streams: Streams) -> tuple[Tensor, Tensor | None]:
    """Moves every second image, on average, by up to `max_shift` pixels along each axis. What moves in is zero.

    Args:
        x: Images, [B, C, H, W].
        max_shift: Largest shift in pixels.
        streams: Noise, one stream per image.

    Returns:
        The images, and the number of the shift of each, [B], in {0, ..., num_shifts(max_shift) - 1}; None if
        `max_shift` is 0.
    """
    if not max_shift:
        return x, None
    which, chance = rand((len(x), 2), streams, x.device).unbind(1)
    shifts = (which * num_shifts(max_shift)).long().where(chance < 0.5, num_shifts(max_shift) // 2)
    width = 2 * max_shift + 1
    padded = F.pad(x, [max_shift] * 4)
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
    rows, columns = rows + (shifts // width)[:, None], columns + (shifts % width)[:, None]  # [B, H], [B, W]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    # [B, H, W, C]: with a slice between them, dimensions of indices come first
    return padded[image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1), shifts


def renumber(shifts: Tensor, max_shift: int, larger: int) -> Tensor:
    """Numbers of the same shifts in a model that knows larger ones.

    Args:
        shifts: Numbers of shifts by at most `max_shift` pixels, [B].
        max_shift: Largest of these shifts.
        larger: Largest shift in the new numbering.

    Returns:
        [B].
    """
    width, more = 2 * max_shift + 1, larger - max_shift
    return (shifts // width + more) * (2 * larger + 1) + shifts % width + more


def shift_biases(event_shape: Sequence[int], max_shift: int, channels: int) -> nn.Parameter:
    """Biases that tell a network the shift of an image: zeros, [num_shifts(max_shift), channels].

    Raises:
        ConfigError: Examples of that shape are not images.
    """
    if len(event_shape) != 3:
        raise ConfigError(f"max_shift: expected images (C, H, W) to shift, found an event_shape of {list(event_shape)}")
    return nn.Parameter(torch.zeros(num_shifts(max_shift), channels))


def bias_of(shifts: Tensor, biases: Tensor) -> Tensor:
    """Biases of each image, [B, channels], given its shift, [B], and `shift_biases`.

    The one for no shift gets no gradient and so stays zero.
    """
    return F.embedding(shifts, biases, padding_idx=len(biases) // 2)


class PositionBias(nn.Module):
    """A learned bias at each position, and one for each shift.

    A convolution does the same everywhere. It cannot know where a pixel is unless it is told.

    Args:
        channels: Channels of the map.
        height: Rows of the map.
        width: Columns of the map.
        max_shift: Largest shift of an image in pixels.
    """

    def __init__(self, channels: int, height: int, width: int, max_shift: int = 0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, height, width))
        if max_shift:
            self.shifts = shift_biases([1, height, width], max_shift, channels)

    def forward(self, shifts: Tensor | None = None) -> Tensor:
        """Biases, [B or 1, C, H, W], given the shifts of the images, [B] or None."""
        if shifts is None:
            return self.bias[None]
        return self.bias + bias_of(shifts, self.shifts)[..., None, None]


# ------------------------------------------------------------------------------------------------------------ training


@runtime_checkable
class Regularized(Protocol):
    """A model of binary pixels in raster order that trains with shifts and dropout, and can have teachers.

    Attributes:
        event_shape: Shape of one example.
        max_shift: Largest shift of the images that the model knows, in pixels.
        teachers: Models that it learns from; none by default.
    """

    event_shape: tuple[int, ...]
    max_shift: int
    teachers: tuple[Regularized, ...]

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        """Logits of every pixel given the earlier ones and the image's shift, with dropout if there are streams."""
        ...


def check_teachers(pupil: Regularized, teachers: Sequence[ZooModule]) -> tuple[Regularized, ...]:
    """The teachers, if the pupil can learn from them.

    Raises:
        ConfigError: A teacher is another kind of model or has another `event_shape`.
    """
    for each in teachers:
        if not isinstance(each, Regularized) or each.event_shape != pupil.event_shape:
            shape = list(cast(Sequence[int], getattr(each, "event_shape", ())))
            raise ConfigError(
                "teachers: expected a NADE, RNN, PixelCNN, GatedPixelCNN or PixelRNN of event_shape "
                f"{list(pupil.event_shape)}, found a {type(each).__name__} of {brief(shape)}"
            )
    return tuple(cast(Sequence[Regularized], teachers))


def regularized_log_prob(model: Regularized, x: Tensor, streams: Streams) -> Tensor:
    """Log-likelihood of shifted images given their shifts, with dropout; what training maximises.

    If the model has teachers, the result is its mean over pixels that are drawn with the teachers' probabilities.
    Images are shifted no further than all of them know.

    Args:
        model: Model in training.
        x: Images, [B, *event_shape].
        streams: Noise, one stream per image.

    Returns:
        [B], in nats.
    """
    max_shift = min(each.max_shift for each in (model, *model.teachers))
    x, shifts = shift(x, max_shift, streams)
    logits = model.logits(x, _numbered(model, shifts, max_shift, x), streams)
    return log_likelihood(logits, _taught(model.teachers, x, shifts, max_shift) if model.teachers else x).sum(-1)


@torch.no_grad()
def _taught(teachers: Sequence[Regularized], x: Tensor, shifts: Tensor | None, max_shift: int) -> Tensor:
    """Probability of each pixel given the earlier ones, by the mean of the teachers' logits, [B, D]."""
    logits = []
    for each in teachers:
        if (
            module := cast(ZooModule, each)
        ).device != x.device:  # even a needless move lays out the weights of a GRU anew
            module.to(x.device)
        logits.append(each.logits(x, _numbered(each, shifts, max_shift, x)).to(x))
    return torch.stack(logits).mean(0).sigmoid()


def _numbered(model: Regularized, shifts: Tensor | None, max_shift: int, x: Tensor) -> Tensor | None:
    """Numbers of shifts by at most `max_shift` pixels in the model's own numbering, [B]."""
    if max_shift == model.max_shift:
        return shifts
    if shifts is None:
        shifts = x.new_zeros(len(x), dtype=torch.long)
    return renumber(shifts, max_shift, model.max_shift)
