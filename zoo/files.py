"""Paths as people write them, and files that are written whole or not at all."""

from __future__ import annotations

import glob
import io
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.config import brief
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def expand(path: str | Path) -> Path:
    """The path, with the home folder in place of a leading `~` or `~user`.

    Raises:
        ConfigError: There is no such home folder, or the path is empty, or an address such as `s3://bucket`.
    """
    if not str(path):
        raise ConfigError("expected a path, found an empty word; is a variable of the shell unset?")
    if _SCHEME.match(str(path)):
        raise ConfigError(f"{brief(str(path))}: expected a path on this machine, found an address; copy the files here")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{brief(str(path))}: expected a path, found ~ without a home folder; write it out") from None


def check_exists(path: Path, expected: str) -> None:
    """Raises DataError if there is nothing at `path`, where `expected` should be."""
    if not path.exists():
        raise DataError(f"{path}: expected {expected}, found nothing; check the path")


def check_outside(output: Path, data: str | Path) -> None:
    """Checks that a file or folder to be written does not lie in a folder of images, where it would become one.

    Raises:
        ConfigError: It does.
    """
    if output.resolve().is_relative_to(folder := expand(data).resolve()) and folder.is_dir():
        raise ConfigError(f"{output}: lies in {folder}, and would become part of these data; choose a place outside")


def printable(text: str) -> str:
    r"""Text that can be written as UTF-8: what stands for bytes of file names that are no text becomes \udce9 etc."""
    return text.encode(errors="backslashreplace").decode()


def picture_format(path: Path) -> str:
    """The name that Pillow has for the format of a suffix; empty if it cannot write any."""
    from PIL import Image

    name = Image.registered_extensions().get(path.suffix.lower(), "")
    return name if name in Image.SAVE else ""


def encoded(picture: Image, path: Path, what: str = "picture") -> bytes:
    """A picture in the format of the suffix of `path`.

    Raises:
        ConfigError: There is no such format, or it cannot hold the picture.
    """
    file = io.BytesIO()
    try:
        if not (name := picture_format(path)):
            raise ValueError(f"unknown file extension: {path.suffix}")
        picture.save(file, name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot write a {what} there: {error}; choose another name") from error
    return file.getvalue()


def write_new(path: Path, content: bytes | memoryview) -> None:
    """Writes a file that must not exist yet, and waits until it is on the disk, so that a full disk shows here."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes | memoryview, *, is_only_writer: bool = False) -> None:
    """Writes a file as a whole: whatever happens, a reader finds the old content or the new, never a part.

    Missing folders are created. A process that is killed may leave `.NAME.new-TOKEN` beside the file.

    Args:
        path: The file, which may exist.
        content: The new content.
        is_only_writer: Whether no other process writes this file now. What killed processes have left is then removed.

    Raises:
        OSError: The file cannot be written. The old one is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_only_writer:
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.new-*"):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    try:
        write_new(temporary, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # the new file is in place
        sync(path.parent)


def sync(folder: Path) -> None:
    """Makes renames in a folder survive a power cut. Windows cannot do this, and is left alone."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
