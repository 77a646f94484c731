"""Shifted images whose shift the network is told: distribution augmentation (Jun et al. 2020).

https://proceedings.mlr.press/v119/jun20a.html: a density of altered data given the alteration learns more from few data
than one of the data alone, and given no alteration it is a density of the data as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ConfigError
from zoo.random import Streams, rand


def num_shifts(max_shift: int) -> int:
    """How many shifts there are of at most `max_shift` pixels along each axis; the middle one is none."""
    return (2 * max_shift + 1) ** 2


def shift_biases(event_shape: Sequence[int], max_shift: int, channels: int) -> nn.Parameter:
    """What `bias_of` takes: zeros, [num_shifts, channels].

    Raises:
        ConfigError: examples of that shape are no images.
    """
    if len(event_shape) != 3:
        raise ConfigError(f"max_shift: expected images (C, H, W) to shift, found an event_shape of {list(event_shape)}")
    return nn.Parameter(torch.zeros(num_shifts(max_shift), channels))


def bias_of(shifts: Tensor, biases: Tensor) -> Tensor:
    """What a network is told of shifts [B], by number: their rows of `biases`.

    The middle one, of no shift, gets no gradient, and so stays zero.
    """
    return F.embedding(shifts, biases, padding_idx=len(biases) // 2)


def shift(x: Tensor, max_shift: int, streams: Streams) -> tuple[Tensor, Tensor | None]:
    """Shifts every second image, on average, by up to `max_shift` pixels along each axis; what comes in is zero.

    Args:
        x: images [B, C, H, W].

    Returns:
        The images, and their shifts as numbers in {0, ..., num_shifts(max_shift) - 1}, [B]; None if max_shift is 0.
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
    # [B, H, W, C], as indices with a slice between them come first
    return padded[image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1), shifts


def renumber(shifts: Tensor, max_shift: int, other: int) -> Tensor:
    """Shifts of at most `max_shift` pixels, by number, [B] -> their numbers among those of at most `other`, no less."""
    width, more = 2 * max_shift + 1, other - max_shift
    return (shifts // width + more) * (2 * other + 1) + shifts % width + more
