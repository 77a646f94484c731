"""Accuracy, of classifiers and of everything else that is right or wrong about an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import Classifier
from zoo.data.base import DataModule, Which
from zoo.errors import DataError
from zoo.measurement import Measurement, share_and_error
from zoo.metrics.examples import Index, check_shapes, measuring, per_example, slice_details


def accuracy(
    model: Classifier,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures the share of labels that a classifier predicts, in %, with its binomial error.

    Args:
        model: The classifier.
        data: A data set with labels.
        split, index, batch_size, progress: As in `nll`.

    Raises:
        DataError: The shapes of model and data differ, or the data have no labels.
    """
    check_shapes(model, data)
    if data.split(split).labels is None:
        raise DataError(f"{data.name}: expected labels in {split}, found none; accuracy needs them")
    with measuring(model):
        return share_of_right(
            "accuracy",
            lambda batch: model(batch.x).argmax(-1) == batch.labels,
            data,
            split,
            index=index,
            batch_size=batch_size,
            device=model.device,
            label=f"accuracy on {data.name} {split}",
            progress=progress,
        )


def share_of_right(
    name: str,
    is_right: Callable[[Batch], Tensor],
    data: DataModule,
    split: Which,
    *,
    index: Index,
    batch_size: int,
    device: torch.device,
    label: str,
    progress: bool,
    **details: Any,
) -> list[Measurement]:
    """Measures the share of examples that are right, in %, with its binomial error.

    Args:
        name: Name of the measurement.
        is_right: Maps a batch to booleans, [B].
        data, split, index, batch_size, device, label, progress: As in `per_example`.
        details: Further details of the measurement.
    """
    right = per_example(
        is_right, data, split, index=index, batch_size=batch_size, device=device, label=label, progress=progress
    )
    value, error = (100 * number for number in share_and_error(right))
    details = {**details, **slice_details(100 * right, data, split, index)}
    return [Measurement(name, value, error, "%", "estimate", len(right), 0, split, data.name, details)]
