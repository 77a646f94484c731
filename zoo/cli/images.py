"""What the commands that draw pictures have in common: a model of images, and examples of its data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.batch import Batch
    from zoo.capabilities import GenerativeModel, ZooModule
    from zoo.store.checkpoint import Checkpoint


def image_model(checkpoint: Checkpoint, options: argparse.Namespace) -> GenerativeModel:
    """The model of a checkpoint, on `--device`.

    Raises:
        ConfigError: It is not a generative model of images.
        ZooError: The files are damaged or missing.
    """
    return check_images(checkpoint.load(device=options.device), options)


def check_images(model: ZooModule, options: argparse.Namespace) -> GenerativeModel:
    """The model, if it draws images; ConfigError otherwise."""
    from zoo.capabilities import GenerativeModel

    if not isinstance(model, GenerativeModel) or len(model.event_shape) != 3:
        raise ConfigError(f"{options.name}: expected a model that draws images, found {type(model).__name__}")
    return model


def some_test_images(checkpoint: Checkpoint, num: int, options: argparse.Namespace) -> Batch:
    """Test images of the checkpoint's data set, chosen with `--seed`."""
    data = checkpoint.data()
    index = data.subset("test", num, options.seed)
    return next(data.batches("test", index=index, batch_size=num))
