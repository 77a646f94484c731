"""What the data layer yields and models learn from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.config import brief
from zoo.errors import DataError


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


def as_batch(batch: Any, dtype: torch.dtype = torch.float32, number: int = 0, rank: int = 0, world: int = 1) -> Batch:
    """A batch of any loader: x alone, or x and labels.

    Args:
        batch: A `Batch`, which is returned as it is; a tensor x; or a tuple or list of x and perhaps labels. Labels
            that are not one whole number per example are left out.
        dtype: Data type of x.
        number: Number of the batch. Each example gets an index of its own, which keys its noise.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        DataError: It is none of these.
    """
    if isinstance(batch, Batch):
        return batch
    x, labels = (*batch, None, None)[:2] if isinstance(batch, tuple | list) else (batch, None)
    if not isinstance(x, Tensor) or not x.ndim:
        raise DataError(f"expected batches of a tensor x or of (x, labels), found {brief(batch)}")
    if not isinstance(labels, Tensor) or labels.shape != x.shape[:1] or labels.is_floating_point():
        labels = None
    index = (number << 32) + torch.arange(len(x)) * world + rank
    return Batch(x.to(dtype), None if labels is None else labels.long(), index)
