"""Files that commands write: nothing is replaced unasked, and no file is left half-written."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.command import Part, default, option
from zoo.errors import ConfigError
from zoo.files import encoded, expand, picture_format, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

OVERWRITE = option("--overwrite", action="store_true", help="Replace files that exist")


def out(name: str, what: str = "picture") -> Part:
    """`--out` and `--overwrite`. The place is checked before the command runs and before it imports torch."""

    def add(parser: argparse.ArgumentParser) -> None:
        help = f"File to write the {what} to (default %(default)s)"
        parser.add_argument("--out", metavar="FILE", type=expand, default=Path(name), help=help)
        OVERWRITE(parser)
        default(check=lambda options: check_place(options.out, options.overwrite, what))(parser)

    return add


def check_place(path: Path, overwrite: bool, what: str = "picture") -> None:
    """Checks that a file can be written to `path`.

    Raises:
        ConfigError: Something is in the way, the folder is not writable, or no format of pictures has this suffix.
    """
    folder = next((parent for parent in path.absolute().parents if parent.exists()), path)
    reason, advice = "", "choose another --out"
    if path.is_dir():
        reason = "a folder is there"
    elif path.exists() and not overwrite:
        reason, advice = "a file is there", "choose another --out, or replace it with --overwrite"
    elif path.exists() and not path.is_file():
        reason = "it is not a regular file"
    elif not folder.is_dir():
        reason = f"{folder} is no folder"
    elif locked := next((place for place in (path, folder) if place.exists() and not os.access(place, os.W_OK)), None):
        reason = f"{locked} is not yours to write"
    elif what in ("picture", "sheet") and not picture_format(path):
        reason = f"unknown file extension: {path.suffix}"
    if reason:
        raise ConfigError(f"{path}: cannot write a {what} there: {reason}; {advice}")


def write(path: Path, content: bytes, overwrite: bool, what: str = "picture") -> None:
    """Writes a file, whole or not at all, and prints its path.

    Raises:
        ConfigError: A file has come into the way, or the disk is full.
    """
    check_place(path, overwrite, what)
    try:
        write_atomically(path.resolve(), content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write a {what} there: {error}; choose another --out") from error
    print(path)


def show(images: Tensor, options: argparse.Namespace, columns: int | None = None, scale: int = 2) -> None:
    """Writes images [N, C, H, W] in [0, 1] as one picture to `--out`, enlarged `scale` times.

    Raises:
        ConfigError: A pixel is NaN, or the picture cannot be written.
    """
    from zoo.pictures import grid

    if images.isnan().any():
        raise ConfigError(f"{options.name}: expected images, found NaN in some pixels; choose smaller values")
    picture = grid(images, columns=columns, scale=scale)
    write(options.out, encoded(picture, options.out), options.overwrite)


def write_each(images: Tensor, names: Sequence[str], folder: Path) -> None:
    """Writes images [N, C, H, W] in [0, 1] as PNG files into a new folder, and prints its path.

    Each goes into the subfolder that is named for it, "" for the folder itself.

    Raises:
        ConfigError: The folder cannot be written. Nothing is left there.
    """
    import shutil

    from torchvision.transforms.functional import to_pil_image

    from zoo.pictures import pixels

    partial, width = folder.with_name(f"{folder.name}.partial"), len(str(len(images) - 1))
    try:
        partial.mkdir(parents=True)
        for i, (image, name) in enumerate(zip(pixels(images), names, strict=True)):
            (partial / name).mkdir(exist_ok=True)
            to_pil_image(image).save(partial / name / f"{i:0{width}}.png")
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ConfigError(f"{folder}: cannot write images there: {error}; choose another --out") from error
    print(folder)
