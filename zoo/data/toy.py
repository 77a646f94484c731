"""Toy data: points on the line and in the plane, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from zoo.data.base import DataModule, Split, Which
from zoo.errors import ConfigError

_SIZES = {"train": 10_000, "valid": 2_000, "test": 2_000}


def _gaussian(num: int, g: Generator) -> Tensor:
    return torch.randn(num, 1, generator=g)


def _mixture(num: int, g: Generator) -> Tensor:
    sign = 1 - 2 * torch.randint(2, (num, 1), generator=g)
    return sign + 0.3 * torch.randn(num, 1, generator=g)


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


class _Toy(DataModule):
    """10,000 / 2,000 / 2,000 points, scaled so that the training split has mean 0 and variance 1."""

    kinds: ClassVar[Mapping[str, Callable[[int, Generator], Tensor]]]

    def __init__(self, kind: str, *, batch_size: int = 128, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        if kind not in self.kinds:
            raise ConfigError(f"{type(self).__name__}: kind: expected one of {', '.join(self.kinds)}, found {kind!r}")
        self.kind = kind
        self.name = f"toy-{kind}"

    @cached_property
    def _parts(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(self.seed % 2**32)  # the engine takes 32 bits
        parts = self.kinds[self.kind](sum(_SIZES.values()), generator).split(list(_SIZES.values()))
        loc, scale = parts[0].mean(0), parts[0].std(0)
        return {which: Split((x - loc) / scale, None) for which, x in zip(_SIZES, parts, strict=True)}

    def load(self, which: Which) -> Split:
        return self._parts[which]


class Toy1D(_Toy):
    """Points on the line: 10,000 / 2,000 / 2,000, scaled so that the training split has mean 0 and variance 1.

    The kinds are one "gaussian" and a "mixture" of two.
    """

    event_shape = (1,)
    kinds: ClassVar = {"gaussian": _gaussian, "mixture": _mixture}

    def __init__(
        self, kind: Literal["gaussian", "mixture"] = "mixture", *, batch_size: int = 128, seed: int = 0
    ) -> None:
        """
        Args:
            kind: Kind of the data.
            batch_size: See `DataModule`.
            seed: Seed for the points and for the order of training.

        Raises:
            ConfigError: There is no such kind.
        """
        super().__init__(kind, batch_size=batch_size, seed=seed)


class Toy2D(_Toy):
    """Points in the plane: 10,000 / 2,000 / 2,000, scaled so that the training split has mean 0 and variance 1.

    The kinds are two interleaved "moons" or "spirals", eight "gaussians" on a circle, four "rings", and a 4x4
    "checkerboard".
    """

    event_shape = (2,)
    kinds: ClassVar = {
        "moons": _moons,
        "spirals": _spirals,
        "gaussians": _gaussians,
        "rings": _rings,
        "checkerboard": _checkerboard,
    }

    def __init__(
        self,
        kind: Literal["moons", "spirals", "gaussians", "rings", "checkerboard"] = "moons",
        *,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        """
        Args:
            kind: Kind of the data.
            batch_size: See `DataModule`.
            seed: Seed for the points and for the order of training.

        Raises:
            ConfigError: There is no such kind.
        """
        super().__init__(kind, batch_size=batch_size, seed=seed)
