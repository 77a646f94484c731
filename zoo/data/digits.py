"""Digits: real images that come with scikit-learn, without a download."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from zoo.data.base import DataModule, Split, Which, division, permutation
from zoo.errors import DataError


class Digits(DataModule):
    """8x8 handwritten digits (Alpaydin & Kaynak 1998, as in scikit-learn): 1,297 / 200 / 300 images.

    The 17 grey levels are scaled to 0, ..., 255.
    """

    name = "digits"
    event_shape = (1, 8, 8)
    num_classes = 10
    classes = tuple("0123456789")

    def __init__(self, *, batch_size: int = 128, seed: int = 0, binarize: bool = False) -> None:
        """
        Args:
            batch_size: See `DataModule`.
            seed: Seed for the splits and for the order of training.
            binarize: Whether pixels become 1 where they are at least half grey, and 0 elsewhere.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        self.binarize = binarize
        self.levels = 2 if binarize else 256

    @cached_property
    def _parts(self) -> dict[Which, Split]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(
                f"digits: the package scikit-learn cannot be imported ({error}); pip install scikit-learn"
            ) from error
        digits = load_digits()
        x = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
        x = (x >= 128).to(torch.uint8) if self.binarize else x
        whole = Split(x, torch.from_numpy(digits.target.astype(np.int64)))
        index = division(permutation(len(whole), self.seed), 200, 300)
        return {which: whole.take(positions) for which, positions in index.items()}

    def load(self, which: Which) -> Split:
        return self._parts[which]
