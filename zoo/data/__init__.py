"""Data sets: published ones in their published splits, and users' own."""

import zoo.imports  # noqa: F401
from zoo.data.base import DataModule, Loader, Split
from zoo.data.cifar import CIFAR10
from zoo.data.digits import Digits
from zoo.data.mnist import MNIST, BinarizedMNIST, FashionMNIST
from zoo.data.own import Arrays, ImageFolder
from zoo.data.rivers import Rivers
from zoo.data.toy import Toy2D

__all__ = [
    "CIFAR10",
    "MNIST",
    "Arrays",
    "BinarizedMNIST",
    "DataModule",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Loader",
    "Rivers",
    "Split",
    "Toy2D",
]
