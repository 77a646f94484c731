"""Paths as people write them, and files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from zoo.config import brief
from zoo.errors import ConfigError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def expand(path: str | Path) -> Path:
    """The path, with the home folder in place of a leading `~` or `~user`.

    Raises:
        ConfigError: There is no such home folder, or the path is an address such as `s3://bucket`.
    """
    if _SCHEME.match(str(path)):
        raise ConfigError(f"{brief(str(path))}: expected a path on this machine, found an address; copy the files here")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{brief(str(path))}: expected a path, found ~ without a home folder; write it out") from None


def write_new(path: Path, content: bytes) -> None:
    """Writes a file that must not exist yet, and waits until it is on the disk, so that a full disk shows here."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file such that a reader, a kill or a full disk finds the old content or the new, never a part.

    Folders on the way are made. A kill may leave `.NAME.new-TOKEN` beside the file.

    Raises:
        OSError: The file cannot be written; the old one is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    try:
        write_new(temporary, content)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Makes renames in a folder last through a power cut, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
