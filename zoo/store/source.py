"""Finds checkpoints by their sources: a name, `local-dir:PATH`, or `hf-hub:user/repository@revision`."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from zoo.config import brief, near
from zoo.errors import CheckpointError, ConfigError
from zoo.files import expand
from zoo.store import registry as records
from zoo.store.checkpoint import CONFIG, Checkpoint
from zoo.store.pull import PREFIX, cache_of, fetch, parse_source
from zoo.store.registry import registry

LOCAL = "local-dir:"


def checkpoint(source: str, plugins: Collection[str] = ()) -> Checkpoint:
    """Returns the checkpoint of a source: in the shipped folder, in the Hub's cache, or downloaded now.

    Args:
        source: The source; see `Zoo`.
        plugins: Names of installed packages whose classes the checkpoint may use; see `Zoo.load`.

    Raises:
        ConfigError: There is no such name, or the source has the wrong form.
        CheckpointError: The folder of a pretrained checkpoint is missing, and the checkpoint is not on the Hub.
        DownloadError: The checkpoint is not on this machine and could not be fetched.
    """
    if not isinstance(source, str):
        raise ConfigError(f"expected the name of a checkpoint, found {brief(source)}; see Zoo.list()")
    if source.startswith(LOCAL):
        folder = expand(source.removeprefix(LOCAL))
        return Checkpoint(source, folder, folder, plugins=tuple(plugins))
    if source.startswith(PREFIX):
        folder = fetch(*parse_source(source))
        return Checkpoint(source, folder, cache_of(folder), plugins=tuple(plugins))
    entry = registry().get(source)
    if entry is None:
        if re.search(r"[/\\]|^[.~]", source):
            hint = f"write '{LOCAL}{source[:100]}' for a folder, '{PREFIX}user/repository@revision' for the Hub"
        elif source and (Path(source) / CONFIG).is_file():
            hint = f"write '{LOCAL}{source[:100]}' for the folder of this name"
        else:
            hint = near(source, registry())
        raise ConfigError(f"no checkpoint is called {brief(source)}; {hint}")
    folder = records.SHIPPED / source
    if (folder / CONFIG).exists():
        return Checkpoint(source, folder, folder, entry)
    if entry.repo is None or entry.revision is None:
        raise CheckpointError(
            f"{folder}: the folder of {source!r} is missing and it is not on the Hub; install the zoo anew"
        )
    folder = fetch(entry.repo, entry.revision)
    return Checkpoint(source, folder, cache_of(folder), entry)
