"""Uploads checkpoints to the Hugging Face Hub, verified and in one tagged commit."""

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
    """The place of a published checkpoint.

    Attributes:
        url: Address of the repository, or of the pull request.
        source: Source for `Zoo.load`; None for a pull request, which has to be merged first.
        commit: Commit, 40 digits.
        tag: Tag of this commit; None for a pull request, and if an earlier commit has the tag.
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

    The checkpoint is verified before anything is sent, in the same way as by `Zoo.load`. Its files form one commit,
    together with a model card that says how to load it from there. The same commit removes files of an earlier
    checkpoint that this one lacks. Other files in the folder or in the repository are left alone. If nothing has
    changed, no commit is made. If a push was interrupted, another push completes it.

    The commit is tagged with the version of the zoo, such as `v0.1.0`. A tag never moves, so that `user/repo@v0.1.0`
    always means the same bytes. Later pushes with the same version can be loaded by their commit or from `main`.

    The token comes from `hf auth login` or `HF_TOKEN`.

    Args:
        checkpoint: The checkpoint.
        repo: Name of the repository, "user/name". It is created if it does not exist.
        card: Function that writes the model card.
        private: Whether only its owner can see the repository. An existing repository must already be private.
        pull_request: Whether to propose the commit to an existing repository, without a tag.

    Raises:
        ConfigError: The name of the repository is invalid, or the repository is public and `private` is set.
        CheckpointError: The checkpoint is damaged; nothing was sent.
        UploadError: The Hub refused or did not answer. The message says what to do next.
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
        if pull_request:  # never repeated: if an answer is lost, that would make a second pull request
            made = wait_for(commit, deadline)
            return Pushed(made.pr_url or f"{api.endpoint}/{repo}", None, made.oid, None)
        made = insist(commit, deadline)
        tag = f"v{__version__}"
        is_new = insist(partial(_tag, api, repo, tag, made.oid), deadline)
    except ZooError:
        raise
    except Exception as exc:  # errors of the client, of its HTTP library and of the system
        raise UploadError(f"{PREFIX}{repo}: {_why_not_sent(exc, repo)}") from exc
    return Pushed(f"{api.endpoint}/{repo}", f"{PREFIX}{repo}@{made.oid}", made.oid, tag if is_new else None)


def _contents(checkpoint: Checkpoint, card: Card) -> dict[str, Path | bytes]:
    """Verifies a checkpoint, and returns its files and its card by name."""
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
    """Commits the files. The Hub refuses this if somebody else commits meanwhile."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    info = api.model_info(repo)
    if private and not info.private:
        raise ConfigError(
            f"{repo}: expected a private repository, found a public one; nothing was sent, choose another name or make "
            "it private"
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
    """Creates a tag unless it exists, and returns whether it belongs to this commit."""
    api.create_tag(repo, tag=tag, revision=commit, exist_ok=True)
    return api.model_info(repo, revision=tag).sha == commit


def _why_not_sent(exc: Exception, repo: str) -> str:
    """Returns a clause that says what happened and what to do."""
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
