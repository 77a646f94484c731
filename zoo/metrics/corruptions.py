"""Corruptions of images, which show what a metric notices: those of Heusel et al. 2017, for small grey images.

    noise             x + a n, n normal, clamped
    blur              convolution with a Gaussian kernel whose standard deviation is a pixels
    rectangles        5 black squares whose sides are a times that of the image
    swirl             rotation about the centre by a exp(-5 r/(log 2 rho)) radians at distance r
    salt_and_pepper   a share a of the pixels is black or white
    foreign           a share a of the images comes from another data set

with rho = 25/64 of the height (https://arxiv.org/abs/1706.08500, appendix A1; there, noise is mixed in and not added).
Each function takes images [N, 1, H, W] in [0, 1] and a strength a, and returns images of that shape and range; strength
0 changes nothing. Each image has its own stream of noise, so that a larger strength corrupts the same places more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.random import Streams, rand, randn

Corruption = Callable[[Tensor, float, int], Tensor]


def _streams(x: Tensor, seed: int) -> Streams:
    return Streams(seed, range(len(x)))


def noise(x: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Gaussian noise of standard deviation `strength`, clamped to [0, 1]."""
    return (x + strength * randn(tuple(x.shape), _streams(x, seed))).clamp(0, 1)


def blur(x: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Convolution with a Gaussian kernel of standard deviation `strength`, normalised at the edges."""
    del seed
    if strength == 0:
        return x
    radius = math.ceil(3 * strength)
    kernel = torch.exp(-((torch.arange(-radius, radius + 1) / strength) ** 2) / 2)

    def across(images: Tensor) -> Tensor:
        rows = F.conv2d(images, kernel.view(1, 1, 1, -1), padding=(0, radius))
        return F.conv2d(rows, kernel.view(1, 1, -1, 1), padding=(radius, 0))

    return (across(x) / across(torch.ones_like(x[:1]))).clamp(0, 1)


def rectangles(x: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Five black squares at random places, whose sides are `strength` times that of the image."""
    height, width = x.shape[-2:]
    side = round(strength * min(height, width))
    corners = rand((len(x), 5, 2), _streams(x, seed)) * torch.tensor([height - side + 1, width - side + 1])
    top, left = corners.floor().unbind(-1)  # [N, 5]
    row, column = torch.arange(height)[:, None], torch.arange(width)

    def inside(start: Tensor, place: Tensor) -> Tensor:
        return (place >= start[..., None, None]) & (place < start[..., None, None] + side)

    erased = (inside(top, row) & inside(left, column)).any(1, keepdim=True)  # [N, 1, H, W]
    return x.masked_fill(erased, 0)


def swirl(x: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Rotation about the centre by an angle that falls with the distance; bilinear, with black outside of the image."""
    del seed
    if strength == 0:
        return x
    height, width = x.shape[-2:]
    y0, x0, rho = (height - 1) / 2, (width - 1) / 2, 25 * height / 64
    down, right = torch.meshgrid(torch.arange(height) - y0, torch.arange(width) - x0, indexing="ij")
    radius = torch.hypot(down, right)
    angle = torch.atan2(down, right) + strength * torch.exp(-5 * radius / (math.log(2) * rho))
    grid = torch.stack([radius * angle.cos() / x0, radius * angle.sin() / y0], -1)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=True).clamp(0, 1)


def salt_and_pepper(x: Tensor, strength: float, seed: int = 0) -> Tensor:
    """Makes a share `strength` of the pixels black or white with equal probability."""
    uniforms = rand(tuple(x.shape), _streams(x, seed))
    return torch.where(uniforms < strength / 2, 0.0, torch.where(uniforms >= 1 - strength / 2, 1.0, x))


def foreign(others: Tensor) -> Corruption:
    """A corruption that replaces a share of the images by `others`, images of the same number and shape."""

    def mix(x: Tensor, strength: float, seed: int = 0) -> Tensor:
        replaced = rand((len(x), 1), _streams(x, seed)) < strength
        return torch.where(replaced[..., None, None], others[: len(x)], x)

    return mix
