"""A small data set, and what the tests of data sets share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from zoo.data import MNIST, DataModule, Split

SPLITS = ("train", "valid", "test")


def complaint(error: pytest.ExceptionInfo[BaseException], *parts: object) -> None:
    """Checks that an error is one line that contains the parts."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


class Grey(MNIST):
    """An MNIST of 23 random images of 2x2 pixels, without files."""

    event_shape = (1, 2, 2)
    files = ()

    def load(self, which: str) -> Split:
        x = torch.randint(256, (23, 1, 2, 2), generator=torch.Generator().manual_seed(SPLITS.index(which)))
        return Split(x.to(torch.uint8), torch.arange(23) % 10)


def attached(data: DataModule, rank: int = 0, world: int = 1, **more: object) -> DataModule:
    """The data set as it is while a Trainer runs."""
    settings = {"num_training_batches": float("inf"), "training": False, "validating": False, "sanity_checking": False}
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, **{**settings, **more})
    return data
