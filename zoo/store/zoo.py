"""The class `Zoo`, which loads models by name and saves them as folders."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from zoo.config import brief, near
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.measurement import Measurement
from zoo.store import push as pushing
from zoo.store import registry as records
from zoo.store import save as saving
from zoo.store.card import render_card
from zoo.store.checkpoint import Checkpoint
from zoo.store.pull import PREFIX
from zoo.store.registry import registry
from zoo.store.release import shipped_names
from zoo.store.source import LOCAL, checkpoint

if TYPE_CHECKING:
    from zoo.module import GenerativeModel, ZooModule

Model = TypeVar("Model", bound="ZooModule")


class Zoo:
    """Lists and loads the pretrained models, and reads, writes and publishes checkpoint folders.

    A source is the name of a pretrained checkpoint, `local-dir:PATH`, or `hf-hub:user/repository@revision`.
    """

    @staticmethod
    def list(
        pattern: str = "*",
        *,
        capability: str | type | None = None,
        data: str | None = None,
        family: str | None = None,
    ) -> builtins.list[str]:
        """Names of the pretrained checkpoints, sorted.

        Args:
            pattern: Pattern of names, with `*` and `?`, such as "vae-*".
            capability: A type of `zoo.capabilities` or its name, such as "EvidenceLowerBound".
            data: Name of a data set, such as "binarized-mnist".
            family: Family of models, such as "autoregressive".

        Raises:
            ConfigError: No checkpoint has this capability, data set or family.
        """
        entries = registry()
        wanted = capability.__name__ if isinstance(capability, type) else capability
        for title, value, known in (
            ("capability", wanted, {name for entry in entries.values() for name in entry.capabilities}),
            ("data set", data, {entry.data for entry in entries.values()}),
            ("family", family, {entry.family for entry in entries.values()}),
        ):
            if value is not None and value not in known:
                raise ConfigError(f"no checkpoint has the {title} {brief(value)}; {near(str(value), known)}")
        return sorted(
            name
            for name, entry in entries.items()
            if fnmatchcase(name, pattern)
            and (wanted is None or wanted in entry.capabilities)
            and data in (None, entry.data)
            and family in (None, entry.family)
        )

    @staticmethod
    def info(source: str, *, plugins: Collection[str] = ()) -> Checkpoint:
        """Returns the checkpoint itself, with its numbers, recipe, size and licence. Printing it shows all of them.

        Args:
            source, plugins: As in `load`.

        Raises:
            ZooError: As in `load`.
        """
        found = checkpoint(source, plugins)
        found.to_dict()  # reads all files but the weights, so that faults show now
        return found

    @overload
    @staticmethod
    def load(source: str, *, device: str = "cpu", plugins: Collection[str] = ()) -> GenerativeModel: ...

    # with `type[Model]`, mypy would take no abstract class, and capabilities are abstract
    @overload
    @staticmethod
    def load(
        source: str, kind: Callable[..., Model], *, device: str = "cpu", plugins: Collection[str] = ()
    ) -> Model: ...

    @staticmethod
    def load(source: str, kind: Any = None, *, device: str = "cpu", plugins: Collection[str] = ()) -> Any:
        """Returns a model with its weights, in evaluation mode.

        Weights are verified by sha256 before a tensor is read; a configuration can name only classes of the zoo and of
        packages that you name; nothing is unpickled. Shipped and cached checkpoints need no network.

        Args:
            source: Source of the checkpoint; see `Zoo`.
            kind: Class or capability that the model must have; it is also the type of the result for type checkers.
            device: Device to put the model on, such as "cuda".
            plugins: Names of installed packages whose model classes may be used. They offer these under the entry
                points `zoo.models`.

        Raises:
            ConfigError: There is no such name, the configuration is invalid, or the model is not of this `kind`.
            CheckpointError: Files are missing, damaged or do not belong together.
            DownloadError: The checkpoint is not on this machine and could not be fetched.
        """
        model = checkpoint(source, plugins).load(device=device)
        if kind is not None and not isinstance(model, kind):
            raise ConfigError(f"{source}: expected a model that is {kind.__name__}, found {type(model).__name__}")
        return model

    @staticmethod
    def save(
        model: ZooModule,
        folder: str | Path,
        *,
        overwrite: bool = False,
        recipe: Mapping[str, Any] | str | None = None,
        measurements: Iterable[Measurement | Mapping[str, Any]] = (),
        dtype: Literal["float32", "float16"] = "float32",
    ) -> Path:
        """Writes a checkpoint folder, all of it or nothing; `Zoo.load(f"local-dir:{folder}")` reads it.

        Args:
            model: The model.
            folder: Folder to write. It must not exist, unless `overwrite` is set and it holds only a checkpoint.
            overwrite: Whether to replace an existing checkpoint.
            recipe: Input of the run that made the model, as a mapping or as YAML text.
            measurements: Measurements of the model, or their records.
            dtype: Type of the weights in the file; "float16" halves its size.

        Returns:
            The folder.

        Raises:
            CheckpointError: The folder exists, or could not be written. An old checkpoint is unchanged.
            ConfigError: `Zoo.load` could not find the class, or its arguments are not JSON-plain.
        """
        where = expand(folder)
        saved = saving.save(
            model, where, card=render_card, overwrite=overwrite, recipe=recipe, numbers=measurements, dtype=dtype
        )
        return saved.folder

    @staticmethod
    def update(
        of: Checkpoint,
        numbers: Iterable[Measurement | Mapping[str, Any]] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Checkpoint:
        """Puts new numbers, and files such as `samples.png`, into a checkpoint folder, and rewrites its card.

        Args:
            of: The checkpoint.
            numbers: Measurements that replace the old ones; None to keep the old ones.
            files: Contents by name: of the recipe and of pictures, such as `samples.png`.

        Returns:
            The checkpoint as it is now.

        Raises:
            ZooError: The folder cannot be written to, or one of the files cannot be replaced.
        """
        return saving.update(of, card=render_card, numbers=numbers, files=files)

    @staticmethod
    def push(
        source: str | Path,
        repo: str,
        *,
        private: bool = False,
        pull_request: bool = False,
        plugins: Collection[str] = (),
    ) -> pushing.Pushed:
        """Publishes a checkpoint on the Hugging Face Hub; see `zoo.store.push` for commits, tags and tokens.

        Args:
            source: A checkpoint folder, with or without `local-dir:`, or the name of a pretrained checkpoint. Its
                recipe is published too, and with it the path of your own data.
            repo: Name of the repository, "user/name"; it is created if it does not exist.
            private: Whether only its owner can see the repository.
            pull_request: Whether to propose the commit to an existing repository.
            plugins: Names of installed packages whose classes the checkpoint may use.

        Returns:
            The place of the published checkpoint.

        Raises:
            ConfigError: There is no such name or folder, or the name of the repository is invalid.
            CheckpointError: The checkpoint is damaged; nothing was sent.
            UploadError: The Hub refused or did not answer.
        """
        found = _to_push(source, plugins)
        card = replace(found, source=f"{PREFIX}{repo}")
        return pushing.push(
            found,
            repo,
            card=lambda _: render_card(card, name=repo.partition("/")[2]),
            private=private,
            pull_request=pull_request,
        )

    @staticmethod
    def push_all(namespace: str, *, private: bool = False) -> Iterator[pushing.Pushed]:
        """Publishes every shipped checkpoint as `namespace/NAME` and pins its commit in the registry, one by one.

        After an interruption, call it again: checkpoints that are already there and unchanged are not sent again.

        Raises:
            ZooError: As in `push`, or a folder is not in the registry, or the registry cannot be written.
        """
        if unknown := sorted(set(shipped_names()) - registry().keys()):
            raise ConfigError(
                f"{unknown[0]}: is not in the registry; nothing was sent, run `python -m zoo.store.release`"
            )
        for name in sorted(registry().keys() & set(shipped_names())):
            repo = f"{namespace}/{name}"
            pushed = Zoo.push(name, repo, private=private)
            entries = registry()
            records.write_registry({**entries, name: replace(entries[name], repo=repo, revision=pushed.commit)})
            yield pushed


def _to_push(source: str | Path, plugins: Collection[str]) -> Checkpoint:
    name = str(source)
    if isinstance(source, str) and name in registry():
        shipped = records.SHIPPED / name
        if Path(name).is_dir() and not Path(name).samefile(shipped):
            raise ConfigError(
                f"{name!r} is a pretrained checkpoint, and here a folder too; write '{LOCAL}{name}' for the folder"
            )
        return checkpoint(name)
    folder = expand(name.removeprefix(LOCAL))
    if not folder.is_dir():
        raise ConfigError(
            f"expected a checkpoint folder or a name to push, found {brief(name)}; {near(name, registry())}"
        )
    return Checkpoint.of_folder(folder, plugins)
