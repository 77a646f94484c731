"""Toy2D: points in the plane, drawn from a seed."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from zoo.data.base import DataModule, Split, Which
from zoo.errors import ConfigError

Kind = Literal["moons", "spirals", "gaussians", "rings", "checkerboard"]


def _moons(num: int, g: Generator) -> Tensor:
    angle = math.pi * torch.rand(num, generator=g)
    lower = torch.randint(2, (num,), generator=g)
    sign = 1 - 2 * lower
    points = torch.stack([sign * angle.cos() + lower, sign * angle.sin() + lower / 2], 1)
    return points + 0.1 * torch.randn(num, 2, generator=g)


def _spirals(num: int, g: Generator) -> Tensor:
    angle = 3 * math.pi * torch.rand(num, generator=g).sqrt()  # the root spreads the points along the arms
    sign = 1 - 2 * torch.randint(2, (num,), generator=g)
    points = torch.stack([angle.cos(), angle.sin()], 1) * (sign * angle)[:, None]
    return points + 0.3 * torch.randn(num, 2, generator=g)


def _gaussians(num: int, g: Generator) -> Tensor:
    angle = math.pi / 4 * torch.randint(8, (num,), generator=g)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(num, 2, generator=g)


def _rings(num: int, g: Generator) -> Tensor:
    angle = 2 * math.pi * torch.rand(num, generator=g)
    radius = 1 + torch.randint(4, (num,), generator=g)
    return torch.stack([angle.cos(), angle.sin()], 1) * radius[:, None] + 0.08 * torch.randn(num, 2, generator=g)


def _checkerboard(num: int, g: Generator) -> Tensor:
    column = torch.randint(4, (num,), generator=g)
    row = 2 * torch.randint(2, (num,), generator=g) + column % 2
    return torch.stack([column, row], 1) + torch.rand(num, 2, generator=g)


_KINDS = {"moons": _moons, "spirals": _spirals, "gaussians": _gaussians, "rings": _rings, "checkerboard": _checkerboard}
_SIZES = {"train": 10_000, "valid": 2_000, "test": 2_000}


class Toy2D(DataModule):
    """Points in the plane: 10,000 / 2,000 / 2,000 draws, scaled to mean 0 and variance 1 of the training set.

    Kinds: two interleaved "moons" or "spirals", eight "gaussians" on a circle, four "rings", a 4x4 "checkerboard".
    """

    event_shape = (2,)

    def __init__(self, kind: Kind = "moons", *, batch_size: int = 128, seed: int = 0) -> None:
        """Raises ConfigError for an unknown kind."""
        super().__init__(batch_size=batch_size, seed=seed)
        if kind not in get_args(Kind):
            raise ConfigError(f"Toy2D: kind: expected one of {', '.join(get_args(Kind))}, found {kind!r}")
        self.kind = kind
        self.name = f"toy-{kind}"

    @cached_property
    def _parts(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(self.seed % 2**32)
        parts = _KINDS[self.kind](sum(_SIZES.values()), generator).split(list(_SIZES.values()))
        loc, scale = parts[0].mean(0), parts[0].std(0)
        return {which: Split((x - loc) / scale, None) for which, x in zip(_SIZES, parts, strict=True)}

    def load(self, which: Which) -> Split:
        return self._parts[which]
