"""Accuracy of classifiers."""

from __future__ import annotations

import math

from zoo.capabilities import Classifier
from zoo.data.base import DataModule, Which
from zoo.errors import DataError
from zoo.metrics.examples import Index, check_shapes, measuring, per_example, slice_details
from zoo.metrics.measurement import Measurement


def accuracy(
    model: Classifier,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Share of right labels in %, with its binomial error.

    Raises:
        DataError: the shapes of model and data differ, or the data have no labels.
    """
    check_shapes(model, data)
    if data.split(split).labels is None:
        raise DataError(f"{data.name}: expected labels in {split}, found none; accuracy needs them")
    with measuring(model):
        right = per_example(
            lambda batch: model(batch.x).argmax(-1) == batch.labels,
            data,
            split,
            index=index,
            seed=0,
            cost=1,
            batch_size=batch_size,
            device=model.device,
            label=f"accuracy on {data.name} {split}",
            progress=progress,
        )
    share, num = right.mean().item(), len(right)
    details = slice_details(100 * right, data, split, index, seed=0, cost=1)
    error = 100 * math.sqrt(share * (1 - share) / num)
    return [Measurement("accuracy", 100 * share, error, "%", "estimate", num, 0, split, data.name, details)]
