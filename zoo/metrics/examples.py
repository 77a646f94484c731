"""Passing a split through a model, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.batch import Batch
from zoo.capabilities import Classifier, Conditional, EvidenceLowerBound, TractableDensity, ZooModule
from zoo.data.base import DataModule, Which, levels_title
from zoo.distributed import gather, is_leader, share
from zoo.errors import DataError

Index: TypeAlias = Tensor | Literal["slice"] | None
"""Which examples of a split: positions, the seeded slice on which a number can be checked in seconds, or all."""


@contextmanager
def measuring(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and float32: neither autocast nor TF32, which convolutions use by default."""
    was_training, precision = model.training, torch.get_float32_matmul_precision()
    device = next(iter(model.parameters()), torch.empty(0)).device.type
    full = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    model.eval()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False), full:
            yield
    finally:
        model.train(was_training)
        torch.set_float32_matmul_precision(precision)


def check_shapes(model: Any, data: DataModule) -> None:
    """Raises DataError where a model and a data set speak of different things."""
    if tuple(model.event_shape) != tuple(data.event_shape):
        raise DataError(
            f"{data.name}: {type(model).__name__} expects examples of shape {tuple(model.event_shape)}, "
            f"found {tuple(data.event_shape)}; use data of that shape"
        )


def check_levels(model: ZooModule, data: DataModule) -> None:
    """Raises DataError where a likelihood is of other grey levels than the data have: it would be no likelihood."""
    if isinstance(model, TractableDensity | EvidenceLowerBound) and model.levels != data.levels:
        expected, found = levels_title(model.levels), levels_title(data.levels)
        raise DataError(
            f"{data.name}: {type(model).__name__} has a likelihood of {expected}, found {found}; use data of that kind"
        )


def check_classes(model: ZooModule, data: DataModule) -> None:
    """Raises DataError where a model learns from labels and the data have none, or more than it has classes."""
    if isinstance(model, Classifier | Conditional) and not 0 < (data.num_classes or 0) <= model.num_classes:
        found = f"{data.num_classes} classes" if data.num_classes else "no labels"
        kind, last = type(model).__name__, model.num_classes - 1
        raise DataError(
            f"{data.name}: expected labels from 0 to {last} for {kind}, found {found}; "
            "put images into folders by label, or labels beside x into an .npz file"
        )


def per_example(
    function: Callable[[Batch], Tensor],
    data: DataModule,
    split: Which,
    *,
    index: Index,
    seed: int,
    cost: int,
    batch_size: int,
    device: torch.device,
    label: str,
    progress: bool,
) -> Tensor:
    """`function` of every example, batch by batch: [n], float64, on the CPU, in the order of `index` or the split.

    Processes of a group share the examples, and all get all values.

    Args:
        seed, cost: see `seeded_slice`.
    """
    if isinstance(index, str):
        index = seeded_slice(data, split, seed, cost)
    index = torch.arange(len(data.split(split))) if index is None else index
    if (total := len(index)) == 0:
        raise DataError(f"{data.name}: expected examples in {split}, found none")
    values = []
    mine = index[share(total)]
    with tqdm(total=len(mine), desc=label, unit="ex", disable=None if progress and is_leader() else True) as bar:
        for batch in data.batches(split, index=mine, batch_size=batch_size):
            labels = batch.labels.to(device) if batch.labels is not None else None
            values.append(function(Batch(batch.x.to(device), labels, batch.index)).cpu().double())
            bar.update(len(batch.x))
    return gather(torch.cat(values), total)


def seeded_slice(data: DataModule, split: Which, seed: int, cost: int) -> Tensor:
    """Positions of the examples that stand for a split in quick checks: 10 to 250 of them.

    Args:
        seed: chooses them.
        cost: rows that an example sends through the network.
    """
    num = max(10, min(250, 10_000 // cost))
    return data.subset(split, min(num, len(data.split(split))), seed)


def slice_details(
    values: Tensor, data: DataModule, split: Which, index: Index, *, seed: int, cost: int
) -> dict[str, dict[str, float]]:
    """The entry `slice` of a measurement's details, from the values [n] of a whole split."""
    chosen = seeded_slice(data, split, seed, cost)
    if index is not None or len(chosen) == len(values):
        return {}
    return {"slice": {"n": len(chosen), "value": values[chosen].mean().item()}}
