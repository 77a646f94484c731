"""What autoregressive models of binary pixels in raster order have in common: they draw one pixel after another.

    x_d = 1 where u_d < p(x_d = 1 given x_<d),    u_d uniform on [0, 1)

A known pixel is one whose uniform is set so that it can only come out as it is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.capabilities import Autoregressive, Completable, TractableDensity, ZooModule
from zoo.config import brief
from zoo.errors import ConfigError
from zoo.nn.shift import renumber, shift
from zoo.random import Streams, rand


class RasterOrder(TractableDensity, Completable, Autoregressive):
    """A density of binary pixels, each given those before it: rows from the top, each from the left."""

    levels: int = 2

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits of every pixel given the earlier ones: [B, *event_shape] -> [B, D]."""

    @abstractmethod
    def scan(self, uniforms: Tensor) -> Tensor:
        """Pixels in turn, each 1 where its uniform is below its probability: uniforms [B, D] -> [B, D]."""

    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.logits(x), x).sum(-1)

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        return self.logits(x).sigmoid().view_as(x)

    def draw(self, streams: Streams) -> Tensor:
        uniforms = rand((len(streams), math.prod(self.event_shape)), streams, self.device)
        return self._scan(uniforms).view(-1, *self.event_shape)

    def _scan(self, uniforms: Tensor, scan: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """`scan`, or another, without what autograd costs, about a sixth of the time, and in full precision."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            drawn = (scan or self.scan)(uniforms.to(self.dtype))
        return drawn.clone()  # a tensor like others, which autograd may use

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Samples the pixels after the known ones, which come first in raster order; see `Completable`."""
        uniforms = rand(tuple(x.flatten(1).shape), streams, self.device)
        return self._scan(forced(uniforms, x.flatten(1), known.flatten(1))).view_as(x)

    def check_known(self, known: Tensor) -> None:
        check_first_known(self, known)


class Augmented(RasterOrder):
    """One that trains with dropout and on shifted images, whose shift it is told: see `zoo.nn.shift`.

    Of teachers it learns the probability of each pixel of a training image given the earlier ones; of several, that of
    the mean of their logits.

    Attributes:
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right; no further
            than its teachers know.
        teachers: what `learn_from` was given.
    """

    max_shift: int
    teachers: tuple[Augmented, ...] = ()

    def learn_from(self, teachers: Sequence[ZooModule]) -> None:
        for each in teachers:
            if not isinstance(each, Augmented) or each.event_shape != self.event_shape:
                shape = list(cast(Sequence[int], getattr(each, "event_shape", ())))
                raise ConfigError(
                    "teachers: expected a NADE, RNN, PixelCNN, GatedPixelCNN or PixelRNN of event_shape "
                    f"{list(self.event_shape)}, found a {type(each).__name__} of {brief(shape)}"
                )
        self.teachers = tuple(cast(Sequence[Augmented], teachers))

    @abstractmethod
    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        """Logits of every pixel given the earlier ones and the image's shift, [B]; with dropout, given its noise."""

    def logits(self, x: Tensor) -> Tensor:
        return self._logits(x)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """log p(x given its shift), with dropout; with teachers, its mean over each pixel as they expect it."""
        least = min(each.max_shift for each in (self, *self.teachers))  # shifts that all of them know
        x, shifts = shift(x, least, streams)
        logits = self._logits(x, self._numbered(shifts, least, x), streams)
        return log_likelihood(logits, self._expected(x, shifts, least) if self.teachers else x).sum(-1)

    @torch.no_grad()
    def _expected(self, x: Tensor, shifts: Tensor | None, max_shift: int) -> Tensor:
        """What the teachers expect of each pixel given the earlier ones, [B, D]."""
        logits = []
        for each in self.teachers:
            if each.device != x.device:  # at the first step alone: a CUDA graph has no place for what moves
                each.to(x.device)
            logits.append(each._logits(x, each._numbered(shifts, max_shift, x)).to(x))
        return torch.stack(logits).mean(0).sigmoid()

    def _numbered(self, shifts: Tensor | None, max_shift: int, x: Tensor) -> Tensor | None:
        """Shifts of at most `max_shift` pixels as this model numbers them."""
        if max_shift == self.max_shift:
            return shifts
        if shifts is None:
            shifts = x.new_zeros(len(x), dtype=torch.long)
        return renumber(shifts, max_shift, self.max_shift)


def log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """log p of each pixel in nats: [B, D] and images [B, ...] of D pixels -> [B, D]; of a probability, its mean."""
    return -F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none")


def check_first_known(model: Completable, known: Tensor) -> None:
    """Raises ConfigError unless the known pixels come first in raster order."""
    flat = known.flatten(1)
    if (flat[:, 1:] & ~flat[:, :-1]).any():
        raise ConfigError(
            f"complete: {type(model).__name__} conditions on pixels that come first in raster order (rows from the "
            "top), but the mask has an unknown pixel before a known one; mark as known only the first pixels"
        )


def forced(uniforms: Tensor, x: Tensor, known: Tensor) -> Tensor:
    """Uniforms that draw x where it is known: -1 draws 1, and 1 draws 0; all [B, D]."""
    return torch.where(known, 1 - 2 * x, uniforms)
