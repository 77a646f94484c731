"""Downloads checkpoints from the Hugging Face Hub, with its client and into its cache.

The client checks only sizes. Here the hash of every file is compared with that of the server, when the file arrives and
when it is found in the cache. A file that differs is fetched again.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from zoo import __version__
from zoo.config import MAX_BYTES, brief
from zoo.errors import ConfigError, DownloadError
from zoo.files import write_atomically
from zoo.store import network
from zoo.store.checkpoint import CONFIG, MAX_CONFIG, METRICS, RECIPE, WEIGHTS
from zoo.store.network import first_line, insist, is_answer, silence
from zoo.store.weights import MAX_WEIGHTS

PREFIX = "hf-hub:"
LIBRARY = "generative-zoo"
LEFTOVER = 3600.0
"""Seconds without a change after which a partial file counts as the rest of a killed download."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,95}"  # no ".." (leads elsewhere) and no "--" (used by the cache)
_NAME = rf"{_PART}(?<![.-])/{_PART}(?<![.-])(?<!\.git)"
_REVISION = rf"{_PART}(?:/{_PART}){{0,4}}"  # a tag, a branch such as "fix/typo", or "refs/pr/3"
_SOURCE = re.compile(rf"(?P<repo>{_NAME})(?:@(?P<revision>[0-9a-f]{{40}}|{_REVISION}))?", re.ASCII)
REPOSITORY = re.compile(_NAME, re.ASCII)
_REMEDY = "connect and try again, or copy the folder here and load 'local-dir:PATH'"
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_ETAG = re.compile(r"[A-Za-z0-9][\w.+=-]{0,199}", re.ASCII)  # the client makes it a file name, unchecked


def parse_source(source: str) -> tuple[str, str]:
    """Returns the repository and the revision of `hf-hub:user/repo@revision`. The default is the branch `main`.

    Raises:
        ConfigError: The source does not have this form.
    """
    found = _SOURCE.fullmatch(source.removeprefix(PREFIX))
    if found is None:
        expected = f"'{PREFIX}user/repository@revision' with a tag, a branch or a commit of 40 digits"
        raise ConfigError(f"expected {expected}, found {brief(source)}")
    return found["repo"], found["revision"] or "main"


def fetch(repo: str, revision: str, files: Sequence[str] = (CONFIG, METRICS, WEIGHTS)) -> Path:
    """Fetches files of a repository, and its recipe if it has one, unless the cache holds them undamaged.

    The revision is resolved once, and every file comes from the resulting commit. A commit that is in the cache needs
    no network. Without a network, a branch or tag stands for the commit that it was last seen at.

    Args:
        repo: The repository, "user/name".
        revision: A branch, a tag or a commit.
        files: Names of the files.

    Returns:
        The folder in the cache that holds the files.

    Raises:
        DownloadError: A file could not be fetched. The message says which one, from where, and what to do.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    folder = _cached(repo, revision, files)
    if folder and _COMMIT.fullmatch(revision):
        return folder
    where, commit = f"{PREFIX}{repo}@{revision}", revision
    deadline = time.monotonic() + (network.PATIENCE / 6 if folder else network.PATIENCE)
    for name in (files[0], RECIPE, *files[1:]):
        try:
            answered, size = insist(partial(_ask, repo, name, commit), deadline)
            if _COMMIT.fullmatch(commit) and answered != commit:
                raise DownloadError(f"comes from another commit: expected {commit}, found {answered}")
            commit = answered
            if whole := _cached(repo, commit, files):
                found = whole
                break
            deadline += size / network.PACE
            found = insist(partial(_download, repo, name, commit), deadline).parent
        except Exception as exc:  # errors of the client, of its HTTP library and of the system
            if name == RECIPE and isinstance(exc, RemoteEntryNotFoundError):
                continue
            if is_answer(exc):
                raise DownloadError(f"{where}: {name} {_refusal(exc)}") from exc
            if folder:
                return folder
            raise DownloadError(f"{where}: {_absence(exc, repo, name, commit, files)}") from exc
    _sweep(cache_of(found) / "blobs")
    if commit != revision:
        _name(cache_of(found) / "refs" / revision, commit)
    return found


def cache_of(folder: Path) -> Path:
    """Returns the part of the client's cache that belongs to a repository; the files in `folder` are links into it."""
    return folder.parents[1]


def _ask(repo: str, name: str, revision: str) -> tuple[str, int]:
    """Asks the server for the commit of a revision and the size of a file.

    This comes before the download, because the client would resolve a branch twice, and report a dead server only after
    23 seconds.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    metadata = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))
    size = metadata.size or 0
    largest = {CONFIG: MAX_CONFIG, WEIGHTS: MAX_WEIGHTS}.get(name, MAX_BYTES)
    if size > largest:
        raise DownloadError(f"has {size} bytes, expected at most {largest}; not downloaded")
    if not _COMMIT.fullmatch(metadata.commit_hash or ""):
        raise DownloadError(f"comes without a commit: expected 40 digits, found {brief(metadata.commit_hash)}")
    if not _ETAG.fullmatch(metadata.etag or ""):
        raise DownloadError(f"comes with an ETag that is no file name: found {brief(metadata.etag)}; not downloaded")
    return metadata.commit_hash or "", size


def _download(repo: str, name: str, commit: str) -> Path:
    """Returns the path of a file in the cache, after fetching it if it is missing or damaged."""
    from huggingface_hub import hf_hub_download

    for is_repair in (False, True):
        get = partial(hf_hub_download, repo, name, revision=commit, library_name=LIBRARY, library_version=__version__)
        path = Path(get(force_download=is_repair))
        if _is_whole(path):
            return path
    raise ConnectionError("the bytes differ from the promised ones")


def _is_whole(path: Path) -> bool:
    """Returns whether a cached file is undamaged, by the hash that its blob is named after.

    The hash is a sha256, the hash of a git blob, or, on mirrors, a sha1. Blobs with other names, and files that are not
    links to blobs, as on Windows, cannot be checked and count as undamaged; the sha256 in `metrics.json` still protects
    the weights.
    """
    blob = path.resolve()
    digests: dict[int, list[Callable[[], Any]]] = {
        64: [hashlib.sha256],
        40: [lambda: hashlib.sha1(b"blob %d\0" % blob.stat().st_size), hashlib.sha1],
    }
    if re.fullmatch(r"[0-9a-f]+", blob.name) is None or len(blob.name) not in digests:
        return True
    for digest in digests[len(blob.name)]:
        with blob.open("rb") as file:
            if hashlib.file_digest(file, digest).hexdigest() == blob.name:
                return True
    return False


def _state(repo: str, name: str, revision: str) -> str:
    """Returns the state of a file in the cache: "whole", "damaged" or "missing"."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, revision=revision)
    try:
        return ("whole" if _is_whole(Path(path)) else "damaged") if isinstance(path, str) else "missing"
    except OSError:  # it was removed meanwhile, or cannot be read
        return "missing"


def _unsound(repo: str, revision: str, files: Sequence[str]) -> tuple[str, str] | None:
    """Returns the first file that is missing or damaged in the cache, with its state. The recipe may be missing."""
    for name in (*files, RECIPE):
        if (state := _state(repo, name, revision)) == "damaged" or (state == "missing" and name != RECIPE):
            return name, state
    return None


def _cached(repo: str, revision: str, files: Sequence[str]) -> Path | None:
    """Returns the folder in the cache if it holds all files undamaged, else None."""
    from huggingface_hub import try_to_load_from_cache

    if _unsound(repo, revision, files):
        return None
    path = try_to_load_from_cache(repo, files[0], revision=revision)
    return Path(path).parent if isinstance(path, str) else None


def _sweep(blobs: Path) -> None:
    """Removes partial files of killed downloads, which the client does not resume."""
    for path in blobs.glob("*.incomplete"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER:
                path.unlink()


def _name(ref: Path, commit: str) -> None:
    """Records the commit of a branch or tag in the client's cache, once all its files are there."""
    with suppress(OSError):  # the cache may be read-only
        write_atomically(ref, commit.encode())


def _refusal(exc: Exception) -> str:
    """Returns a clause that says what the server has answered and what to do."""
    from huggingface_hub import constants, errors

    if isinstance(exc, errors.GatedRepoError):
        return "is gated; accept its conditions on its page and log in with `hf auth login`"
    if isinstance(exc, errors.RepositoryNotFoundError):
        missing = f"was not found, since {constants.ENDPOINT} shows no such repository"
        return f"{missing}; check the name, or log in if it is private"
    if isinstance(exc, errors.RevisionNotFoundError):
        return "was not found, since there is no such revision; check the tag or commit"
    if isinstance(exc, errors.RemoteEntryNotFoundError):
        return "does not exist there; this is not a checkpoint of the zoo"
    if isinstance(exc, DownloadError):
        return str(exc)
    return f"was refused: {first_line(exc)}; log in again with `hf auth login`, or check HF_TOKEN and HF_ENDPOINT"


def _absence(exc: Exception, repo: str, asked: str, commit: str, files: Sequence[str]) -> str:
    """Returns a sentence that says which file is missing, why, and what to do.

    If the cache holds the file `asked`, the sentence is about another missing one.
    """
    from huggingface_hub import constants

    name, state = asked, _state(repo, asked, commit)
    if state == "whole":
        name, state = _unsound(repo, commit, files) or (asked, "missing")
    if isinstance(exc, OSError) and exc.errno is not None:
        return f"{name} cannot be written to {constants.HF_HUB_CACHE}: {exc.strerror}; make room or set HF_HUB_CACHE"
    place = "is damaged in the cache" if state == "damaged" else "is not in the cache"
    return f"{name} {place} and {silence(exc)}; {_REMEDY}"
