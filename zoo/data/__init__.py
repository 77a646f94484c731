"""Data sets: published ones with their published splits, small ones that are drawn from a seed, and users' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zoo.compatibility  # noqa: F401
from zoo.config import bind, near
from zoo.data.adapt import as_data
from zoo.data.bars import Bars
from zoo.data.base import DataModule, Loader, Split
from zoo.data.cifar import CIFAR10
from zoo.data.digits import Digits
from zoo.data.mnist import MNIST, BinarizedMNIST, FashionMNIST
from zoo.data.own import Arrays, ImageFolder
from zoo.data.rivers import Rivers
from zoo.data.shapes import Shapes64
from zoo.data.toy import Toy1D, Toy2D
from zoo.errors import ConfigError

__all__ = [
    "CIFAR10",
    "MNIST",
    "Arrays",
    "Bars",
    "BinarizedMNIST",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Loader",
    "Rivers",
    "Shapes64",
    "Split",
    "Toy1D",
    "Toy2D",
    "as_data",
    "build",
]


def build(section: Mapping[str, Any], seed: int = 0) -> DataModule:
    """Makes the data set that the section `data` of a recipe describes.

    Args:
        section: Name of a data set of this package under the key `class`, and its arguments under theirs.
        seed: Seed of the data set, unless the section has one.

    Raises:
        ConfigError: There is no such data set, or an argument does not fit.
    """
    arguments = dict(section)
    name = str(arguments.pop("class", None))
    exports = {key: globals()[key] for key in __all__ if key != "DataModule"}
    kinds = {key: kind for key, kind in exports.items() if isinstance(kind, type) and issubclass(kind, DataModule)}
    if name not in kinds:
        raise ConfigError(f"data: no class {name!r}; {near(name, kinds)}")
    return kinds[name](**bind(kinds[name], {"seed": seed, **arguments}, f"data: {name}"))
