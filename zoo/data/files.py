"""Published files: where they lie, what they must hold, where they come from."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from zoo.config import expand
from zoo.errors import DataError, DownloadError

_TIMEOUT = 30.0  # seconds without an answer
_verified: set[tuple[str, int, int]] = set()  # (path, size, time of change) of the files that were checked


@dataclass(frozen=True)
class Published:
    """A file as its authors published it.

    Attributes:
        path: place below the root of all data.
        size: in bytes.
        sha256: of the content.
        address: URL of the file, of the file compressed (.gz) or of an archive that holds it (.tar.gz).
    """

    path: str
    size: int
    sha256: str
    address: str


def data_root(root: str | None = None) -> Path:
    """The folder of all data: the argument, else $ZOO_DATA, else a cache folder of the user's."""
    if chosen := root or os.environ.get("ZOO_DATA"):
        return expand(chosen)
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "zoo" / "data"


def read(root: Path, file: Published) -> bytes:
    """The content of a file, fetched where absent and checked once per process.

    Raises:
        DataError: the content is not the published one, or cannot be read.
        DownloadError: it is absent and cannot be fetched.
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
                f"{path}: damaged: expected {file.size} bytes with sha256 {file.sha256[:16]}..., found {len(content)} "
                f"with {found[:16]}...; remove it, so that it is downloaded again"
            )
        _verified.add(key)
    return content


def fetch(root: Path, files: Iterable[Published]) -> None:
    """Downloads those of `files` that are absent below `root`; each appears only whole and checked.

    Raises:
        DownloadError: an address does not answer, or answers with something else.
    """
    absent = [file for file in files if not (root / file.path).exists()]
    for address in dict.fromkeys(file.address for file in absent):
        _download(root, address, [file for file in absent if file.address == address])


def _download(root: Path, address: str, files: list[Published]) -> None:
    first = root / files[0].path
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=first.parent) as content:
            _transfer(address, content)
            for file in files:
                content.seek(0)
                _install(root / file.path, file, content)
    except (OSError, EOFError, zlib.error, http.client.HTTPException, tarfile.TarError, KeyError, ValueError) as error:
        reason = str(getattr(error, "reason", None) or error).splitlines()[0] if str(error) else type(error).__name__
        raise DownloadError(
            f"{files[0].path}: cannot be fetched from {address} ({reason}); put the file at {first} or set ZOO_DATA"
        ) from error


def _transfer(address: str, target: IO[bytes]) -> None:
    from tqdm import tqdm

    with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=total or None, unit="B", unit_scale=True, desc=address.rsplit("/", 1)[-1], disable=None) as bar:
            while block := answer.read(1 << 20):
                target.write(block)
                bar.update(len(block))
        if total and target.tell() != total:
            raise OSError(f"the connection broke after {target.tell()} of {total} bytes")


def _install(path: Path, file: Published, content: IO[bytes]) -> None:
    """Unpacks `content` into a file beside `path` and moves it there once it proves to be the published one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(_unpack(file, content))
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _unpack(file: Published, content: IO[bytes]) -> bytes:
    if file.address.endswith(".tar.gz"):
        with tarfile.open(fileobj=content, mode="r:gz") as archive:
            member = archive.extractfile(file.path)
            data = member.read(file.size + 1) if member is not None else b""
    elif file.address.endswith(".gz"):
        with gzip.GzipFile(fileobj=content) as stream:
            data = stream.read(file.size + 1)  # no more, whatever the other side sends
    else:
        data = content.read(file.size + 1)
    if (found := hashlib.sha256(data).hexdigest()) != file.sha256:
        raise ValueError(f"expected sha256 {file.sha256[:16]}..., found {found[:16]}...")
    return data
