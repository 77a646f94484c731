"""Common parts of autoregressive models of binary pixels in raster order: rows from the top, each row from the left.

    log p(x) = sum_d log p(x_d | x_<d)
    x_d = 1 if u_d < p(x_d = 1 | x_<d), else 0,    u_d uniform on [0, 1)

`pixel_by_pixel` draws in the plain way, with one pass of the network for each pixel. Most models have a faster version
in `zoo.autoregressive.fast`, which draws the same pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.capabilities import Autoregressive, Completable, TractableDensity
from zoo.errors import ConfigError
from zoo.progress import steps
from zoo.random import Streams, rand


class RasterOrder(TractableDensity, Completable, Autoregressive):
    """A density of binary pixels: the product of the probabilities of each pixel given the pixels before it."""

    levels: int = 2

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logit of p(x_d = 1 | x_<d) of every pixel d: images [B, *event_shape] -> [B, D]."""

    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.logits(x), x).sum(-1)

    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        """Draws each pixel in turn: x_d = 1 if u_d < p(x_d = 1 | x_<d), else 0. [B, *event_shape] -> the same shape."""
        return pixel_by_pixel(self.logits, uniforms)

    def draw(self, streams: Streams) -> Tensor:
        return self._draw(rand((len(streams), *self.event_shape), streams, self.device))

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Draws the pixels after the known ones, which come first in raster order; see `Completable`."""
        return self._draw(forced(rand(tuple(x.shape), streams, self.device), x, known))

    def check_known(self, known: Tensor) -> None:
        check_known_first(self, known)

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        return self.logits(x).sigmoid().view_as(x)

    def _draw(self, uniforms: Tensor, **given: Any) -> Tensor:
        """`from_uniforms` in full precision and without autograd, which would take a sixth of the time."""
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            x = self.from_uniforms(uniforms.to(self.dtype), **given)
        return x.clone(memory_format=torch.contiguous_format)  # a normal tensor, which autograd may use


def check_odd_and_grey(title: str, channels: int, *kernels: int) -> None:
    """Raises ConfigError unless images have one channel and the widths of masked kernels are odd."""
    if channels != 1:
        raise ConfigError(
            f"event_shape: {title} expected one channel, found {channels}; make images grey (--grey), or choose a "
            "model of colours, such as colorpixelcnn"
        )
    if any(width % 2 == 0 for width in kernels):
        raise ConfigError(f"{title}: expected kernels of odd width, found {' and '.join(map(str, kernels))}")


def pixel_by_pixel(logits: Callable[[Tensor], Tensor], uniforms: Tensor) -> Tensor:
    """Draws each pixel in turn, with one pass of the network for each.

    Args:
        logits: Function from images, [B, *event_shape], to the logit of each pixel given the pixels before it, [B, D].
        uniforms: Numbers in [0, 1) that decide the pixels, [B, *event_shape].

    Returns:
        Images, [B, *event_shape]; values in {0, 1}.
    """
    x = uniforms.new_zeros(uniforms.shape)
    pixels, limits = x.flatten(1), uniforms.flatten(1)  # pixels share memory with x
    for d in steps(range(limits.shape[1]), "pixel"):
        pixels[:, d] = limits[:, d] < logits(x)[:, d].sigmoid()
    return x


def forced(uniforms: Tensor, x: Tensor, known: Tensor) -> Tensor:
    """Uniforms that draw x where it is known: -1 always draws 1, and 1 always draws 0. All have the same shape."""
    return torch.where(known, 1 - 2 * x, uniforms)


def log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """Log-likelihood of each pixel in nats, [B, D], given logits, [B, D], and images, [B, ...] with D values each.

    The values are pixels in {0, 1}, or probabilities of 1. With probabilities, the result is the mean over pixels that
    are drawn from them.
    """
    return -F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none")


def check_known_first(model: Completable, known: Tensor) -> None:
    """Raises ConfigError if a known value comes after an unknown one: bool [B, ...], in the order of drawing."""
    known = known.flatten(1)
    if (known[:, 1:] & ~known[:, :-1]).any():
        raise ConfigError(
            f"complete: {type(model).__name__} conditions on values that come first in raster order (rows from the "
            "top, pixels from the left, then channels), but the mask has an unknown value before a known one; mark as "
            "known only the first ones"
        )


class MaskedConv2d(nn.Conv2d):
    """Masked convolution (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, section 3.4).

    A pixel sees the pixels above it and to the left of it within the kernel. The kernel ends with the pixel's own row,
    since everything below is masked.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Size of the whole kernel, odd.
        mask: `A` hides the pixel itself, `B` shows it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, mask: Literal["A", "B"]) -> None:
        self.reach, self.own = kernel // 2, int(mask == "B")
        super().__init__(in_channels, out_channels, (self.reach + 1, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H, W]."""
        mask = self.weight.new_ones(self.weight.shape[2:])
        mask[-1, self.reach + self.own :] = 0
        return F.conv2d(F.pad(x, (self.reach, self.reach, self.reach, 0)), self.weight * mask, self.bias)

    def above(self) -> Tensor:
        """Weights for the rows above, [out_channels, in_channels, reach, kernel]."""
        return self.weight[:, :, :-1]

    def left(self) -> Tensor:
        """Weights for the pixels to the left, and with mask B for the pixel itself, [out_channels, in_channels, n]."""
        return self.weight[:, :, -1, : self.reach + self.own]
