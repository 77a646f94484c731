"""Published files: where they lie, what they must contain, and where they are downloaded from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from torch.hub import download_url_to_file

from zoo.errors import DataError, DownloadError
from zoo.files import expand
from zoo.progress import on_terminal

_verified: set[tuple[str, int, int]] = set()  # (path, size, time of change) of the files that were checked


@dataclass(frozen=True)
class Published:
    """A file as its authors published it.

    Attributes:
        path: Path below the root of all data.
        sha256: SHA-256 of the content.
        address: URL of the file, or of the archive that contains it.
    """

    path: str
    sha256: str
    address: str


def data_root(root: str | None = None) -> Path:
    """The folder of all data: the argument, else `$ZOO_DATA`, else a folder in the user's cache."""
    if chosen := root or os.environ.get("ZOO_DATA"):
        return expand(chosen)
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "zoo" / "data"


def read(root: Path, file: Published) -> bytes:
    """Reads a file, downloads it first if it is absent, and checks its content once per process.

    Args:
        root: Folder of all data.
        file: File to read.

    Raises:
        DataError: The content is not the published one, or the file cannot be read.
        DownloadError: The file is absent and cannot be downloaded.
    """
    fetch(root, [file])
    path = root / file.path
    try:
        content = path.read_bytes()
        key = (str(path), len(content), path.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if key not in _verified:
        if (found := hashlib.sha256(content).hexdigest()) != file.sha256:
            raise DataError(
                f"{path}: damaged: expected sha256 {file.sha256[:16]}..., found {len(content)} bytes with sha256 "
                f"{found[:16]}...; remove the file, and it will be downloaded again"
            )
        _verified.add(key)
    return content


def fetch(root: Path, files: Iterable[Published], dataset: Callable[..., object] | None = None) -> None:
    """Downloads the absent ones of some files. A file appears under its name only when it is complete and checked.

    Args:
        root: Folder of all data.
        files: Files to look for.
        dataset: Data set of torchvision that downloads and unpacks the files; by default, each file is downloaded from
            its own address.

    Raises:
        DownloadError: A file cannot be downloaded, or has another content than the published one.
    """
    absent = [file for file in files if not (root / file.path).exists()]
    if not absent:
        return
    first = root / absent[0].path
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=first.parent, prefix=".download-") as folder:
            if dataset is not None:
                with nullcontext() if on_terminal() else redirect_stderr(StringIO()):  # it draws bars into any file
                    dataset(folder, download=True)  # it checks the archives
            for file in absent:
                new = Path(folder, file.path)
                if dataset is None:
                    new.parent.mkdir(parents=True, exist_ok=True)
                    download_url_to_file(file.address, str(new), hash_prefix=file.sha256, progress=on_terminal())
                (root / file.path).parent.mkdir(parents=True, exist_ok=True)
                new.replace(root / file.path)
    except Exception as error:  # networks, archives and checksums all fail with errors of their own
        lines = str(getattr(error, "reason", None) or error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__  # torchvision's messages list the mirrors first
        raise DownloadError(
            f"{absent[0].path}: cannot be downloaded from {absent[0].address} ({reason}); put the file at {first}, or "
            "set ZOO_DATA to a folder that has it"
        ) from error
