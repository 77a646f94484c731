"""Checkpoint folders to and from the Hugging Face Hub, by its own client and into its own cache.

The client checks sizes alone. Here every file is compared with the hash by which the server calls it, when it arrives
and when it is found in the cache; a file that differs is fetched again. Whatever the network does, a call ends by its
deadline: `PATIENCE` seconds, and one more for every `PACE` bytes of a file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo import __version__
from zoo.config import MAX_BYTES, brief
from zoo.errors import CheckpointError, ConfigError, DownloadError, UploadError, ZooError
from zoo.store import checkpoint
from zoo.store.checkpoint import CARD, CONFIG, FILES, MAX_CONFIG, METRICS, RECIPE, WEIGHTS
from zoo.store.weights import MAX_WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

PREFIX = "hf-hub:"
PATIENCE = 60.0
"""Seconds after which a server that fails to answer is given up."""
PACE = 100_000
"""Bytes a second that a connection must manage beyond that."""
LEFTOVER = 3600.0
"""Seconds after which a partial file that nobody has written to is taken for that of a killed download."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,95}"  # no "..", which climbs, and no "--", which the cache uses
_NAME = rf"{_PART}(?<![.-])/{_PART}(?<![.-])(?<!\.git)"
_SOURCE = re.compile(rf"(?P<repo>{_NAME})(?:@(?P<revision>[0-9a-f]{{40}}|{_PART}))?", re.ASCII)
_REPOSITORY = re.compile(_NAME, re.ASCII)
_REMEDY = "connect and try again, or copy the folder here and load 'local-dir:PATH'"
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_ETAG = re.compile(r"[A-Za-z0-9][\w.+=-]{0,199}", re.ASCII)  # the client calls the file by it, wherever it leads
_LIBRARY = "generative-zoo"

Result = TypeVar("Result")


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


# ------------------------------------------------------------------------------------------------------------- pull


def fetch(repo: str, revision: str, files: Sequence[str] = (CONFIG, METRICS, WEIGHTS)) -> Path:
    """The folder in the cache that holds `files` of a repository, and its recipe; downloaded if absent or damaged.

    A repository may have no recipe. The revision is resolved once, and the commit found is used for every file. A
    commit that is in the cache needs no network, and neither does a branch or tag where there is none.

    Raises:
        DownloadError: one line saying which file, from where, and what to do.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    folder = _cached(repo, revision, files)
    if folder and _COMMIT.fullmatch(revision):
        return folder
    where, commit = f"{PREFIX}{repo}@{revision}", revision
    deadline = time.monotonic() + (PATIENCE / 6 if folder else PATIENCE)
    for name in (files[0], RECIPE, *files[1:]):
        try:
            answered, size = _insist(partial(_ask, repo, name, commit), deadline)
            if _COMMIT.fullmatch(commit) and answered != commit:
                raise DownloadError(f"comes from another commit: expected {commit}, found {answered}")
            commit = answered
            if whole := _cached(repo, commit, files):
                found = whole
                break
            deadline += size / PACE
            found = _insist(partial(_download, repo, name, commit), deadline).parent
        except Exception as exc:  # the client raises its own errors, the HTTP library's and the system's
            if name == RECIPE and isinstance(exc, RemoteEntryNotFoundError):
                continue
            if _is_answer(exc):
                raise DownloadError(f"{where}: {name} {_refusal(exc)}") from exc
            if folder:
                return folder
            raise DownloadError(f"{where}: {_absence(exc, repo, name, commit, files)}") from exc
    _sweep(cache_of(found) / "blobs")
    if commit != revision:
        _name(cache_of(found) / "refs" / revision, commit)
    return found


def cache_of(folder: Path) -> Path:
    """The part of the client's cache that belongs to the repository of `folder`; its files are links into it."""
    return folder.parents[1]


def _ask(repo: str, name: str, revision: str) -> tuple[str, int]:
    """The commit that a revision means, and the size of a file.

    Asked first, since the client's download would resolve a branch twice, and report a dead server after 23 seconds.
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
        raise DownloadError(f"comes with an ETag that can name no file: found {brief(metadata.etag)}; not downloaded")
    return metadata.commit_hash or "", size


def _download(repo: str, name: str, commit: str) -> Path:
    """The path of a file in the cache, fetched unless it is there whole."""
    from huggingface_hub import hf_hub_download

    for is_repair in (False, True):
        get = partial(hf_hub_download, repo, name, revision=commit, library_name=_LIBRARY, library_version=__version__)
        path = Path(get(force_download=is_repair))
        if _is_whole(path):
            return path
    raise ConnectionError("other bytes than promised")


def _is_whole(path: Path) -> bool:
    """Whether a cached file has the content that its blob is named by: sha256, or as a git blob, or (mirrors) sha1.

    A blob of another name, and a file that is no link to a blob, as on Windows, cannot be told; the sha256 in
    `metrics.json` still guards the weights.
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
    """What the cache has of a file: "whole", "damaged", or "missing"."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, name, revision=revision)
    try:
        return ("whole" if _is_whole(Path(path)) else "damaged") if isinstance(path, str) else "missing"
    except OSError:  # removed meanwhile, or not to be read
        return "missing"


def _unsound(repo: str, revision: str, files: Sequence[str]) -> tuple[str, str] | None:
    """The first file of which the cache has not what it must, and its state; it may have no recipe."""
    for name in (*files, RECIPE):
        if (state := _state(repo, name, revision)) == "damaged" or (state == "missing" and name != RECIPE):
            return name, state
    return None


def _cached(repo: str, revision: str, files: Sequence[str]) -> Path | None:
    """The folder in the cache, if all files are there and whole."""
    from huggingface_hub import try_to_load_from_cache

    if _unsound(repo, revision, files):
        return None
    path = try_to_load_from_cache(repo, files[0], revision=revision)
    return Path(path).parent if isinstance(path, str) else None


def _sweep(blobs: Path) -> None:
    """Removes what killed downloads have left: the client does not go on with it."""
    for path in blobs.glob("*.incomplete"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER:
                path.unlink()


def _name(ref: Path, commit: str) -> None:
    """Records, where the client does, which commit a branch or tag is: once all of it is there."""
    temporary = ref.with_name(f".{ref.name}.{secrets.token_hex(4)}")
    with suppress(OSError):  # as in a cache that may only be read
        ref.parent.mkdir(exist_ok=True)
        temporary.write_text(commit)
        temporary.replace(ref)


def _refusal(exc: Exception) -> str:
    """What the server has said, and what to do."""
    from huggingface_hub import constants, errors

    if isinstance(exc, errors.GatedRepoError):
        return "is gated; accept its conditions on its page and log in with `hf auth login`"
    if isinstance(exc, errors.RepositoryNotFoundError):
        missing = f"was not found, since {constants.ENDPOINT} shows no such repository"
        return f"{missing}; check the name, or log in if it is private"
    if isinstance(exc, errors.RevisionNotFoundError):
        return "was not found, since there is no such revision; check the tag or commit"
    if isinstance(exc, errors.RemoteEntryNotFoundError):
        return "does not exist there; it is no checkpoint of the zoo"
    if isinstance(exc, DownloadError):
        return str(exc)
    return f"was refused: {_first_line(exc)}; log in again with `hf auth login`, or check HF_TOKEN and HF_ENDPOINT"


def _absence(exc: Exception, repo: str, asked: str, commit: str, files: Sequence[str]) -> str:
    """Which file is not there, that which was asked for or else another, why not, and what to do."""
    from huggingface_hub import constants

    name, state = asked, _state(repo, asked, commit)
    if state == "whole":
        name, state = _unsound(repo, commit, files) or (asked, "missing")
    if isinstance(exc, OSError) and exc.errno is not None:
        return f"{name} cannot be written to {constants.HF_HUB_CACHE}: {exc.strerror}; make room or set HF_HUB_CACHE"
    place = "is damaged in the cache" if state == "damaged" else "is not in the cache"
    return f"{name} {place} and {_silence(exc)}; {_REMEDY}"


# ------------------------------------------------------------------------------------------------------------- push


@dataclass(frozen=True)
class Pushed:
    """Where a checkpoint went.

    Attributes:
        url: of the repository, or of the pull request.
        source: what `Zoo.load` takes; None for a pull request, which has to be merged first.
        commit: 40 digits.
        tag: what names this commit; None for a pull request, and where the tag is that of an earlier commit.
    """

    url: str
    source: str | None
    commit: str
    tag: str | None

    def __str__(self) -> str:
        name = f"{self.source} = {self.tag}" if self.tag else self.source
        return f"{self.url}\n{name}" if name else self.url


def push(folder: str | Path, repo: str, *, private: bool = False, pull_request: bool = False) -> Pushed:
    """Publish a checkpoint folder as a repository of the Hub.

    The folder is verified as by `Zoo.load` before anything is sent. Its files go in one commit, with a model card that
    says how to load it from there; files of an earlier checkpoint that this one does not have are removed by the same
    commit, and foreign files in the folder or in the repository are left alone. If nothing differs there is no commit.
    A push that was interrupted is completed by repeating it.

    The commit is tagged with the version of the zoo, such as `v0.1.0`. A tag never moves, so that who loads
    `user/repo@v0.1.0` always gets the same bytes; a later push by the same version is found by its commit or on `main`.

    Tokens come from `hf auth login` or `HF_TOKEN`.

    Args:
        repo: "user/name"; created if there is none.
        private: visible to its owner alone; a repository that exists must be private already.
        pull_request: propose the commit to an existing repository, without a tag.

    Raises:
        ConfigError: `repo` is no name of a repository, or it is public and `private` is asked for.
        CheckpointError: the folder is not a sound checkpoint; nothing was sent.
        UploadError: the Hub refused or did not answer; one line saying what to do.
    """
    from huggingface_hub import HfApi

    if not _REPOSITORY.fullmatch(repo):
        raise ConfigError(f"expected a repository 'user/name', found {brief(repo)}")
    contents = _contents(Path(folder), repo)
    size = sum(content.stat().st_size if isinstance(content, Path) else len(content) for content in contents.values())
    deadline = time.monotonic() + PATIENCE + size / PACE
    api = HfApi(library_name=_LIBRARY, library_version=__version__)
    try:
        if not pull_request:
            _insist(partial(api.create_repo, repo, private=private or None, exist_ok=True), deadline)
        commit = partial(_commit, api, repo, contents, private=private, pull_request=pull_request)
        if pull_request:  # asked once: an answer that is lost on the way would make a second one
            made = _await(commit, deadline)
            return Pushed(made.pr_url or f"{api.endpoint}/{repo}", None, made.oid, None)
        made = _insist(commit, deadline)
        tag = f"v{__version__}"
        is_new = _insist(partial(_tag, api, repo, tag, made.oid), deadline)
    except ZooError:
        raise
    except Exception as exc:  # the client raises its own errors, the HTTP library's and the system's
        raise UploadError(f"{PREFIX}{repo}: {_why_not_sent(exc, repo)}") from exc
    return Pushed(f"{api.endpoint}/{repo}", f"{PREFIX}{repo}@{made.oid}", made.oid, tag if is_new else None)


def _contents(folder: Path, repo: str) -> dict[str, Path | bytes]:
    """The files of a sound checkpoint folder by name, with a card that loads it from the Hub."""
    from zoo.store.card import render_card

    checkpoint.load(folder)
    contents: dict[str, Path | bytes] = {name: folder / name for name in FILES if (folder / name).exists()}
    for path in contents.values():
        if isinstance(path, Path) and (path.is_symlink() or not path.is_file()):
            raise CheckpointError(f"{path}: expected a file to push, found something else; nothing was sent")
    contents[CARD] = render_card(folder, name=repo.partition("/")[2], source=f"{PREFIX}{repo}").encode()
    return contents


def _commit(
    api: HfApi, repo: str, contents: Mapping[str, Path | bytes], *, private: bool, pull_request: bool
) -> CommitInfo:
    """One commit that makes the repository hold what the folder holds; refused if somebody else commits meanwhile."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    info = api.model_info(repo)
    if private and not info.private:
        raise ConfigError(
            f"{repo}: is public, expected private; nothing was sent, choose another name or make it private"
        )
    present = {sibling.rfilename for sibling in info.siblings or ()}
    stale = [CommitOperationDelete(name) for name in FILES if name in present and name not in contents]
    return api.create_commit(
        repo,
        [*(CommitOperationAdd(name, content) for name, content in contents.items()), *stale],
        commit_message=f"Checkpoint of {_LIBRARY} {__version__}",
        parent_commit=info.sha,
        create_pr=pull_request,
    )


def _tag(api: HfApi, repo: str, tag: str, commit: str) -> bool:
    """Tags a commit unless there is such a tag; returns whether it is that of this commit."""
    api.create_tag(repo, tag=tag, revision=commit, exist_ok=True)
    return api.model_info(repo, revision=tag).sha == commit


def _why_not_sent(exc: Exception, repo: str) -> str:
    """What happened and what to do."""
    match _status(exc):
        case 404:
            return "was not found; check the name, or log in with `hf auth login` if it is private"
        case 401 | 403:
            owner = repo.partition("/")[0]
            return (
                f"was refused; log in with `hf auth login`, or set HF_TOKEN, with a token that may write to {owner!r}"
            )
        case int(status) if status < 500 and status != 429:
            return f"was refused with status {status}: {_first_line(exc)}"
    return f"not finished, since {_silence(exc)}; push again, which completes it"


# ---------------------------------------------------------------------------------------------------------- network


def _insist(step: Callable[[], Result], deadline: float) -> Result:
    """What `step` returns, which is tried again while it fails for the network alone and there is time."""
    pause, last = 0.2, None
    while True:
        try:
            return _await(step, deadline)
        except Exception as exc:
            wait = max(pause, _retry_after(exc))
            if not _may_pass(exc) or time.monotonic() + wait > deadline:
                raise last if last and isinstance(exc, TimeoutError) else exc  # noqa: B904 - with its own cause
            last = exc
        time.sleep(wait)
        pause = min(2 * pause, 8.0)


def _await(step: Callable[[], Result], deadline: float) -> Result:
    """What `step` returns. At the deadline it is left behind, since the client has waits of its own without an end."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(step())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=max(0.0, deadline - time.monotonic()))


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    while True:
        yield exc
        if exc.__cause__ is None:
            return
        exc = exc.__cause__


def _status(exc: BaseException) -> int | None:
    """The status that the server answered with, if it did."""
    for cause in _causes(exc):
        if (response := getattr(cause, "response", None)) is not None:
            return int(response.status_code)
    return None


def _retry_after(exc: BaseException) -> float:
    """Seconds for which the server asks not to be asked."""
    for cause in _causes(exc):
        if (response := getattr(cause, "response", None)) is not None:
            wait = response.headers.get("Retry-After", "")
            return float(wait) if re.fullmatch(r"\d{1,9}", wait, re.ASCII) else 0.0
    return 0.0


def _is_answer(exc: BaseException) -> bool:
    """Whether the server has said no, as opposed to nothing or that it cannot answer now."""
    status = _status(exc)
    return isinstance(exc, DownloadError) or (status is not None and status < 500 and status not in (408, 412, 429))


def _may_pass(exc: BaseException) -> bool:
    """Whether it is worth trying again. A server to which there is no connection at all is not."""
    if _status(exc) is not None:
        return not _is_answer(exc)
    causes = list(_causes(exc))
    names = {base.__name__ for cause in causes for base in type(cause).__mro__}  # the library is httpx or httpx2
    if names & {"ConnectError", "OfflineModeIsEnabled", "FileMetadataError"}:
        return False
    if names & {"TransportError", "JSONDecodeError"}:
        return True
    return any(isinstance(cause, OSError) and cause.errno is None for cause in causes)  # with one, it is a full disk


def _silence(exc: BaseException) -> str:
    """In what way there is no answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the client is offline (HF_HUB_OFFLINE)"
    if wait := _retry_after(exc):
        return f"{constants.ENDPOINT} asks to wait for {wait:.0f} seconds"
    found = f"{type(exc).__name__} {_first_line(exc)}".strip()
    return f"{constants.ENDPOINT} gives no sound answer, tried for at most {PATIENCE:.0f} seconds ({found})"


def _first_line(exc: BaseException) -> str:
    """Without the query of an address, which may hold a signature."""
    return re.sub(r"\?[^\s'\"]+", "", (str(exc).strip().splitlines() or [""])[0])[:200]
