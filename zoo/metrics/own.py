"""Own examples for a checkpoint: an image, a folder of images or an array, as its model takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.capabilities import GenerativeModel, ZooModule
from zoo.data import build
from zoo.data.base import DataModule, Split, Which
from zoo.data.image_files import convert_image, read_image
from zoo.data.own import Arrays, ImageFolder, own_section
from zoo.files import expand
from zoo.metrics.examples import check_like, shape_of
from zoo.store.checkpoint import Checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Own:
    """All examples of own data, as one split.

    Attributes:
        data: The examples; every split of it has all of them.
        files: Path of each below the folder, or its position in the array.
        labels: Names of their folders, or numbers; None if there are no labels.
    """

    data: DataModule
    files: list[str]
    labels: list[str] | None

    def images(self, index: Tensor | None = None) -> Tensor:
        """The examples as the model sees them, in the order of `index`: [N, *event_shape]."""
        x = self.data.split("test").x
        index = torch.arange(len(x)) if index is None else index
        return self.data.convert(x[index], index, 0)


class _Everything(DataModule):
    def __init__(self, data: ImageFolder | Arrays) -> None:
        super().__init__()
        self.name, self.levels, self.num_classes = data.name, data.levels, data.num_classes
        self.event_shape, self.data = data.shape, data

    def load(self, which: Which) -> Split:
        return self.data.everything()


def own_examples(
    checkpoint: Checkpoint,
    model: ZooModule,
    path: str | Path,
    *,
    resize: bool = False,
    binarize: bool = False,
    skip_corrupt: bool = False,
) -> Own:
    """Reads own data for the model of a checkpoint.

    Args:
        checkpoint, model: The checkpoint and its model.
        path: A folder of images, whose subfolders are labels, or a .npz or .npy file.
        resize: Whether to convert images to the size and channels of the model.
        binarize: Whether to make pixels black or white, for models of binary data.
        skip_corrupt: Whether to leave out files that cannot be decoded.

    Raises:
        DataError: The data are missing or damaged, or have another shape or other grey levels than the model.
    """
    own = build(own_section(expand(path).resolve(), shape_of(model), resize, binarize, skip_corrupt))
    assert isinstance(own, ImageFolder | Arrays)
    data = _Everything(own)
    check_like(checkpoint, model, data)  # looks at one image only
    return Own(data, *titles(own, data.split("test")))


def own_image(image: Path | Image, model: GenerativeModel) -> Tensor:
    """An image file or a picture, resized to the model's images, and made black and white for binary pixels.

    Returns:
        [*event_shape], values in [0, 1].

    Raises:
        DataError: There is no such file, or it cannot be decoded.
    """
    shape = model.event_shape
    x = read_image(image, shape) if isinstance(image, Path) else convert_image(image, shape)
    return (x >= 0.5).float() if model.levels == 2 else x


def titles(own: ImageFolder | Arrays, whole: Split) -> tuple[list[str], list[str] | None]:
    """Names and labels of all examples of own data."""
    files, names, labels = [str(i) for i in range(len(whole))], own.classes, None
    if isinstance(own, ImageFolder):
        files = [str(path) for path in own.used]
    if whole.labels is not None:
        labels = [names[label] if names else str(label) for label in whole.labels.tolist()]
    return files, labels
