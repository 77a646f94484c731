"""Passes a split through a model, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.batch import Batch
from zoo.capabilities import Classifier, Conditional, ZooModule
from zoo.data.base import DataModule, Which, levels_title
from zoo.distributed import gather, is_leader, share
from zoo.errors import ConfigError, DataError
from zoo.module import facts_of
from zoo.store.checkpoint import Checkpoint

Index: TypeAlias = Tensor | Literal["slice"] | None
"""Which examples of a split: positions; "slice" for a few seeded ones, a check in seconds; None for all."""


@contextmanager
def measuring(model: torch.nn.Module) -> Iterator[None]:
    """Sets evaluation mode without gradients, in float32: no autocast, and no TF32, the default of convolutions."""
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


def shape_of(model: ZooModule) -> tuple[int, ...]:
    """Shape of one example of a model."""
    return tuple(model.event_shape)  # type: ignore[arg-type]


def check_shapes(model: Any, data: DataModule) -> None:
    """Raises DataError if the examples of a model and of a data set differ in shape."""
    if tuple(model.event_shape) != tuple(data.event_shape):
        raise DataError(
            f"{data.name}: {type(model).__name__} expects examples of shape {tuple(model.event_shape)}, "
            f"found {tuple(data.event_shape)}; use data of that shape"
        )


def check_levels(model: ZooModule, data: DataModule) -> None:
    """Raises DataError if a model has a likelihood of other grey levels than the data have."""
    if _has_other_levels(model, data):
        expected, found = levels_title(getattr(model, "levels", None)), levels_title(data.levels)
        advice = "use data of that kind"
        if getattr(model, "levels", None) == 2 and getattr(data, "binarize", None) is False:
            advice = "pass --binarize (binarize=True) to make images black and white"
        raise DataError(f"{data.name}: {type(model).__name__} has a likelihood of {expected}, found {found}; {advice}")


def check_like(checkpoint: Checkpoint, model: ZooModule, data: DataModule) -> None:
    """Raises DataError if own data have another shape than a checkpoint's model, or other grey levels than its density.

    The data that the checkpoint was made from are not needed. Models without a density take any grey levels.
    """
    expected, found = shape_of(model), tuple(data.event_shape)
    if found != expected:
        raise DataError(
            f"{data.name}: expected examples of shape {'x'.join(map(str, expected))} (channels x height x width) for "
            f"{checkpoint.source}, found {'x'.join(map(str, found))}; pass --resize (resize=True) to bring images to "
            "this shape"
        )
    if _has_other_levels(model, data):
        levels = getattr(model, "levels", None)
        advice = {2: "pass --binarize, or an array of bool", 256: "pass images, or an array of uint8"}
        raise DataError(
            f"{data.name}: expected {levels_title(levels)} for {checkpoint.source}, found {levels_title(data.levels)}; "
            f"{advice.get(levels or 0, 'pass an array of floats')}"
        )


def _has_other_levels(model: ZooModule, data: DataModule) -> bool:
    has_density = facts_of(type(model)).get("density", "none") != "none"
    return has_density and getattr(model, "levels", None) != data.levels


def check_classes(model: ZooModule, data: DataModule) -> None:
    """Raises DataError if a model needs labels and the data have none, or more classes than the model."""
    if isinstance(model, Classifier | Conditional) and not 0 < (data.num_classes or 0) <= model.num_classes:
        found = f"{data.num_classes} classes" if data.num_classes else "no labels"
        kind, last = type(model).__name__, model.num_classes - 1
        raise DataError(
            f"{data.name}: expected labels from 0 to {last} for {kind}, found {found}; "
            "put images into folders by label, or labels beside x into an .npz file"
        )


def check_fit(model: ZooModule, data: DataModule) -> None:
    """Checks that a model can learn from the data.

    Raises:
        ConfigError: The examples have another shape than the model.
        DataError: The examples have other grey levels, or labels that the model does not know, or cannot be read.
    """
    expected, found = tuple(getattr(model, "event_shape", data.event_shape)), tuple(data.event_shape)
    if expected != found:
        raise ConfigError(
            f"model: expected event_shape {list(found)}, the shape of the examples of {data.name}, found "
            f"{list(expected)}"
        )
    check_classes(model, data)
    check_levels(model, data)
    if not data.files:  # nothing to download: what is wrong with single examples shows before the run begins
        data.split("train")


def per_example(
    function: Callable[[Batch], Tensor],
    data: DataModule,
    split: Which,
    *,
    index: Index,
    seed: int = 0,
    cost: int = 1,
    batch_size: int,
    device: torch.device,
    label: str,
    progress: bool,
) -> Tensor:
    """Computes a function of every example, batch by batch.

    Processes of a group share the examples, and all get all values.

    Args:
        function: Maps a batch on `device` to values [B].
        data: The data set.
        split: Split of the data set.
        index: Examples of the split.
        seed, cost: See `seeded_slice`.
        batch_size: Number of examples in a batch.
        device: Device of the batches.
        label: Title of the progress bar.
        progress: Whether to show a progress bar.

    Returns:
        [n], float64, on the CPU, in the order of `index` or of the split.

    Raises:
        DataError: There are no examples.
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
    """Positions of the examples on which the numbers of a split are checked quickly: 10 to 250 of them.

    Args:
        data: The data set.
        split: Split of the data set.
        seed: Seed of the choice.
        cost: Number of rows per example that pass through the network; the more, the fewer examples.

    Returns:
        [n], int64.
    """
    num = max(10, min(250, 10_000 // cost))
    return data.subset(split, min(num, len(data.split(split))), seed)


def slice_details(
    values: Tensor, data: DataModule, split: Which, index: Index, *, seed: int = 0, cost: int = 1
) -> dict[str, dict[str, float]]:
    """The entry `slice` of a measurement's details, from the values [n] of a whole split; see `seeded_slice`."""
    chosen = seeded_slice(data, split, seed, cost)
    if index is not None or len(chosen) == len(values):
        return {}
    return {"slice": {"n": len(chosen), "value": values[chosen].mean().item()}}
