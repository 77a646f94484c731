"""Bars and stripes: small binary images whose distribution is known exactly."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from zoo.data.base import DataModule, Split, Which
from zoo.errors import ConfigError

_SIZES = {"train": 10_000, "valid": 2_000, "test": 2_000}


class Bars(DataModule):
    """Bars and stripes (Hinton & Sejnowski 1986; MacKay 2003): 10,000 / 2,000 / 2,000 binary images.

    Each image is a set of full rows or a set of full columns. All 2^H + 2^W - 2 distinct images are equally likely, so
    that the entropy is log(2^H + 2^W - 2) nats. No model has a lower negative log-likelihood on average.
    """

    name = "bars"
    levels = 2

    def __init__(self, height: int = 4, width: int = 4, *, batch_size: int = 128, seed: int = 0) -> None:
        """
        Args:
            height: Number of rows, at most 16.
            width: Number of columns, at most 16.
            batch_size: See `DataModule`.
            seed: Seed for the images and for the order of training.

        Raises:
            ConfigError: The height or the width is out of range.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        if not (1 <= height <= 16 and 1 <= width <= 16):
            raise ConfigError(f"Bars: expected a height and a width from 1 to 16, found {height} and {width}")
        self.event_shape = (1, height, width)
        self.num_images = 2**height + 2**width - 2

    @property
    def entropy(self) -> float:
        """Entropy of the distribution in nats."""
        return math.log(self.num_images)

    def images(self) -> Tensor:
        """All distinct images, uint8 [2^H + 2^W - 2, 1, H, W]."""
        return self._decode(torch.arange(self.num_images))

    def _decode(self, number: Tensor) -> Tensor:
        """Images by number, uint8 [N, 1, H, W]: the 2^H sets of rows, then the sets of columns without none and all."""
        _, height, width = self.event_shape
        is_rows = number[:, None, None] < 2**height
        rows = number[:, None, None] >> torch.arange(height)[:, None]  # [N, H, 1]
        columns = (number - 2**height + 1)[:, None, None] >> torch.arange(width)  # [N, 1, W]
        return (torch.where(is_rows, rows, columns) & 1).to(torch.uint8)[:, None]

    @cached_property
    def _parts(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(self.seed % 2**32)  # the engine takes 32 bits
        numbers = torch.randint(self.num_images, (sum(_SIZES.values()),), generator=generator)
        parts = self._decode(numbers).split(list(_SIZES.values()))
        return {which: Split(x, None) for which, x in zip(_SIZES, parts, strict=True)}

    def load(self, which: Which) -> Split:
        return self._parts[which]
