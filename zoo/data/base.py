"""What data sets share: splits in memory, loaders that resume and divide among processes, conversion on the device.

A data set that fits in memory is one tensor; a batch is one gather of its rows. Decoding per image and worker processes
would only cost time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from lightning import LightningDataModule
from torch import Tensor

from zoo.batch import Batch
from zoo.data.files import Published, data_root, fetch
from zoo.errors import ConfigError

Which = Literal["train", "valid", "test"]
_PASS = {"train": -3, "valid": -1, "test": -2}  # keys of noise outside training, where epochs 0, 1, ... are the keys


@dataclass(frozen=True)
class Split:
    """The examples of one split, in the order of the published files; len() counts them."""

    x: Tensor  # [N, *event_shape], uint8 (images) or float32
    labels: Tensor | None  # [N], int64

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> Split:
        """Those at the positions `index`."""
        return Split(self.x[index], None if self.labels is None else self.labels[index])


def levels_title(levels: int | None) -> str:
    """As people say it: how many grey levels there are, see `DataModule`."""
    return {2: "binary pixels", 256: "8-bit pixels", None: "real numbers"}.get(levels, f"{levels} grey levels")


class DataModule(LightningDataModule, ABC):
    """One data set with its three splits.

    Attributes:
        name: what stands in metrics and tables.
        event_shape: shape of one example, (C, H, W) for images.
        num_classes: number of labels, or None where there are none.
        levels: 2 for binary pixels, 256 for 8-bit ones, None for continuous data.
        files: the published files that it reads, below `root`.
        draws: whether `convert` draws noise in training.
    """

    name: str
    event_shape: tuple[int, ...]
    num_classes: int | None = None
    levels: int | None = None
    files: tuple[Published, ...] = ()
    draws = False

    def __init__(self, *, root: str | None = None, batch_size: int = 128, seed: int = 0) -> None:
        """
        Args:
            root: folder of the files; by default $ZOO_DATA, else a cache folder of the user's.
            batch_size: examples a step of training, over all processes together.
            seed: of the order of training, and of whatever else the data set draws.

        Raises:
            ConfigError: the batch size is not positive.
        """
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}")
        self.root = data_root(root)
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0  # of the batch of training that came last
        self._splits: dict[str, Split] = {}

    @abstractmethod
    def load(self, which: Which) -> Split:
        """Reads a split from its files; `split` keeps the result."""

    def split(self, which: Which) -> Split:
        """The examples of "train", "valid" or "test", read once; treat them as read-only.

        Raises:
            ConfigError: there is no such split.
            DataError: a file is damaged.
            DownloadError: a file is absent and cannot be fetched.
        """
        if which not in get_args(Which):
            raise ConfigError(f"{self.name}: expected one of the splits train, valid, test, found {which!r}")
        if which not in self._splits:
            self._splits[which] = self.load(which)
        return self._splits[which]

    def prepare_data(self) -> None:
        """Fetches the absent files. Lightning calls it in one process per machine, before any other opens them."""
        fetch(self.root, self.files)

    def train_dataloader(self) -> Loader:
        return Loader(self, "train")

    def val_dataloader(self) -> Loader:
        return Loader(self, "valid")

    def test_dataloader(self) -> Loader:
        return Loader(self, "test")

    def rows(self, which: Which, index: Tensor) -> Batch:
        """The examples at the positions `index` ([B], int64) as they lie in memory: uint8 for images."""
        split = self.split(which)
        labels = None if split.labels is None else split.labels.index_select(0, index)
        return Batch(split.x.index_select(0, index), labels, index)

    def convert(self, x: Tensor, index: Tensor, step: int) -> Tensor:
        """What `rows` gives -> what models take: float32, 8-bit values divided by 255. On the device of x.

        `index` and `step` key the noise of data sets that draw (see `MNIST`): step is the epoch in training.
        """
        return x.to(torch.float32).div_(255) if self.levels == 256 else x.to(torch.float32)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        trainer = self.trainer
        step = _PASS["test"]
        if trainer is not None and trainer.training:
            step = self._epoch  # not the Trainer's, which moves on where max_steps ends an epoch early
        elif trainer is not None and (trainer.validating or trainer.sanity_checking):
            step = _PASS["valid"]
        return batch._replace(x=self.convert(batch.x, batch.index, step))

    def batches(self, which: Which, *, index: Tensor | None = None, batch_size: int = 500) -> Iterator[Batch]:
        """Batches as models take them, on the CPU, without a Trainer.

        Args:
            which: "train", "valid" or "test".
            index: positions to visit, in this order; by default all, in the order of the files.
            batch_size: bounds the memory, changes no number.
        """
        for rows in (torch.arange(len(self.split(which))) if index is None else index).split(batch_size):
            batch = self.rows(which, rows)
            yield batch._replace(x=self.convert(batch.x, rows, _PASS[which]))

    def subset(self, which: Which, num: int, seed: int) -> Tensor:
        """`num` positions drawn without replacement: [num], int64; with one seed, the first of those of a larger `num`.

        Files are often sorted by class, so that their first examples are no sample of them.

        Raises:
            ConfigError: the split holds fewer than `num` examples.
        """
        total = len(self.split(which))
        if not 0 <= num <= total:
            raise ConfigError(f"{self.name}: expected a subset of 0 to {total} examples of {which}, found {num}")
        return permutation(total, seed)[:num]


def permutation(num: int, seed: int, epoch: int = 0) -> Tensor:
    """An order of `num` things, a function of (seed, epoch) alone: [num], int64."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)  # its engine reads 32 bits
    return torch.randperm(num, generator=generator)


def division(order: Tensor, num_valid: int, num_test: int) -> dict[Which, Tensor]:
    """Positions of three disjoint splits, rising: of `order` [N], first validation, then the test, then training."""
    valid, test, train = order.split([num_valid, num_test, len(order) - num_valid - num_test])
    return {"train": train.sort().values, "valid": valid.sort().values, "test": test.sort().values}


class Loader:
    """Batches of one split for Lightning: `Batch` with x as in memory (the `DataModule` converts it on the device).

    Training is shuffled and drops what does not fill a batch; the other splits come whole, in order. The order of an
    epoch is a function of (seed, epoch), and `state_dict` says where in it the loader stands, so that a resumed run
    sees the batches it would have seen. The state moves before a batch is yielded, and to the next epoch before the
    last one: a checkpoint written while a batch is in use counts it as seen.

    Of W processes, the r-th takes every W-th row of each batch from row r on: together, the rows that one would take.
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
            raise ConfigError(f"batch_size: expected a multiple of the {world} processes that divide it, found {size}")
        if self.which == "train":
            yield from self._train(rank, world)
            return
        for rows in torch.arange(len(self.data.split(self.which))).split(size):
            if len(rows := rows[rank::world]):
                yield self.data.rows(self.which, rows)

    def _train(self, rank: int, world: int) -> Iterator[Batch]:
        trainer, size = self.data.trainer, self.data.batch_size
        # an epoch that the Trainer cuts short (limit_train_batches) is over where it cuts
        length = len(self) if trainer is None else min(len(self), trainer.num_training_batches)
        shown = 0 if getattr(trainer, "overfit_batches", 0) else self.epoch  # to overfit, see the same ones again
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
        """Raises ConfigError where the position cannot be one of this loader's, or the split has changed."""
        if (num := len(self.data.split(self.which))) != state.get("num", num):
            raise ConfigError(
                f"{self.data.name}: the run to resume began with {state['num']} examples for training, found {num}; "
                "resume with the data that it began with"
            )
        if not 0 <= state["position"] < len(self):
            raise ConfigError(
                f"{self.data.name}: the run to resume stands at batch {state['position']}, expected fewer than the "
                f"{len(self)} of an epoch; resume with the data and batch size that it began with"
            )
        self.epoch, self.position = state["epoch"], state["position"]
