"""Image files: finding all of them below a folder, and decoding one."""

from __future__ import annotations

import os
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zoo.config import listed, reason
from zoo.errors import DataError
from zoo.files import expand

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
}


def find_images(root: Path) -> tuple[list[Path], str]:
    """Finds the images below a folder. Symbolic links are followed; each folder is read once.

    Names that begin with a dot are passed over.

    Args:
        root: The folder.

    Returns:
        The paths of the images relative to `root`, sorted, and what else was found, in words, such as
        "3 files (.txt)"; "" if there was nothing else.

    Raises:
        DataError: A folder cannot be read.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    tops: set[str] = set()  # names of the folders in `root`
    links: list[str] = []  # to folders that are read under another name
    seen: set[tuple[int, int]] = set()
    pending = deque([Path()])
    while pending:
        folder = pending.popleft()
        files, folders, identity = _entries(root / folder)
        if identity in seen:
            links.append(folder.as_posix())
            continue
        seen.add(identity)
        tops |= set() if folder.parts else {name for name, _ in folders}
        for name, is_link in folders:  # links last, so that folders are found under their own names
            (pending.append if is_link else pending.appendleft)(folder / name)
        for name in files:
            suffix = os.path.splitext(name)[1]
            if suffix.lower() in SUFFIXES:
                images.append(folder / name)
            else:
                others[suffix or "without a suffix"] += 1
    empty = sorted(tops - {path.parts[0] for path in images} - set(links))
    return sorted(images), "; ".join(filter(None, (_files(others), _folders(empty), _links(links))))


def _entries(folder: Path) -> tuple[list[str], list[tuple[str, bool]], tuple[int, int]]:
    """Names of the files in a folder; those of its folders, and whether each is a link; and what identifies it."""
    files, folders = [], []
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append((entry.name, entry.is_symlink()))
                else:
                    files.append(entry.name)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); check its permissions, or move it away"
        ) from error
    return files, sorted(folders), (status.st_dev, status.st_ino)


def _files(others: Counter[str]) -> str:
    return f"{_count(others.total(), 'file')} ({listed(sorted(others), 40)})" if others else ""


def _folders(names: list[str]) -> str:
    return f"{_count(len(names), 'folder')} without images ({listed(names, 60)})" if names else ""


def _links(names: list[str]) -> str:
    return f"{_count(len(names), 'link')} to folders that are read already ({listed(names, 60)})" if names else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def decode(path: Path, channels: int | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """Reads one image. Transparent pixels become white; the image is rotated as its EXIF orientation says.

    Args:
        path: Path of a regular file, so that a pipe does not block.
        channels: 1 (grey), 3 (RGB) or None (grey stays grey, everything else becomes RGB).
        size: (H, W) to which the centre of the image is scaled (bicubic), or None to keep its size.

    Returns:
        The pixels, uint8 [C, H, W].

    Raises:
        DataError: There is no such file, or it cannot be decoded.
    """
    from PIL import Image

    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        with Image.open(path) as image:
            return _pixels(image, channels, size)
    except Exception as error:  # decoders raise all kinds of errors on damaged files
        why = getattr(error, "strerror", None) or reason(error)
        raise DataError(f"{path}: expected an image, but it cannot be decoded ({why})") from error


def read_image(path: str | Path, event_shape: tuple[int, ...]) -> Tensor:
    """Reads one image and converts it to the given shape, as `ImageFolder` does.

    Args:
        path: Path of the image.
        event_shape: (C, H, W) with C = 1 (grey) or C = 3 (RGB).

    Returns:
        The pixels in [0, 1], float32 [C, H, W].

    Raises:
        DataError: There is no such file, or it cannot be decoded.
    """
    channels, height, width = event_shape
    return torch.from_numpy(decode(expand(path), channels, (height, width)).copy()).float() / 255


def convert_image(image: Image, event_shape: tuple[int, ...]) -> Tensor:
    """Converts a picture in memory to the given shape, as `read_image` converts a file.

    Args:
        image: The picture, with at most 8 bits per channel.
        event_shape: (C, H, W) with C = 1 (grey) or C = 3 (RGB).

    Returns:
        The pixels in [0, 1], float32 [C, H, W].
    """
    channels, height, width = event_shape
    return torch.from_numpy(_pixels(image, channels, (height, width)).copy()).float() / 255


def _pixels(image: Image, channels: int | None, size: tuple[int, int] | None) -> np.ndarray:
    """Converts an image to an array; see `decode`."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"expected 8 bits per channel, found mode {image.mode}")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        colour = image.mode not in ("LA", "La")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB" if colour else "L")
    grey = image.mode in ("1", "L") if channels is None else channels == 1
    image = image.convert("L" if grey else "RGB")
    if size is not None:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)
