"""CIFAR-10: 32x32 colour photographs of ten classes."""

from __future__ import annotations

import io
import pickle
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.base import DataModule, Split, Which
from zoo.data.files import Published, fetch, read
from zoo.random import Streams, rand

_VALID = 5_000  # the last of the training files
_MIRROR = 0x6D6972  # a key of its own, or the data would share a model's noise wherever both have one seed


class CIFAR10(DataModule):
    """Photographs of ten classes (Krizhevsky 2009), 8-bit: 45,000 / 5,000 / 10,000."""

    name = "cifar10"
    event_shape = (3, 32, 32)
    num_classes = 10
    levels = 256
    files = tuple(
        Published(
            f"cifar-10-batches-py/{part}", size, sha256, "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
        )
        for part, size, sha256 in (
            ("data_batch_1", 31035704, "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
            ("data_batch_2", 31035320, "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8"),
            ("data_batch_3", 31035999, "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9"),
            ("data_batch_4", 31035696, "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b"),
            ("data_batch_5", 31035623, "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154"),
            ("test_batch", 31035526, "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
        )
    )

    def __init__(self, *, root: str | None = None, batch_size: int = 128, seed: int = 0, mirror: bool = False) -> None:
        """See `DataModule`; `mirror`: whether each training image is mirrored, left and right, every second time.

        The draw is keyed by (seed, epoch, image). Validation and test images stay as they are.
        """
        super().__init__(root=root, batch_size=batch_size, seed=seed)
        self.mirror = self.draws = mirror

    def convert(self, x: Tensor, index: Tensor, step: int) -> Tensor:
        x = super().convert(x, index, step)
        if not self.mirror or step < 0:  # epochs of training alone are not negative
            return x
        chance = rand((len(x), 1, 1, 1), Streams(self.seed ^ _MIRROR, index, step), x.device)
        return torch.where(chance < 0.5, x.flip(-1), x)

    def _read(self, *files: Published) -> tuple[Tensor, Tensor]:
        fetch(self.root, self.files)  # one archive holds them all: download it once
        x = torch.empty(10_000 * len(files), *self.event_shape, dtype=torch.uint8)
        labels: list[int] = []
        for part, file in zip(x.split(10_000), files, strict=True):
            content = unpickle(read(self.root, file))
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
        part = slice(-_VALID) if which == "train" else slice(-_VALID, None)
        return Split(x[part], labels[part])


def unpickle(content: bytes) -> Any:
    """Plain values and numpy arrays from a pickle of Python 2; anything else that it names is refused.

    Raises:
        pickle.UnpicklingError: the pickle names something else.
    """
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()


class _Unpickler(pickle.Unpickler):
    _allowed = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # wherever this numpy keeps it
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of data")
        return self._allowed[module, name]
