"""Accuracy, of classifiers and of everything else that is right or wrong about an example.

A conditional density is a classifier by Bayes' rule: p(c | x) = p(x | c) p(c)/p(x), here with equally likely classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import Classifier, Conditional, InfersLabels
from zoo.data.base import DataModule, Which
from zoo.errors import DataError
from zoo.measurement import Measurement, share_and_error
from zoo.metrics.examples import Index, check_shapes, measuring, per_example, slice_details
from zoo.metrics.likelihood import class_log_likelihoods


def accuracy(
    model: Classifier | InfersLabels,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures the share of labels that a classifier predicts, in %, with its binomial error.

    Args:
        model: The classifier, or a model that infers labels.
        data: A data set with labels.
        split, index, batch_size, progress: As in `nll`.

    Raises:
        DataError: The shapes of model and data differ, or the data have no labels.
    """
    check_shapes(model, data)
    if data.split(split).labels is None:
        raise DataError(f"{data.name}: expected labels in {split}, found none; accuracy needs them")
    logits: Callable[[Tensor], Any] = model.label_logits if isinstance(model, InfersLabels) else model
    with measuring(model):
        return share_of_right(
            "accuracy",
            lambda batch: logits(batch.x).argmax(-1) == batch.labels,
            data,
            split,
            index=index,
            batch_size=batch_size,
            device=model.device,
            label=f"accuracy on {data.name} {split}",
            progress=progress,
        )


def bayes_accuracy(
    model: Conditional,
    data: DataModule,
    split: Which = "test",
    *,
    num: int = 1000,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
    **effort: int,
) -> list[Measurement]:
    """Measures the share of examples to whose label a conditional density or bound gives the largest p(x | c), in %.

    Args:
        model: The model.
        data: A data set with labels.
        split: Split of the data set.
        num: Number of examples; all if there are fewer.
        seed: Seed of the choice of examples, and of the estimates of their likelihoods.
        batch_size, progress: As in `nll`.
        effort: Further fields of `Effort`.

    Raises:
        ConfigError: The model has neither a density nor a bound.
        DataError: Model and data differ in shape or grey levels, or the data have no labels.
    """
    if (labels := data.split(split).labels) is None:
        raise DataError(f"{data.name}: expected labels in {split}, found none; accuracy needs them")
    index = data.subset(split, min(num, len(labels)), seed)
    options: dict[str, Any] = {"index": index, "batch_size": batch_size, "progress": progress, "seed": seed, **effort}
    right = class_log_likelihoods(model, data, split, **options).argmax(1) == labels[index]
    value, error = (100 * number for number in share_and_error(right))
    details = {name: value for name, value in effort.items() if name in ("k", "draws")}
    return [Measurement("bayes_accuracy", value, error, "%", "estimate", len(right), seed, split, data.name, details)]


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
