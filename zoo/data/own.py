"""Users' own data: folders of images, and arrays."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from zoo.data.array_files import read_arrays, to_labels, to_tensor
from zoo.data.base import DataModule, Split, Which, division
from zoo.data.image_files import SUFFIXES, decode, find_images
from zoo.errors import ConfigError, DataError
from zoo.files import expand, printable

PUBLISHED = (
    "mnist",
    "dynamic-mnist",
    "binarized-mnist",
    "fashion-mnist",
    "dynamic-fashion-mnist",
    "cifar10",
    "digits",
    "rivers",
    "bars",
    "shapes64",
)


LARGEST = 512
"""Largest height and width of images to train on; models of larger ones fill the memory of most machines."""

SPLITS: dict[str, Which] = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
"""Names of folders that are splits."""


class _Own(DataModule):
    """Data without published splits: about a tenth is for validation and a tenth for testing.

    The split of an example depends on the seed and on its name (path or position), so that it stays the same when
    examples are added.
    """

    path: Path
    shape: tuple[int, ...]
    """Shape of one example. Unlike `event_shape`, it is also known if there are too few examples for three splits."""

    @property
    @abstractmethod
    def _most(self) -> int:
        """Number of examples, or of files that may be some."""

    @abstractmethod
    def _read(self) -> tuple[Sequence[str], Split]:
        """Names and values of all examples."""

    @cached_property
    def _parts(self) -> dict[Which, tuple[Tensor, Split]]:
        """Positions and examples of each split. Some splits are empty if there are fewer than 3 examples."""
        names, whole = self._read()
        return {which: (index, whole.take(index)) for which, index in self._division(names).items()}

    def _division(self, names: Sequence[str]) -> dict[Which, Tensor]:
        """Positions of the examples of each split, from the names of all."""
        return _divide(names, self.seed)

    @property
    def _num(self) -> int:
        return sum(len(split) for _, split in self._parts.values())

    def everything(self) -> Split:
        """All examples in the order of the files or of the array.

        Raises:
            DataError: There are no examples.
        """
        if self._num == 0:
            raise DataError(f"{self.path}: expected at least 1 example, found none; add some")
        index, parts = zip(*self._parts.values(), strict=True)
        labels = [part.labels for part in parts if part.labels is not None]
        together = Split(torch.cat([part.x for part in parts]), torch.cat(labels) if labels else None)
        return together.take(torch.cat(index).argsort())

    def load(self, which: Which) -> Split:
        self._check_enough(self._num)
        return self._parts[which][1]

    @property
    def event_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        self._check_enough(self._most)
        return self.shape

    def _check_enough(self, num: int) -> None:
        if num < 3:
            raise DataError(f"{self.path}: expected at least 3 examples, one for each split, found {num}; add some")


def _divide(names: Sequence[str], seed: int) -> dict[Which, Tensor]:
    """Positions of the splits. Names are hashed to [0, 1); two tenths of this range are for validation and testing.

    A split that would be empty takes the nearest example.
    """
    texts = (f"{seed} {name}".encode(errors="surrogateescape") for name in names)  # file names may not be valid text
    digests = [hashlib.blake2b(text, digest_size=6).digest() for text in texts]
    place = torch.tensor([int.from_bytes(digest) / 2**48 for digest in digests], dtype=torch.float64)
    most = max(0, len(names) - 1)  # keep one for training
    both = min(max(int((place < 0.2).sum()), 2), most)
    num_valid = min(max(int((place < 0.1).sum()), 1), max(0, both - 1))
    return division(place.argsort(stable=True), num_valid, both - num_valid)


def _divide_folders(names: Sequence[str], seed: int) -> dict[Which, Tensor]:
    """Positions of the splits, by the first folder of each path; a split without a folder gets a tenth of `train`."""
    by_folder: dict[Which, list[int]] = {"train": [], "valid": [], "test": []}
    for position, name in enumerate(names):
        by_folder[SPLITS[name.split("/")[0].lower()]].append(position)
    train = torch.tensor(by_folder["train"], dtype=torch.int64)
    parts = {which: train[index] for which, index in _divide([names[i] for i in train.tolist()], seed).items()}
    for which in ("valid", "test"):
        if by_folder[which]:
            parts["train"] = torch.cat([parts["train"], parts[which]]).sort().values
            parts[which] = torch.tensor(by_folder[which])
    return parts


class ImageFolder(_Own):
    """A folder of images, 8-bit or binary. If it has subfolders, each is a class, numbered in the order of their names.

    If the subfolders are called `train`, `val` and `test`, they are the splits, and folders inside them are the
    classes. A tenth of `train` takes the place of a split that is missing.

    Transparent pixels become white, and images are rotated as their EXIF orientation says. Symbolic links are followed.
    Other files are left out with a warning; those whose names begin with a dot, without.

    Attributes:
        classes: Names of the classes in the order of their labels, or None if the images are in the folder itself.
        used: Paths of the images in their order, relative to the folder. The first use of a split sets it.
        skipped: Paths of the corrupt files that were left out. The first use of a split sets it.
    """

    def __init__(
        self,
        path: str,
        *,
        size: int | None = None,
        channels: Literal[1, 3] | None = None,
        binarize: bool = False,
        skip_corrupt: bool = False,
        classes: list[str] | None = None,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        """
        Args:
            path: Path of the folder.
            size: Height and width in pixels to which the central square of each image is scaled (bicubic). By default,
                images keep their size and must all have the same.
            channels: Number of channels to which images are converted, 1 (grey) or 3 (RGB). By default, images keep
                their channels.
            binarize: Whether pixels become 1 where they are at least half grey, and 0 elsewhere.
            skip_corrupt: Whether files that cannot be decoded are left out with a warning.
            classes: Names of the classes in the order of their labels; there need not be a folder for each. By default,
                the names of the folders in alphabetical order.
            batch_size: See `DataModule`.
            seed: Seed for the splits and for the order of training.

        Raises:
            ConfigError: The size or the number of channels is impossible.
            DataError: There is no such folder.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        if size is not None and size < 1:
            raise ConfigError(f"ImageFolder: size: expected at least 1 pixel, found {size}")
        if channels not in (None, 1, 3):
            raise ConfigError(
                f"ImageFolder: channels: expected 1 (grey), 3 (RGB) or None (unchanged), found {channels}"
            )
        self.path = expand(path)
        if not self.path.is_dir():
            raise DataError(
                f"{self.path}: expected a folder of images, found {'a file' if self.path.exists() else 'nothing'}"
            )
        self.name = _name(self.path.resolve().name)
        self.size = size
        self.channels = channels
        self.binarize = binarize
        self.levels = 2 if binarize else 256
        self.skip_corrupt = skip_corrupt
        self._chosen = classes
        self.used: list[Path] = []
        self.skipped: list[Path] = []

    @cached_property
    def _images(self) -> list[Path]:
        found, others = find_images(self.path)
        if not found:
            there = f"none, but {others}" if others else "none"
            raise DataError(
                f"{self.path}: expected images ({', '.join(sorted(SUFFIXES))}), found {there}; check the path"
            )
        if others:
            warnings.warn(f"{self.path}: ignored {others}", stacklevel=2)
        return found

    @property
    def _most(self) -> int:
        return len(self._images)

    @cached_property
    def _first(self) -> tuple[Path, np.ndarray]:
        """The first image that can be decoded; the others must have its shape."""
        return next(self._decoded([]))

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._first[1].shape

    @cached_property
    def _has_splits(self) -> bool:
        """Whether the subfolders are splits and not classes."""
        first = {path.parts[0].lower() if len(path.parts) > 1 else "" for path in self._images}
        return "train" in first and first <= SPLITS.keys()

    def _below_split(self, path: Path) -> tuple[str, ...]:
        """The parts of a relative path, without the folder of its split."""
        return path.parts[1:] if self._has_splits else path.parts

    @cached_property
    def classes(self) -> list[str] | None:  # type: ignore[override]
        paths = {path: self._below_split(path) for path in self._images}
        folders = sorted({parts[0] for parts in paths.values() if len(parts) > 1})
        loose = next((path for path, parts in paths.items() if len(parts) == 1), None)
        if folders and loose is not None:
            raise DataError(
                f"{self.path / loose}: expected all images in subfolders such as {folders[0]}/, whose names are the "
                "labels, found one outside; move it into one of them"
            )
        if folders and self._chosen is not None and (unknown := [name for name in folders if name not in self._chosen]):
            raise DataError(
                f"{self.path / unknown[0]}: expected folders called {', '.join(self._chosen[:20])}, found another; "
                "rename it, or leave out the option classes"
            )
        return (self._chosen or folders) if folders else None

    def _division(self, names: Sequence[str]) -> dict[Which, Tensor]:
        return _divide_folders(names, self.seed) if self._has_splits else super()._division(names)

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]
        return None if self.classes is None else len(self.classes)

    def _read(self) -> tuple[Sequence[str], Split]:
        from tqdm import tqdm

        classes, shape = self.classes, self.shape
        x = np.empty((len(self._images), *shape), np.uint8)
        self.used, self.skipped = [], []
        images = self._decoded(self.skipped)
        for path, image in tqdm(images, f"reading {self.name}", len(x), unit=" images", delay=2, disable=None):
            if image.shape != shape:
                raise DataError(
                    f"{self.path / path}: expected {_describe(shape)} as in {self._first[0]}, found "
                    f"{_describe(image.shape)}; pass size= and channels= (--resize, or --size and --grey) to convert "
                    "all images"
                )
            x[len(self.used)] = image >= 128 if self.binarize else image
            self.used.append(path)
        if self.skipped:
            warnings.warn(
                f"{self.path}: left out {len(self.skipped)} of {len(x)} images that cannot be decoded, the first is "
                f"{self.skipped[0].name}",
                stacklevel=2,
            )
        labels = None if classes is None else torch.tensor([classes.index(self._below_split(p)[0]) for p in self.used])
        return [path.as_posix() for path in self.used], Split(torch.from_numpy(x[: len(self.used)]), labels)

    def _decoded(self, skipped: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
        """Relative path and pixels (uint8 [C, H, W]) of each image that can be decoded, in the order of the paths.

        Paths of the others are added to `skipped`.
        """
        size = None if self.size is None else (self.size, self.size)
        for path in self._images:
            try:
                pixels = decode(self.path / path, self.channels, size)
            except DataError as error:
                if not self.skip_corrupt:
                    raise DataError(
                        f"{error}; remove it, or pass skip_corrupt (--skip-corrupt) to leave out corrupt files"
                    ) from error.__cause__
                skipped.append(self.path / path)
                continue
            yield path, pixels
        if len(skipped) == len(self._images):
            raise DataError(f"{self.path}: expected images, found {len(skipped)} files, none of which can be decoded")


def check_size(height: int, width: int) -> None:
    """Raises ConfigError if images are too large to train a new model on them."""
    if max(height, width) > LARGEST:
        raise ConfigError(
            f"size: expected at most {LARGEST}x{LARGEST} pixels, for which a model fits into memory, found "
            f"{height}x{width}; choose a smaller one, such as --size 64 (size=64)"
        )


def own_section(
    path: Path,
    event_shape: tuple[int, ...] | None = None,
    resize: bool = False,
    binarize: bool = False,
    skip_corrupt: bool = False,
    size: int | None = None,
    grey: bool = False,
) -> dict[str, Any]:
    """The section `data` of a recipe for own data, which `zoo.data.build` takes.

    Args:
        path: A folder of images, or a .npz or .npy file.
        event_shape: Shape to which images are converted if `resize` is set, (C, H, W).
        resize, binarize, skip_corrupt, size: See `ImageFolder`.
        grey: Whether images are converted to one channel.

    Raises:
        ConfigError: An option does not apply to arrays, or images would be too large or not square.
    """
    if size is not None:
        check_size(size, size)
    options = {"resize": resize, "binarize": binarize, "skip_corrupt": skip_corrupt, "size": size, "grey": grey}
    if not path.is_dir():
        is_array = path.exists() and path.suffix.lower() not in SUFFIXES  # else `Arrays` says what is wrong
        if is_array and (given := [name for name, value in options.items() if value]):
            raise ConfigError(f"{path}: {given[0]} is for a folder of images, found no folder; prepare arrays yourself")
        return {"class": "Arrays", "path": str(path)}
    section: dict[str, Any] = {"class": "ImageFolder", "path": str(path)}
    if size is not None:
        section["size"] = size
    if grey:
        section["channels"] = 1
    if resize and event_shape is not None:
        channels, height, width = event_shape
        if height != width:
            raise ConfigError(
                f"resize: expected a model of square images, found {height}x{width}; resize them yourself"
            )
        section |= {"size": height, "channels": channels}
    return section | {name: True for name in ("binarize", "skip_corrupt") if options[name]}


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[2]} pixels in {shape[0]} channel{'s' if shape[0] > 1 else ''}"


class Arrays(_Own):
    """Examples in an array: images [N, C, H, W], grey images [N, H, W], or vectors [N, D].

    - uint8: 8-bit data, 0, ..., 255.
    - bool: binary data.
    - Floats: continuous data. Images are in [0, 1]; vectors can have any values.

    Attributes:
        classes: Names of the classes in the order of their labels if labels are words, else None.
    """

    classes: list[str] | None = None
    _splits_of: Mapping[Which, int] | None = None

    def __init__(self, path: str, *, batch_size: int = 128, seed: int = 0) -> None:
        """
        Args:
            path: Path of a .npy file, or of a .npz file with the arrays `x` and optionally `labels` ([N], integers from
                0, or words). An array that stands there alone, or beside `labels`, may have any name.
            batch_size: See `DataModule`.
            seed: Seed for the splits and for the order of training.

        Raises:
            DataError: The file cannot be read, or an array has another shape, type or range.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        self.path = expand(path)
        self.name = _name(self.path.stem)
        self._set(*read_arrays(self.path))

    @classmethod
    def from_array(
        cls,
        x: Tensor | ArrayLike,
        labels: Tensor | ArrayLike | None = None,
        *,
        name: str = "arrays",
        batch_size: int = 128,
        seed: int = 0,
        splits: Mapping[Which, int] | None = None,
    ) -> Arrays:
        """Makes a data set from arrays in memory.

        Args:
            x: Examples, see the class.
            labels: Labels of the examples ([N], integers from 0, or words), if there are any.
            name: Name of the data set in metrics and error messages.
            batch_size: See `DataModule`.
            seed: Seed for the splits and for the order of training.
            splits: Number of examples of each split, if x has the splits one after another. A tenth of `train` takes
                the place of a split that is missing. By default, `seed` decides which examples are in which split.

        Raises:
            DataError: An array has another shape, type or range.
        """
        data = cls.__new__(cls)
        DataModule.__init__(data, batch_size=batch_size, seed=seed)
        data.name = name
        data.path = Path(name)
        data._splits_of = splits
        data._set(x, labels)
        return data

    def _set(self, examples: Tensor | ArrayLike, classes: Tensor | ArrayLike | None) -> None:
        """Converts, checks and stores the arrays."""
        where, labels = str(self.path), None
        x = to_tensor(examples, f"{where}: x")
        if classes is not None:
            labels, self.classes = to_labels(classes, where)
        if x.ndim == 3 and x.shape[2] > 4:  # else it is more likely one colour image
            x = x[:, None]
        if x.ndim not in (2, 4) or 0 in x.shape[1:]:
            advice = "; pass grey images as x[:, None]" if x.ndim == 3 else ""
            raise DataError(
                f"{where}: x: expected images [N, C, H, W] or vectors [N, D], found shape {tuple(x.shape)}{advice}"
            )
        if x.ndim == 4 and x.shape[1] > 4 >= x.shape[3]:
            raise DataError(
                f"{where}: x: expected the channels first, [N, C, H, W], found shape {tuple(x.shape)}; "
                "transpose it by (0, 3, 1, 2)"
            )
        if x.dtype == torch.uint8:
            self.levels = 256
            if len(x) and x.max() <= 1:
                raise DataError(f"{where}: x: expected uint8 from 0 to 255, found at most 1; pass binary data as bool")
        elif x.dtype == torch.bool:
            self.levels = 2
            x = x.to(torch.uint8)
        elif x.is_floating_point():
            self.levels = None
            x = x.to(torch.float32)
            if (bad := (~x.isfinite()).flatten(1).any(1)).any():
                raise DataError(
                    f"{where}: x: expected finite numbers, found NaN or infinity in {int(bad.sum())} of {len(x)} "
                    f"examples, the first at {int(bad.int().argmax())}; remove them"
                )
            if x.ndim == 4 and len(x) and (x.min() < 0 or x.max() > 1):
                raise DataError(
                    f"{where}: x: expected images in [0, 1], found {x.min():.4g} to {x.max():.4g}; rescale them, or "
                    "pass 8-bit images as uint8"
                )
        else:
            raise DataError(f"{where}: x: expected uint8, bool or floats, found {_dtype(x)}; convert it")
        if labels is not None:
            if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.shape != x.shape[:1]:
                raise DataError(
                    f"{where}: labels: expected {len(x)} integers, found {_dtype(labels)} of shape "
                    f"{tuple(labels.shape)}"
                )
            labels = labels.to(torch.int64)
            if len(labels) and labels.min() < 0:
                raise DataError(
                    f"{where}: labels: expected 0, 1, ..., found {int(labels.min())}; number the classes from 0"
                )
            self.num_classes = int(labels.max()) + 1 if len(labels) else None
        self.shape = tuple(x.shape[1:])
        self._total = len(x)
        self._whole: Split | None = Split(x, labels)

    @property
    def _most(self) -> int:
        return self._total

    def _read(self) -> tuple[Sequence[str], Split]:
        assert self._whole is not None
        whole, self._whole = self._whole, None  # the splits are copies; free the original
        if self._splits_of is not None:
            return [f"{which}/{i}" for which, num in self._splits_of.items() for i in range(num)], whole
        return [str(position) for position in range(len(whole))], whole

    def _division(self, names: Sequence[str]) -> dict[Which, Tensor]:
        if self._splits_of is None:
            return super()._division(names)
        return _divide_folders(names, self.seed)


def _name(name: str) -> str:
    """A printable name that differs from those of the published data sets, so that their numbers are not mixed up."""
    return f"own-{name}" if name in PUBLISHED else printable(name)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
