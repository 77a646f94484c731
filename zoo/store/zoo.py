"""Zoo: from a name to a model, and from a model to a folder."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.config import brief, expand, near
from zoo.errors import CheckpointError, ConfigError
from zoo.store import checkpoint, hub
from zoo.store import registry as records
from zoo.store.registry import Entry, describe, registry

if TYPE_CHECKING:
    from zoo.capabilities import ZooModule

LOCAL = "local-dir:"
LICENCE = "mit"
"""Of the checkpoints that come with the zoo."""


@dataclass(frozen=True)
class Info:
    """What is known of a checkpoint; prints as a page.

    Attributes:
        source: what `Zoo.load` takes.
        class_name: of the model.
        family: part of the zoo that holds the class.
        capabilities: names of its types, the most specific first.
        data: name of the data set that it was trained on.
        size: of the weights, in bytes.
        licence: of a checkpoint that comes with the zoo, else None.
        folder: where its files are.
        numbers: the measurements in `metrics.json`.
        recipe: the text of `recipe.yaml`, if it has one.
    """

    source: str
    class_name: str
    family: str
    capabilities: list[str]
    data: str
    size: int
    licence: str | None
    folder: str
    numbers: list[dict[str, Any]]
    recipe: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-plain."""
        return asdict(self)

    def __str__(self) -> str:
        from zoo.measurement import Measurement

        lines = [
            self.source,
            f"  class         {self.class_name}",
            f"  capabilities  {', '.join(self.capabilities)}",
            f"  data          {self.data}",
            f"  size          {self.size / 1e6:.2f} MB",
            *([f"  licence       {self.licence}"] if self.licence else []),
            f"  folder        {self.folder}",
            "  numbers",
        ]
        for number in map(Measurement.from_dict, self.numbers):
            lines += [f"    {number}", *([f"      by class: {number.by_class}"] if number.by_class else [])]
        if self.recipe is not None:
            lines += ["  recipe", *(f"    {line}" for line in self.recipe.splitlines())]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Place:
    """Where a source leads: a folder, the folder that its links may lead into, and what the registry says of it."""

    folder: Path
    inside: Path | None = None
    entry: Entry | None = None


def locate(source: str) -> _Place:
    """From a source to a folder: the shipped one, the one in the Hub cache, or one downloaded now."""
    if not isinstance(source, str):
        raise ConfigError(f"expected the name of a checkpoint, found {brief(source)}; see Zoo.list()")
    if source.startswith(LOCAL):
        return _Place(expand(source.removeprefix(LOCAL)))
    if source.startswith(hub.PREFIX):
        folder = hub.fetch(*hub.parse_source(source))
        return _Place(folder, hub.cache_of(folder))
    entry = registry().get(source)
    if entry is None:
        if re.search(r"[/\\]|^[.~]", source):
            hint = f"write '{LOCAL}{source[:100]}' for a folder, '{hub.PREFIX}user/repository@revision' for the Hub"
        else:
            hint = near(source, registry())
        raise ConfigError(f"no checkpoint is called {brief(source)}; {hint}")
    folder = records.SHIPPED / source
    if (folder / checkpoint.CONFIG).exists():
        return _Place(folder, entry=entry)
    if entry.repo is None or entry.revision is None:
        raise CheckpointError(
            f"{folder}: the folder of {source!r} is missing and it is not on the Hub; install the zoo anew"
        )
    folder = hub.fetch(entry.repo, entry.revision)
    return _Place(folder, hub.cache_of(folder), entry)


class Zoo:
    """The pretrained models and the way in and out of checkpoint folders.

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
            pattern: with `*` and `?`, such as "vae-*".
            capability: a type of `zoo.capabilities` or its name, such as "EvidenceLowerBound".
            data: name of a data set, such as "binarized-mnist".
            family: part of the zoo, such as "autoregressive".

        Raises:
            ConfigError: no checkpoint has this capability, data set or family.
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
    def info(source: str) -> Info:
        """What is known of a checkpoint: numbers, recipe, size, licence.

        Raises:
            ZooError: as `load`.
        """
        place = locate(source)
        entry = place.entry or describe(place.folder, place.inside)
        return Info(
            source=source,
            class_name=entry.class_name,
            family=entry.family,
            capabilities=entry.capabilities,
            data=entry.data,
            size=entry.size,
            licence=LICENCE if place.entry else None,
            folder=str(place.folder),
            numbers=checkpoint.read_metrics(place.folder, place.inside).measurements,
            recipe=checkpoint.read_recipe(place.folder, place.inside),
        )

    @staticmethod
    def load(source: str, *, device: str = "cpu") -> ZooModule:
        """A model with its weights, in evaluation mode.

        Weights are verified by sha256 before a tensor is read; a configuration can name only classes of the zoo;
        nothing is unpickled. Shipped and cached checkpoints need no network.

        Args:
            source: see `Zoo`.
            device: such as "cuda".

        Raises:
            ConfigError: no such name, or a configuration that no model of the zoo has.
            CheckpointError: files are missing, damaged or do not belong together.
            DownloadError: it is not here and could not be fetched.
        """
        place = locate(source)
        entry = place.entry
        return checkpoint.load(
            place.folder,
            device=device,
            inside=place.inside,
            weights_sha256=entry.weights_sha256 if entry else None,
            config_sha256=entry.config_sha256 if entry else None,
        )

    @staticmethod
    def save(
        model: ZooModule,
        folder: str | Path,
        *,
        overwrite: bool = False,
        recipe: Mapping[str, Any] | str | None = None,
        measurements: Iterable[Any] = (),
        dtype: Literal["float32", "float16"] = "float32",
    ) -> Path:
        """Writes a checkpoint folder, all of it or nothing; `Zoo.load(f"local-dir:{folder}")` reads it.

        Args:
            folder: refused if it exists, unless `overwrite` is set and it holds nothing but a checkpoint.
            recipe: the input of the run that made the model, as a mapping or as YAML text.
            measurements: its numbers.
            dtype: of the weights in the file; "float16" halves its size.

        Raises:
            CheckpointError: the folder exists, or could not be written; what was there before still is.
            ConfigError: the class is not one of the zoo, or its arguments are not JSON-plain.
        """
        return checkpoint.save(
            model, folder, overwrite=overwrite, recipe=recipe, measurements=measurements, dtype=dtype
        )

    @staticmethod
    def push(source: str | Path, repo: str, *, private: bool = False, pull_request: bool = False) -> hub.Pushed:
        """Publishes a checkpoint on the Hugging Face Hub; see `zoo.store.hub.push` for commits, tags and tokens.

        Args:
            source: a checkpoint folder, with or without `local-dir:`, or the name of a pretrained checkpoint. Its
                recipe is published too, and with it the path of your own data.
            repo: "user/name"; created if there is none.
            private: visible to its owner alone.
            pull_request: propose the commit to an existing repository.

        Raises:
            ConfigError: no such name or folder, or no such name of a repository.
            CheckpointError: not a sound checkpoint; nothing was sent.
            UploadError: the Hub refused or did not answer.
        """
        name = str(source)
        if isinstance(source, str) and name in registry():
            shipped = records.SHIPPED / name
            if Path(name).is_dir() and not Path(name).samefile(shipped):
                raise ConfigError(
                    f"{name!r} is a pretrained checkpoint, and here a folder too; write '{LOCAL}{name}' for the folder"
                )
            Zoo.load(name)  # it is also what the registry says
            return hub.push(shipped, repo, private=private, pull_request=pull_request)
        folder = expand(name.removeprefix(LOCAL))
        if not folder.is_dir():
            raise ConfigError(
                f"expected a checkpoint folder or a name to push, found {brief(name)}; {near(name, registry())}"
            )
        return hub.push(folder, repo, private=private, pull_request=pull_request)

    @staticmethod
    def push_all(namespace: str, *, private: bool = False) -> Iterator[hub.Pushed]:
        """Publishes every shipped checkpoint as `namespace/NAME` and pins its commit in the registry, one by one.

        Repeated after an interruption it goes on: what lies there unchanged is not sent again.

        Raises:
            ZooError: as `push`, or a folder is not in the registry, or it cannot be written.
        """
        if unknown := sorted(set(records.shipped_names()) - registry().keys()):
            raise ConfigError(
                f"{unknown[0]}: is not in the registry; nothing was sent, run `python -m zoo.store.registry`"
            )
        for name in sorted(registry().keys() & records.shipped_names()):
            pushed = Zoo.push(name, f"{namespace}/{name}", private=private)
            records.pin(name, f"{namespace}/{name}", pushed.commit)
            yield pushed
