"""Checkpoint folders from the Hugging Face Hub: a plain download at one revision, into the client's own cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from zoo.checkpoint import CONFIG, METRICS, WEIGHTS
from zoo.config import brief
from zoo.errors import ConfigError, DownloadError
from zoo.weights import MAX_WEIGHTS

PREFIX = "hf-hub:"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,95}"  # no "..", which climbs, and no "--", which the cache uses
_SOURCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[0-9a-f]{{40}}|{_PART}))?", re.ASCII)
_REMEDY = "connect and try again, or copy the folder here and load 'local-dir:PATH'"
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


def parse_source(source: str) -> tuple[str, str]:
    """Repository and revision in `hf-hub:user/repo@revision`; without a revision, the branch `main`.

    Raises:
        ConfigError: it is not of this form.
    """
    found = _SOURCE.fullmatch(source.removeprefix(PREFIX))
    if found is None:
        expected = f"'{PREFIX}user/repository@revision' with a tag or a commit of 40 digits"
        raise ConfigError(f"expected {expected}, found {brief(source)}")
    return found["repo"], found["revision"] or "main"


def fetch(repo: str, revision: str, files: Sequence[str] = (CONFIG, METRICS, WEIGHTS)) -> Path:
    """The folder in the cache that holds `files` of a repository, downloaded if absent.

    The revision is resolved once, and the commit found is used for every file. A commit that is in the cache needs no
    network, and neither does a branch or tag where there is none.

    Raises:
        DownloadError: one line saying which file, from where, and what to do.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    if _COMMIT.fullmatch(revision) and (folder := _cached(repo, revision, files)):
        return folder
    commit = revision
    for name in files:
        where = f"{PREFIX}{repo}@{revision}: {name}"
        try:
            # asked first without the retries of a download, which would report a dead server only after 23 seconds
            metadata = get_hf_file_metadata(hf_hub_url(repo, name, revision=commit))
            if metadata.size is not None and metadata.size > MAX_WEIGHTS:
                raise DownloadError(
                    f"{where} has {metadata.size} bytes, expected at most {MAX_WEIGHTS}; not downloaded"
                )
            if not _COMMIT.fullmatch(metadata.commit_hash or ""):
                raise DownloadError(f"{where}: expected a commit from the server, found {brief(metadata.commit_hash)}")
            path = Path(hf_hub_download(repo, name, revision=commit, library_name="generative-zoo"))
        except DownloadError:
            raise
        except Exception as exc:  # the client raises its own errors, the HTTP library's and the system's
            if name == files[0] and not _is_answer(exc) and (folder := _cached(repo, revision, files)):
                return folder
            raise DownloadError(f"{where} {_reason(exc)}") from exc
        commit = path.parent.name
    return path.parent


def _cached(repo: str, revision: str, files: Sequence[str]) -> Path | None:
    """The folder in the cache, if all files are there."""
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repo, name, revision=revision) for name in files]
    return Path(str(paths[0])).parent if all(isinstance(path, str) for path in paths) else None


def _is_answer(exc: Exception) -> bool:
    """Whether the server has said no, as opposed to nothing or that it cannot answer now."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if isinstance(exc, HfHubHTTPError) and exc.response is not None:
        return exc.response.status_code < 500 and exc.response.status_code != 429
    return isinstance(exc, EntryNotFoundError)


def cache_of(folder: Path) -> Path:
    """The part of the client's cache that belongs to the repository of `folder`; its files are links into it."""
    return folder.parents[1]


def _reason(exc: Exception) -> str:
    """What happened and what to do."""
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    if isinstance(exc, errors.GatedRepoError):
        return "is gated; accept its conditions on its page and log in with `hf auth login`"
    if isinstance(exc, errors.RepositoryNotFoundError):
        return f"was not found, since {endpoint} shows no such repository; check the name, or log in if it is private"
    if isinstance(exc, errors.RevisionNotFoundError):
        return "was not found, since there is no such revision; check the tag or commit"
    if isinstance(exc, errors.EntryNotFoundError):
        return "does not exist there; it is no checkpoint of the zoo"
    if constants.HF_HUB_OFFLINE or isinstance(exc, errors.LocalEntryNotFoundError):
        return f"is not in the cache and the client is offline (HF_HUB_OFFLINE); {_REMEDY}"
    text = (str(exc).splitlines() or [""])[0][:200]
    return f"is not in the cache and {endpoint} gives no answer ({type(exc).__name__} {text}); {_REMEDY}"
