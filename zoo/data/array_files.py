"""Users' arrays: reading them from files, and converting them from NumPy's many kinds to tensors."""

from __future__ import annotations

import zlib
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from zoo.config import listed, reason
from zoo.data.image_files import SUFFIXES
from zoo.errors import DataError
from zoo.files import check_exists


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads the examples and, if there are any, the labels of a .npy or .npz file. Pickled objects are refused.

    The examples are the array `x` of an .npz file, or its only array besides `labels`.

    Raises:
        DataError: There is no such file, or it does not hold such arrays.
    """
    expected = "a folder of images, or a .npy or .npz file"
    check_exists(path, expected)
    if path.suffix.lower() in SUFFIXES:
        raise DataError(f"{path}: expected {expected}, found an image; pass the folder that contains it")
    try:
        if not path.is_file():
            raise ValueError("it is not a regular file")
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content, None
        with content:
            names = content.files
            others = [name for name in names if name != "labels"]
            chosen = "x" if "x" in names else others[0] if len(others) == 1 else None
            if chosen is not None:
                return content[chosen], content["labels"] if "labels" in names else None
    except (OSError, EOFError, ValueError, TypeError, RuntimeError, BadZipFile, TokenError, zlib.error) as error:
        why = reason(error)
        if "pickle" in why:  # NumPy calls every unknown content a pickle
            why = "it has another format, or contains objects instead of numbers"
        raise DataError(
            f"{path}: expected arrays of numbers in a .npy or .npz file, but it cannot be read ({why})"
        ) from error
    found = listed(names) if names else "none"
    raise DataError(f"{path}: expected an array called x, found {found}; save it with numpy.savez(path, x=...)")


def to_tensor(array: ArrayLike | Tensor, where: str) -> Tensor:
    """Converts an array in any order of bytes and with any strides, or a tensor on any device.

    Raises:
        DataError: It does not hold numbers.
    """
    if isinstance(array, Tensor):
        return array.detach().cpu()
    try:
        found = np.asarray(array)
        if found.dtype.kind == "f":
            found = found.astype({2: np.float16, 4: np.float32}.get(found.dtype.itemsize, np.float64), copy=False)
        native = found.astype(found.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(np.require(native, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:  # words and objects; lists of several lengths
        raise DataError(f"{where}: expected numbers, found {reason(error)}") from error


def to_labels(labels: ArrayLike | Tensor, where: str) -> tuple[Tensor, list[str] | None]:
    """Converts labels: whole numbers stay, and words are numbered in alphabetical order.

    Returns:
        The labels, and the words by number; None if they are numbers.
    """
    found = labels if isinstance(labels, Tensor) else np.asarray(labels)
    if isinstance(found, np.ndarray) and found.dtype.kind in "OSU":
        words = [word.decode(errors="replace") if isinstance(word, bytes) else word for word in found.ravel().tolist()]
        if all(isinstance(word, str) for word in words):
            classes = sorted(set(words))
            numbers = {word: number for number, word in enumerate(classes)}
            return torch.tensor([numbers[word] for word in words]).view(found.shape), classes
    return to_tensor(found, f"{where}: labels"), None
