"""What the data layer yields and models learn from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Some examples of a split."""

    x: Tensor  # [B, *event_shape], float
    labels: Tensor | None  # [B], int64
    index: Tensor  # type: ignore[assignment]  # [B], int64, positions in the split; shadows `tuple.index`, which nothing uses

    def divided(self, parts: int) -> Iterator[Batch]:
        """Splits the batch into consecutive parts of equal size, up to one example."""
        if parts == 1:
            yield self
            return
        for rows in torch.arange(len(self.x)).tensor_split(parts):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            yield Batch(self.x[part], None if self.labels is None else self.labels[part], self.index[part])
