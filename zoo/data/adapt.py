"""Data sets of PyTorch as data modules of the zoo: they are read once, and their values are checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from zoo.config import brief, reason
from zoo.data.base import DataModule, Which
from zoo.data.own import Arrays
from zoo.errors import DataError

Data: TypeAlias = DataModule | Dataset[Any] | DataLoader[Any] | Tensor | np.ndarray
"""What `as_data` takes."""

_CHUNK = 1000  # examples that are converted at once, so that floats of all of them need not be in memory
_EPSILON = 1e-5  # of pixels in [0, 1]: far below the distance of two grey levels


def as_data(
    train: Data | None = None,
    valid: Data | None = None,
    test: Data | None = None,
    *,
    batch_size: int = 128,
    seed: int = 0,
) -> DataModule:
    """Makes a data module of data sets of PyTorch or torchvision, or of arrays.

    The examples are x, or (x, label): images of PIL, uint8, or floats in [0, 1] such as those of `ToTensor`, which are
    8-bit pixels if all are multiples of 1/255; or vectors of any real numbers. Images that are black or white
    everywhere are binary. Labels are whole numbers from 0 or words; others are left out. Everything is read into memory
    once, so that a random transform is drawn once; a `DataLoader` is read to its end.

    Args:
        train: Examples for training, which may be a data module already. If nothing else is given, a tenth of them is
            for validation and a tenth for testing; if one of `valid` and `test` is given, a tenth is for the other.
        valid: Examples for validation.
        test: Examples for testing. They may be given alone, for an evaluation.
        batch_size: Number of examples per training step.
        seed: Seed for the splits and for the order of training.

    Raises:
        DataError: The data are of another kind, or the values are out of range.
    """
    if isinstance(train, DataModule):
        return train
    parts: dict[Which, Data | None] = {"train": train, "valid": valid, "test": test}
    given = {which: data for which, data in parts.items() if data is not None}
    if not given:
        raise DataError("expected a data set, found None; pass train, valid or test")
    name = next(map(_name, given.values()))
    read = {which: _read(data, name) for which, data in given.items()}
    if len({x.shape[1:] for x, _ in read.values()}) > 1:
        shapes = ", ".join(f"{tuple(x.shape[1:])} in {which}" for which, (x, _) in read.items())
        raise DataError(f"{name}: expected examples of one shape in all splits, found {shapes}")
    xs = [x for x, _ in read.values()]
    if len({x.dtype for x in xs}) > 1:
        xs = [x.float() / 255 if x.dtype == torch.uint8 else x.float() for x in xs]
    labels = [label for _, part in read.values() for label in (part or ())]
    data = Arrays.from_array(
        _binary(torch.cat(xs)),
        labels if all(part is not None for _, part in read.values()) else None,
        name=name,
        batch_size=batch_size,
        seed=seed,
        splits=None if given.keys() == {"train"} else {which: len(x) for which, (x, _) in read.items()},
    )
    classes = _classes(next(iter(given.values())))
    if data.num_classes and data.classes is None and classes and data.num_classes <= len(classes):
        data.classes, data.num_classes = classes, len(classes)
    return data


def is_adaptable(data: object) -> bool:
    """Whether `as_data` takes these data, and Lightning does not. It takes data modules and loaders itself."""
    return isinstance(data, Dataset | Tensor | np.ndarray)


def _name(data: Any) -> str:
    data = _inner(data)
    return "arrays" if isinstance(data, Tensor | np.ndarray | TensorDataset) else type(data).__name__


def _inner(data: Any) -> Any:
    """The data set inside a loader or a subset."""
    while isinstance(data, DataLoader) or type(data).__name__ == "Subset":
        data = data.dataset
    return data


def _classes(data: Any) -> list[str] | None:
    """Names of the classes, as the data sets of torchvision have them."""
    found = getattr(_inner(data), "classes", None)
    return [str(name) for name in found] if isinstance(found, list | tuple) and found else None


def _read(data: Any, name: str) -> tuple[Tensor, list[Any] | None]:
    """All examples, [N, ...], and their labels if they have any."""
    if isinstance(data, Tensor | np.ndarray):
        return _compact(torch.as_tensor(data)), None
    if not isinstance(data, Dataset | DataLoader):
        raise DataError(f"expected a data set or a loader of PyTorch, or an array, found {brief(data)}")
    if isinstance(data, TensorDataset):
        x, *rest = data.tensors
        return _compact(x), _labels_of(rest[0]) if rest else None
    chunks: list[Tensor] = []
    labels: list[Any] = []
    num = 0
    for xs, ys in _chunks(_batches(data) if isinstance(data, DataLoader) else _examples(data), name):
        chunks.append(_compact(xs))
        labels += ys
        num += len(xs)
    if not chunks:
        raise DataError(f"{name}: expected examples, found none")
    if len({chunk.dtype for chunk in chunks}) > 1:
        chunks = [chunk.float() / 255 if chunk.dtype == torch.uint8 else chunk.float() for chunk in chunks]
    return torch.cat(chunks), labels if len(labels) == num else None


def _examples(data: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of an example and its label, or None."""
    items: Iterable[Any] = (data[i] for i in range(len(data))) if hasattr(data, "__len__") else data
    for item in items:
        x, label = (*item, None, None)[:2] if isinstance(item, tuple | list) else (item, None)
        yield x, label


def _batches(loader: DataLoader[Any]) -> Iterator[tuple[Any, Any]]:
    """The pairs of `_examples`, from batches."""
    for batch in loader:
        xs, labels = (*batch, None, None)[:2] if isinstance(batch, tuple | list) else (batch, None)
        known: Iterable[Any] | None = _labels_of(labels) if isinstance(labels, Tensor | list | tuple) else None
        yield from zip(xs, known or [None] * len(xs), strict=True)


def _chunks(pairs: Iterable[tuple[Any, Any]], name: str) -> Iterator[tuple[Tensor, list[Any]]]:
    """Stacks examples; the labels are those that are whole numbers or words."""
    xs: list[Tensor] = []
    labels: list[Any] = []
    shape: tuple[int, ...] | None = None
    for number, (x, label) in enumerate(pairs):
        example = _tensor(x, f"{name}: example {number}")
        shape = shape or tuple(example.shape)
        if tuple(example.shape) != shape:
            raise DataError(
                f"{name}: expected examples of one shape, found {shape} and, at {number}, {tuple(example.shape)}; "
                "resize images in the transform of the data set"
            )
        xs.append(example)
        if (label := _label(label)) is not None:
            labels.append(label)
        if len(xs) == _CHUNK:
            yield torch.stack(xs), labels
            xs, labels = [], []
    if xs:
        yield torch.stack(xs), labels


def _tensor(x: Any, where: str) -> Tensor:
    """One example: an image of PIL becomes uint8 [C, H, W]."""
    if type(x).__module__.startswith("PIL."):
        if x.mode not in ("1", "L", "RGB"):
            raise DataError(f"{where}: expected a grey or an RGB image, found mode {x.mode}; use image.convert('RGB')")
        pixels = torch.from_numpy(np.array(x))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
    try:
        return torch.as_tensor(x).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where}: expected x or (x, label) with an image or an array x, found {brief(x)} ({reason(error)})"
        ) from error


def _label(label: Any) -> int | str | None:
    if isinstance(label, str | int | np.integer):
        return label if isinstance(label, str) else int(label)
    is_number = isinstance(label, Tensor | np.ndarray) and label.ndim == 0 and "int" in str(label.dtype)
    return int(label) if is_number else None


def _labels_of(labels: Any) -> list[int | str] | None:
    """The labels of a batch, if they are one whole number or word per example."""
    found = [_label(label) for label in labels]
    return None if None in found else found  # type: ignore[return-value]


def _compact(x: Tensor) -> Tensor:
    """Images of floats, all multiples of 1/255 in [0, 1], as uint8; other examples as they are."""
    if x.ndim < 3 or not x.is_floating_point() or not x.numel() or x.min() < 0 or x.max() > 1:
        return x
    levels = (x * 255).round()
    return levels.to(torch.uint8) if (x - levels / 255).abs().max() < _EPSILON else x


def _binary(x: Tensor) -> Tensor:
    """8-bit images that are black or white everywhere as bool."""
    is_binary = x.ndim > 2 and x.dtype == torch.uint8 and bool(((x == 0) | (x == 255)).all())
    return x > 0 if is_binary else x
