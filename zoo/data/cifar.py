"""CIFAR-10: 32x32 colour photographs of ten classes."""

from __future__ import annotations

import pickle
from functools import cached_property

import torch
from torch import Tensor
from torchvision import datasets

from zoo.data.base import DataModule, Split, Which
from zoo.data.files import Published, read
from zoo.random import Streams, rand

_NUM_VALID = 5_000  # the last images of the training files
_MIRROR = 0x6D6972  # separates the noise of the data from that of a model with the same seed


class CIFAR10(DataModule):
    """Photographs of ten classes (Krizhevsky 2009), 8-bit: 45,000 / 5,000 / 10,000 images."""

    name = "cifar10"
    event_shape = (3, 32, 32)
    num_classes = 10
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    levels = 256
    dataset = datasets.CIFAR10
    files = tuple(
        Published(f"{datasets.CIFAR10.base_folder}/{part}", sha256, datasets.CIFAR10.url)
        for part, sha256 in (
            ("data_batch_1", "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
            ("data_batch_2", "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8"),
            ("data_batch_3", "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9"),
            ("data_batch_4", "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b"),
            ("data_batch_5", "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154"),
            ("test_batch", "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
        )
    )

    def __init__(self, *, root: str | None = None, batch_size: int = 128, seed: int = 0, mirror: bool = False) -> None:
        """
        Args:
            root: See `DataModule`.
            batch_size: See `DataModule`.
            seed: Seed for the order of training and for the mirroring.
            mirror: Whether training images are mirrored left to right with probability 1/2. The draw depends on the
                seed, the epoch and the image. Validation and test images are never mirrored.
        """
        super().__init__(root=root, batch_size=batch_size, seed=seed)
        self.mirror = self.draws = mirror

    def convert(self, x: Tensor, index: Tensor, step: int) -> Tensor:
        x = super().convert(x, index, step)
        if not self.mirror or step < 0:  # only the steps of training are not negative
            return x
        chance = rand((len(x), 1, 1, 1), Streams(self.seed ^ _MIRROR, index, step), x.device)
        return torch.where(chance < 0.5, x.flip(-1), x)

    def _read(self, *files: Published) -> tuple[Tensor, Tensor]:
        self.prepare_data()
        x = torch.empty(10_000 * len(files), *self.event_shape, dtype=torch.uint8)
        labels: list[int] = []
        for part, file in zip(x.split(10_000), files, strict=True):
            content = pickle.loads(read(self.root, file), encoding="bytes")  # safe: `read` has checked every byte
            part.copy_(torch.from_numpy(content[b"data"]).view_as(part))
            labels += content[b"labels"]
        return x, torch.tensor(labels)

    @cached_property
    def _train_files(self) -> tuple[Tensor, Tensor]:
        return self._read(*self.files[:5])

    def load(self, which: Which) -> Split:
        if which == "test":
            return Split(*self._read(self.files[5]))
        x, labels = self._train_files
        part = slice(-_NUM_VALID) if which == "train" else slice(-_NUM_VALID, None)
        return Split(x[part], labels[part])
