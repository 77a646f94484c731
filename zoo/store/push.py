"""Checkpoints to the Hugging Face Hub: verified, in one commit, tagged."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import __version__
from zoo.config import brief
from zoo.errors import CheckpointError, ConfigError, UploadError, ZooError
from zoo.store import network
from zoo.store.checkpoint import CARD, FILES, Card, Checkpoint
from zoo.store.network import first_line, insist, silence, status_of, wait_for
from zoo.store.pull import LIBRARY, PREFIX, REPOSITORY

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi


@dataclass(frozen=True)
class Pushed:
    """Where a checkpoint went.

    Attributes:
        url: Address of the repository, or of the pull request.
        source: What `Zoo.load` takes; None for a pull request, which has to be merged first.
        commit: The commit, 40 digits.
        tag: The tag that names this commit; None for a pull request, and if an earlier commit has the tag.
    """

    url: str
    source: str | None
    commit: str
    tag: str | None

    def __str__(self) -> str:
        name = f"{self.source} = {self.tag}" if self.tag else self.source
        return f"{self.url}\n{name}" if name else self.url


def push(checkpoint: Checkpoint, repo: str, *, card: Card, private: bool = False, pull_request: bool = False) -> Pushed:
    """Publishes a checkpoint as a repository of the Hub.

    The checkpoint is verified as by `Zoo.load` before anything is sent. Its files go in one commit, with a model card
    that says how to load it from there. Files of an earlier checkpoint that this one does not have are removed by the
    same commit; foreign files in the folder or in the repository are left alone. If nothing differs there is no commit.
    A push that was interrupted is completed by repeating it.

    The commit is tagged with the version of the zoo, such as `v0.1.0`. A tag never moves, so that
    `user/repo@v0.1.0` always gives the same bytes; a later push by the same version is found by its commit or on
    `main`.

    Tokens come from `hf auth login` or `HF_TOKEN`.

    Args:
        checkpoint: The checkpoint.
        repo: Name of the repository, "user/name"; it is created if there is none.
        card: Writes the model card.
        private: Whether it is visible to its owner alone; a repository that exists must be private already.
        pull_request: Whether to propose the commit to an existing repository, without a tag.

    Raises:
        ConfigError: `repo` is no name of a repository, or it is public and `private` is asked for.
        CheckpointError: The checkpoint is not sound; nothing was sent.
        UploadError: The Hub refused or did not answer; one line that says what to do.
    """
    from huggingface_hub import HfApi

    if not REPOSITORY.fullmatch(repo):
        raise ConfigError(f"expected a repository 'user/name', found {brief(repo)}")
    contents = _contents(checkpoint, card)
    size = sum(content.stat().st_size if isinstance(content, Path) else len(content) for content in contents.values())
    deadline = time.monotonic() + network.PATIENCE + size / network.PACE
    api = HfApi(library_name=LIBRARY, library_version=__version__)
    try:
        if not pull_request:
            insist(partial(api.create_repo, repo, private=private or None, exist_ok=True), deadline)
        commit = partial(_commit, api, repo, contents, private=private, pull_request=pull_request)
        if pull_request:  # asked once: an answer that is lost on the way would make a second one
            made = wait_for(commit, deadline)
            return Pushed(made.pr_url or f"{api.endpoint}/{repo}", None, made.oid, None)
        made = insist(commit, deadline)
        tag = f"v{__version__}"
        is_new = insist(partial(_tag, api, repo, tag, made.oid), deadline)
    except ZooError:
        raise
    except Exception as exc:  # the client raises its own errors, the HTTP library's and the system's
        raise UploadError(f"{PREFIX}{repo}: {_why_not_sent(exc, repo)}") from exc
    return Pushed(f"{api.endpoint}/{repo}", f"{PREFIX}{repo}@{made.oid}", made.oid, tag if is_new else None)


def _contents(checkpoint: Checkpoint, card: Card) -> dict[str, Path | bytes]:
    """The files of a sound checkpoint by name, with its card."""
    checkpoint.load()
    folder = checkpoint.folder
    contents: dict[str, Path | bytes] = {name: folder / name for name in FILES if (folder / name).exists()}
    for path in contents.values():
        if isinstance(path, Path) and (path.is_symlink() or not path.is_file()):
            raise CheckpointError(f"{path}: expected a file to push, found something else; nothing was sent")
    contents[CARD] = card(checkpoint).encode()
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
        commit_message=f"Checkpoint of {LIBRARY} {__version__}",
        parent_commit=info.sha,
        create_pr=pull_request,
    )


def _tag(api: HfApi, repo: str, tag: str, commit: str) -> bool:
    """Tags a commit unless there is such a tag; returns whether it is that of this commit."""
    api.create_tag(repo, tag=tag, revision=commit, exist_ok=True)
    return api.model_info(repo, revision=tag).sha == commit


def _why_not_sent(exc: Exception, repo: str) -> str:
    """What happened and what to do."""
    match status_of(exc):
        case 404:
            return "was not found; check the name, or log in with `hf auth login` if it is private"
        case 401 | 403:
            owner = repo.partition("/")[0]
            return (
                f"was refused; log in with `hf auth login`, or set HF_TOKEN, with a token that may write to {owner!r}"
            )
        case int(status) if status < 500 and status != 429:
            return f"was refused with status {status}: {first_line(exc)}"
    return f"not finished, since {silence(exc)}; push again, which completes it"
