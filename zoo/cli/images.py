"""What the commands that draw pictures have in common: a model of images, and examples of its data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor

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


def prior_codes(model: GenerativeModel, num: int, generator: Generator) -> Tensor:
    """The codes of which `model.sample` makes its draws, given the same generator: [num, *latent_shape]."""
    from zoo import latents
    from zoo.random import Streams, seed_from

    return latents.draw_codes(model, Streams(seed_from(generator), range(num)))


def own_image(file: Path, model: GenerativeModel) -> Tensor:
    """An image of the user's, resized to the model's shape, and made black and white for a model of binary pixels."""
    from zoo.data.image_files import read_image

    x = read_image(file, model.event_shape)
    return (x >= 0.5).float() if model.levels == 2 else x
