"""MNIST and its relatives: 28x28 images, 50,000 for training, 10,000 for validation, 10,000 for testing."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from zoo.cache import remembered
from zoo.data.base import DataModule, Split, Which, permutation
from zoo.data.files import Published, read
from zoo.errors import ConfigError
from zoo.progress import bar, steps
from zoo.random import Streams, rand

_NUM_VALID = 10_000  # the last images of the training file, as in the published tables
_BINARIZATION = 0x62696E  # separates the noise of the data from that of a model with the same seed


def _files(dataset: type[datasets.MNIST], *sha256: str) -> tuple[Published, ...]:
    """Images and labels for training, then images and labels for testing."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    mirror = max(dataset.mirrors, key=lambda address: address.startswith("https:"))  # the other of MNIST may refuse
    return tuple(
        Published(f"{dataset.__name__}/raw/{name}", digest, f"{mirror}{name}.gz")
        for name, digest in zip(names, sha256, strict=True)
    )


class _IDX(DataModule):
    """Four files in the format of MNIST: a header of 4 bytes and 4 more per dimension, then the values as uint8.

    The images are 8-bit, or binary with `binarize="dynamic"`: a pixel is then 1 with the probability that its grey
    value gives. The draw depends on the seed, the epoch and the image in training, and on the seed, the split and the
    image in evaluation, but not on the batch. Such data are another benchmark and have another name.
    """

    event_shape = (1, 28, 28)
    num_classes = 10
    classes = tuple("0123456789")
    levels = 256

    def __init__(
        self,
        *,
        root: str | None = None,
        batch_size: int = 128,
        seed: int = 0,
        binarize: Literal["dynamic"] | None = None,
        labelled: int | None = None,
    ) -> None:
        """
        Args:
            root: See `DataModule`.
            batch_size: See `DataModule`.
            seed: Seed for the order of training, for the binarisation and for the choice of labelled images.
            binarize: "dynamic" for binary images that are drawn anew in every epoch, or None for 8-bit images.
            labelled: Number of training images, as many of each class, whose labels are known; by default, all. The
                labels of the whole training set are then -1, and the labelled images follow again and again, as a fifth
                of the examples. Validation and test images keep their labels.

        Raises:
            ConfigError: `binarize` or `labelled` has another value.
        """
        super().__init__(root=root, batch_size=batch_size, seed=seed)
        if binarize not in (None, "dynamic"):
            raise ConfigError(
                f'{self.name}: binarize: expected None or "dynamic", found {binarize!r}; use BinarizedMNIST for the '
                "static binarisation"
            )
        if labelled is not None and (labelled < 10 or labelled > 10_000 or labelled % 10):
            raise ConfigError(
                f"{self.name}: labelled: expected a multiple of 10 from 10 to 10000, as many images of each class, "
                f"found {labelled!r}"
            )
        self.binarize = binarize
        self.labelled = labelled
        if binarize:
            self.draws = True
            self.name, self.levels = f"dynamic-{self.name}", 2

    def convert(self, x: Tensor, index: Tensor, step: int) -> Tensor:
        if self.binarize is None:
            return super().convert(x, index, step)
        noise = rand(tuple(x.shape), Streams(self.seed ^ _BINARIZATION, index, step), x.device)
        return (x / 255 > noise).to(torch.float32)

    def _read(self, images: Published, labels: Published) -> tuple[Tensor, Tensor]:
        self.prepare_data()
        x = np.frombuffer(bytearray(read(self.root, images)), np.uint8, offset=16).reshape(-1, 1, 28, 28)
        y = np.frombuffer(read(self.root, labels), np.uint8, offset=8)
        return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))

    @cached_property
    def _train_file(self) -> tuple[Tensor, Tensor]:
        return self._read(*self.files[:2])

    def load(self, which: Which) -> Split:
        if which == "test":
            return Split(*self._read(*self.files[2:]))
        x, labels = self._train_file
        part = slice(-_NUM_VALID) if which == "train" else slice(-_NUM_VALID, None)
        split = Split(x[part], labels[part])
        return split if which == "valid" or self.labelled is None else self._hiding_labels(split, self.labelled)

    def _hiding_labels(self, split: Split, num: int) -> Split:
        """The images without labels, and then `num` of them with labels, repeated to a fifth of all."""
        assert split.labels is not None
        order = permutation(len(split), self.seed)
        chosen = torch.cat([order[split.labels[order] == label][: num // 10] for label in range(10)])
        again = chosen.repeat(len(split) // 4 // num)
        labels = torch.cat([torch.full_like(split.labels, -1), split.labels[again]])
        return Split(torch.cat([split.x, split.x[again]]), labels)


class MNIST(_IDX):
    """Handwritten digits (LeCun et al. 1998), 8-bit or dynamically binarised.

    Dynamically binarised MNIST is another benchmark than `BinarizedMNIST`, which is binarised once.
    """

    name = "mnist"
    dataset = datasets.MNIST
    files = _files(
        datasets.MNIST,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    )


class FashionMNIST(_IDX):
    """Photographs of clothes (Xiao et al. 2017, https://arxiv.org/abs/1708.07747), 8-bit or dynamically binarised."""

    name = "fashion-mnist"
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    dataset = datasets.FashionMNIST
    files = _files(
        datasets.FashionMNIST,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    )


class BinarizedMNIST(DataModule):
    """MNIST with pixels that were binarised once (Salakhutdinov & Murray 2008; files of Larochelle & Murray 2011).

    This is the static benchmark of the published tables, in nats. The published files have no labels. With `labels`,
    they are derived from MNIST: the test file holds the test images sorted by class, and every other image takes the
    label of the training image of MNIST from which it was most likely drawn. That takes a minute, once; the result is
    kept in the user's cache.
    """

    name = "binarized-mnist"
    event_shape = (1, 28, 28)
    levels = 2
    files = tuple(
        Published(
            f"binarized_mnist/binarized_mnist_{which}.amat",
            sha256,
            f"http://www.cs.toronto.edu/~larochelle/public/datasets/binarized_mnist/binarized_mnist_{which}.amat",
        )
        for which, sha256 in (
            ("train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
            ("valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
            ("test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
        )
    )

    def __init__(self, *, root: str | None = None, batch_size: int = 128, seed: int = 0, labels: bool = False) -> None:
        """
        Args:
            root, batch_size, seed: See `DataModule`.
            labels: Whether to derive labels, which needs the files of MNIST too.
        """
        super().__init__(root=root, batch_size=batch_size, seed=seed)
        self.grey = MNIST(root=root) if labels else None
        if self.grey:
            self.num_classes, self.classes = self.grey.num_classes, self.grey.classes

    def prepare_data(self) -> None:
        super().prepare_data()
        if self.grey:
            self.grey.prepare_data()

    def load(self, which: Which) -> Split:
        file = self.files[("train", "valid", "test").index(which)]
        text = read(self.root, file)
        # each pixel is one digit and one separator; the last bit of "0" and "1" is their value
        pixels = np.frombuffer(text, np.uint8)[::2] & 1
        x = torch.from_numpy(pixels).view(-1, *self.event_shape)
        if self.grey is None:
            return Split(x, None)
        if which == "test":
            labels = self.grey.split("test").labels
            assert labels is not None
            return Split(x, labels.sort().values)
        grey, labels = self.grey._train_file
        key = {"kind": "labels", "files": [file.sha256, *(each.sha256 for each in self.grey.files[:2])]}
        found = remembered(f"{self.name}-{which}-labels", key, lambda: {"source": most_likely_sources(x, grey)})
        return Split(x, labels[found["source"]])


def most_likely_sources(x: Tensor, grey: Tensor) -> Tensor:
    """Finds the grey image from which each binary one was most likely drawn, each pixel by itself.

    Args:
        x: Binary images, [N, C, H, W], uint8.
        grey: Grey images, [M, C, H, W], uint8. A pixel of value g gives 1 with probability g/255, kept within
            [1/512, 511/512].

    Returns:
        Positions of the grey images, [N], int64.
    """
    p = (grey.flatten(1) / 255).clamp(1 / 512, 511 / 512)
    weights, biases = p.logit().T, (1 - p).log().sum(1)  # log p(x | grey) = sum_d x_d logit(p_d) + log(1 - p_d)
    with bar("deriving labels"):
        parts = steps(x.flatten(1).split(500), "batch")
        return torch.cat([torch.addmm(biases, part.to(weights), weights).argmax(1) for part in parts])
