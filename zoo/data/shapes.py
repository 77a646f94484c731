"""Coloured shapes: 64x64 RGB images that are drawn when they are needed, without files."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.data.base import DataModule, Split, Which
from zoo.random import Streams, rand

_SIDE = 64
_SIZES = {"train": 20_000, "valid": 2_000, "test": 5_000}
_KEY = 0x736861706573  # separates the draws from the noise of models
_BATCH = 40  # images that are drawn at once: what a cache holds

# The functions below give the signed distance of points (x, y) from the edge of a shape, negative inside. The shapes
# have a circumscribed circle of radius 1, up to the ends of the cross.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_circle(x, y), 0.8 - torch.hypot(x - 0.5, y))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.78).abs() - 0.22


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.96, y - 0.3), torch.maximum(x - 0.3, y - 0.96))


def _polygon(x: Tensor, y: Tensor, corners: int) -> Tensor:
    """A regular polygon, whose first corner is at (1, 0)."""
    angles = [2 * math.pi * (side + 0.5) / corners for side in range(corners)]
    sides = (x * math.cos(angle) + y * math.sin(angle) for angle in angles)
    return torch.stack(list(sides)).amax(0) - math.cos(math.pi / corners)


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points, each between two straight edges from radius 1 to radius 0.42."""
    fifth = 2 * math.pi / 5
    angle, radius = torch.remainder(torch.atan2(y, x) + fifth / 2, fifth) - fifth / 2, torch.hypot(x, y)
    along, across = radius * angle.cos(), radius * angle.sin().abs()  # in the tenth that holds all others mirrored
    inner = 0.42 * math.cos(fifth / 2), 0.42 * math.sin(fifth / 2)
    length = math.hypot(inner[1], 1 - inner[0])
    return ((along - 1) * inner[1] + across * (1 - inner[0])) / length


_SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "crescent": _crescent,
    "cross": _cross,
    "hexagon": lambda x, y: _polygon(x, y, 6),
    "ring": _ring,
    "square": lambda x, y: _polygon(x, y, 4),
    "star": _star,
    "triangle": lambda x, y: _polygon(x, y, 3),
}


class Shapes64(DataModule):
    """A coloured shape on a paler ground, 8-bit, 64x64 RGB: 20,000 / 2,000 / 5,000 images.

    The label is the shape, one of eight, and each split has equally many of each. Colour, place, size and rotation are
    drawn at random, and the ground is graded from one colour to another. Edges are smoothed over a pixel. An image
    depends on its split and its position alone, and not on the seed.
    """

    name = "shapes64"
    event_shape = (3, _SIDE, _SIDE)
    num_classes = len(_SHAPES)
    classes = tuple(_SHAPES)
    levels = 256

    def __init__(self, *, batch_size: int = 128, seed: int = 0) -> None:
        """
        Args:
            batch_size: See `DataModule`.
            seed: Seed for the order of training.
        """
        super().__init__(batch_size=batch_size, seed=seed)

    def load(self, which: Which) -> Split:
        labels = torch.arange(_SIZES[which]) % self.num_classes
        x = torch.empty(len(labels), *self.event_shape, dtype=torch.uint8)
        step = list(_SIZES).index(which)
        for index in torch.arange(len(labels)).split(_BATCH):
            x[index] = _draw(labels[index], Streams(_KEY, index, step))
        return Split(x, labels)


def _draw(labels: Tensor, streams: Streams) -> Tensor:
    """Draws an image of each label: [B], one stream for each -> [B, 3, 64, 64], uint8."""
    num = len(labels)
    place, size, turn, grade = (rand((num, width), streams)[:, :, None, None] for width in (2, 1, 1, 1))
    shape, ground, other = (_colour(rand((num, 3), streams), *bounds) for bounds in (_VIVID, _PALE, _PALE))
    radius = 9 + 13 * size[:, 0]  # in pixels
    margin = radius + 2
    pixels = torch.arange(_SIDE) + 0.5
    down, right = ((pixels - margin - (_SIDE - 2 * margin) * place[:, side]) / radius for side in (0, 1))  # [B, 1, 64]
    x, y = _turned(right, down.mT, 2 * math.pi * turn[:, 0])
    covered = torch.empty_like(x)
    for label, distance in enumerate(_SHAPES.values()):
        chosen = labels == label
        covered[chosen] = (0.5 - distance(x[chosen], y[chosen]) * radius[chosen]).clamp_(0, 1)
    sides = pixels / _SIDE - 0.5
    along = _turned(sides, sides[:, None], 2 * math.pi * grade[:, 0])[0]  # at most 1/sqrt(2)
    image = torch.lerp(ground, other, (0.5 + along / math.sqrt(2))[:, None])
    return image.lerp_(shape, covered[:, None]).mul_(255).round_().to(torch.uint8)


_VIVID = ((0.65, 1.0), (0.35, 0.95))
_PALE = ((0.05, 0.35), (0.75, 1.0))
"""Bounds of the saturation and of the value of a colour."""


def _colour(uniform: Tensor, saturation: tuple[float, float], value: tuple[float, float]) -> Tensor:
    """Colours of any hue: uniform draws, [B, 3] -> RGB in [0, 1], [B, 3, 1, 1]."""
    hue, s, v = uniform.split(1, 1)
    s, v = (low + (high - low) * u for u, (low, high) in ((s, saturation), (v, value)))
    part = (6 * hue + torch.tensor([5.0, 3.0, 1.0])) % 6  # sixths of the circle of hues from R, G and B
    return (v * (1 - s * torch.minimum(part, 4 - part).clamp(0, 1)))[:, :, None, None]


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Points, rotated about the origin."""
    return x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
