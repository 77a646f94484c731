"""What all data sets share: splits in memory, loaders that resume and divide among processes, conversion on the device.

The data sets fit in memory: a split is one tensor, and a batch is one gather of its rows. Decoding single images in
worker processes would be slower.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from lightning import LightningDataModule
from torch import Tensor

from zoo.batch import Batch
from zoo.data.files import Published, data_root, fetch
from zoo.errors import ConfigError

Which = Literal["train", "valid", "test"]
_PASS = {"train": -3, "valid": -1, "test": -2}  # keys of the noise outside training; in training, the epoch is the key


@dataclass(frozen=True)
class Split:
    """The examples of one split in the order of the published files; `len()` is their number."""

    x: Tensor  # [N, *event_shape], uint8 (images) or float32
    labels: Tensor | None  # [N], int64

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> Split:
        """The examples at the positions `index` ([K], int64)."""
        return Split(self.x[index], None if self.labels is None else self.labels[index])


def levels_title(levels: int | None) -> str:
    """The number of grey levels in words, such as "8-bit pixels" for 256; see `DataModule.levels`."""
    return {2: "binary pixels", 256: "8-bit pixels", None: "real numbers"}.get(levels, f"{levels} grey levels")


class DataModule(LightningDataModule, ABC):
    """One data set with its three splits.

    Attributes:
        name: Name of the data set in metrics and tables.
        event_shape: Shape of one example, (C, H, W) for images.
        num_classes: Number of classes, or None if there are no labels.
        classes: Names of the classes in the order of their labels, or None if they have none.
        levels: Number of grey levels: 2 for binary pixels, 256 for 8-bit pixels, None for continuous data.
        files: Published files of the data set, below `root`.
        dataset: Data set of torchvision that downloads the files, or None if each comes from its own address.
        draws: Whether `convert` draws noise in training.
    """

    name: str
    event_shape: tuple[int, ...]
    num_classes: int | None = None
    classes: Sequence[str] | None = None
    levels: int | None = None
    files: tuple[Published, ...] = ()
    dataset: type | None = None
    draws = False

    def __init__(self, *, root: str | None = None, batch_size: int = 128, seed: int = 0) -> None:
        """
        Args:
            root: Folder of the files; by default `$ZOO_DATA`, or else a folder in the user's cache.
            batch_size: Number of examples per training step, over all processes.
            seed: Seed for the order of training and for all other random draws of the data set.

        Raises:
            ConfigError: The batch size is not positive.
        """
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}")
        self.root = data_root(root)
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0  # epoch of the last training batch
        self._splits: dict[str, Split] = {}

    @abstractmethod
    def load(self, which: Which) -> Split:
        """Reads a split from its files. Use `split`, which keeps the result."""

    def split(self, which: Which) -> Split:
        """The examples of "train", "valid" or "test". They are read once; do not modify them.

        Raises:
            ConfigError: There is no such split.
            DataError: A file is damaged.
            DownloadError: A file is absent and cannot be downloaded.
        """
        if which not in get_args(Which):
            raise ConfigError(f"{self.name}: expected one of the splits train, valid, test, found {which!r}")
        if which not in self._splits:
            self._splits[which] = self.load(which)
        return self._splits[which]

    def prepare_data(self) -> None:
        """Downloads the absent files. Lightning calls it in one process per machine, before the others open them."""
        fetch(self.root, self.files, self.dataset)

    def train_dataloader(self) -> Loader:
        return Loader(self, "train")

    def val_dataloader(self) -> Loader:
        return Loader(self, "valid")

    def test_dataloader(self) -> Loader:
        return Loader(self, "test")

    def rows(self, which: Which, index: Tensor) -> Batch:
        """The examples at the positions `index` ([B], int64) as they are in memory: images are uint8."""
        split = self.split(which)
        labels = None if split.labels is None else split.labels.index_select(0, index)
        return Batch(split.x.index_select(0, index), labels, index)

    def convert(self, x: Tensor, index: Tensor, step: int) -> Tensor:
        """Converts examples in memory to the input of models, on the device of `x`.

        Args:
            x: Examples from `rows`, [B, *event_shape].
            index: Positions of the examples in their split, [B], int64.
            step: The epoch in training, a negative number otherwise. Data sets that draw noise (see `MNIST`) use it as
                the key of the noise together with `index`.

        Returns:
            The examples as float32, [B, *event_shape]; 8-bit values are divided by 255.
        """
        return x.to(torch.float32).div_(255) if self.levels == 256 else x.to(torch.float32)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        trainer = self.trainer
        step = _PASS["test"]
        if trainer is not None and trainer.training:
            step = self._epoch  # the Trainer's own epoch moves on when max_steps ends an epoch early
        elif trainer is not None and (trainer.validating or trainer.sanity_checking):
            step = _PASS["valid"]
        return batch._replace(x=self.convert(batch.x, batch.index, step))

    def batches(self, which: Which, *, index: Tensor | None = None, batch_size: int = 500) -> Iterator[Batch]:
        """Converted batches on the CPU, without a Trainer.

        Args:
            which: "train", "valid" or "test".
            index: Positions to visit, in this order ([K], int64); by default all, in the order of the files.
            batch_size: Number of examples per batch. It bounds the memory and has no effect on the values.
        """
        for rows in (torch.arange(len(self.split(which))) if index is None else index).split(batch_size):
            batch = self.rows(which, rows)
            yield batch._replace(x=self.convert(batch.x, rows, _PASS[which]))

    def subset(self, which: Which, num: int, seed: int) -> Tensor:
        """Draws positions without replacement.

        Use it instead of the first examples of a file: files are often sorted by class.

        Args:
            which: "train", "valid" or "test".
            num: Number of positions.
            seed: Seed of the draw. With the same seed, a smaller subset is the beginning of a larger one.

        Returns:
            The positions, [num], int64.

        Raises:
            ConfigError: The split has fewer than `num` examples.
        """
        total = len(self.split(which))
        if not 0 <= num <= total:
            raise ConfigError(f"{self.name}: expected a subset of 0 to {total} examples of {which}, found {num}")
        return permutation(total, seed)[:num]


def permutation(num: int, seed: int, epoch: int = 0) -> Tensor:
    """A random order of `num` items that depends on the seed and the epoch alone: [num], int64."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)  # the engine takes 32 bits
    return torch.randperm(num, generator=generator)


def division(order: Tensor, num_valid: int, num_test: int) -> dict[Which, Tensor]:
    """Divides positions into three disjoint splits.

    Args:
        order: Positions, [N]. The first are for validation, the next for testing, and the others for training.
        num_valid: Number of positions for validation.
        num_test: Number of positions for testing.

    Returns:
        The positions of each split in rising order.
    """
    valid, test, train = order.split([num_valid, num_test, len(order) - num_valid - num_test])
    return {"train": train.sort().values, "valid": valid.sort().values, "test": test.sort().values}


class Loader:
    """Batches of one split for Lightning. The examples are as in memory; the `DataModule` converts them on the device.

    The training split is shuffled, and examples that do not fill a batch are dropped. The other splits come complete
    and in order. The order of an epoch depends on the seed and the epoch alone, and `state_dict` contains the position
    in it, so that a resumed run continues with the next batch. The state advances before a batch is yielded, and moves
    to the next epoch before the last batch: a checkpoint that is written while a batch is in use counts it as seen.

    With W processes, process r takes every W-th row of each batch, beginning with row r. Together, the processes take
    the same rows as a single one would.
    """

    def __init__(self, data: DataModule, which: Which) -> None:
        self.data = data
        self.which = which
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        num, size = len(self.data.split(self.which)), self.data.batch_size
        return max(1, num // size) if self.which == "train" else math.ceil(num / size)

    def __iter__(self) -> Iterator[Batch]:
        trainer = self.data.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        size = self.data.batch_size
        if size % world:
            raise ConfigError(f"batch_size: expected a multiple of {world}, the number of processes, found {size}")
        if self.which == "train":
            yield from self._train(rank, world)
            return
        for rows in torch.arange(len(self.data.split(self.which))).split(size):
            if len(rows := rows[rank::world]):
                yield self.data.rows(self.which, rows)

    def _train(self, rank: int, world: int) -> Iterator[Batch]:
        trainer, size = self.data.trainer, self.data.batch_size
        # limit_train_batches shortens the epochs
        length = len(self) if trainer is None else min(len(self), trainer.num_training_batches)
        shown = 0 if getattr(trainer, "overfit_batches", 0) else self.epoch  # overfitting repeats the first epoch
        order = permutation(len(self.data.split(self.which)), self.data.seed, shown)
        self.data._epoch = self.epoch
        for position in range(self.position, int(length)):
            last = position + 1 == length
            self.epoch, self.position = (self.epoch + 1, 0) if last else (self.epoch, position + 1)
            rows = order[position * size : (position + 1) * size]
            yield self.data.rows(self.which, rows[: len(rows) - len(rows) % world][rank::world])

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "num": len(self.data.split(self.which))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a saved state.

        Raises:
            ConfigError: The state belongs to another batch size or another training split.
        """
        if (num := len(self.data.split(self.which))) != state.get("num", num):
            raise ConfigError(
                f"{self.data.name}: the run to resume began with {state['num']} training examples, found {num}; resume "
                "it with the same data"
            )
        if not 0 <= state["position"] < len(self):
            raise ConfigError(
                f"{self.data.name}: the run to resume is at batch {state['position']}, but an epoch has only "
                f"{len(self)}; resume it with the same data and batch size"
            )
        self.epoch, self.position = state["epoch"], state["position"]
