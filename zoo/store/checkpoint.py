"""A checkpoint as a value: it is made once from its folder, passed around, and read without trusting its files.

    config.json         class and constructor arguments
    model.safetensors   the weights
    metrics.json        sha256 of both, and every measured number
    recipe.yaml         the input of the run that made the checkpoint (optional)
    README.md           the model card, generated
    samples.png         a grid of samples (optional)
    before_after.png    samples before and after fine-tuning, beside training images (optional)
    curve.png           training loss and validation number against steps (optional)
    curve.csv           the numbers in curve.png (optional)

Reading starts with cheap and safe checks and ends with costly ones: names and sizes, the safetensors header, the schema
of the configuration, a sketch of the model without memory, keys and shapes, sha256, and only then tensors. A file can
name code only in the zoo, or in packages that the caller names, and nothing is ever unpickled.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.config import MAX_BYTES, bind, brief, check, parse_json, parse_yaml, read_bytes
from zoo.errors import CheckpointError, ConfigError, DataError
from zoo.files import expand
from zoo.measurement import Measurement
from zoo.store.names import find_class, modern
from zoo.store.registry import LICENCE, Entry
from zoo.store.weights import MAX_WEIGHTS, compare, read_header

if TYPE_CHECKING:
    from zoo.data.base import DataModule
    from zoo.module import ZooModule

CONFIG, WEIGHTS, METRICS = "config.json", "model.safetensors", "metrics.json"
RECIPE, CARD, SAMPLES, CURVE = "recipe.yaml", "README.md", "samples.png", "curve.png"
BEFORE_AFTER, CURVE_TABLE = "before_after.png", "curve.csv"
FILES = (CONFIG, WEIGHTS, METRICS, RECIPE, CARD, SAMPLES, CURVE, CURVE_TABLE, BEFORE_AFTER)
"""All that a checkpoint folder may hold."""

FORMAT = 2
"""Version of the files; version 1, which named the path of the class, is still read."""
MAX_CONFIG = 2**14  # bytes; the zoo's own files have a few hundred

_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class _Config(NamedTuple):
    class_name: str
    arguments: dict[str, Any]
    sha256: str


class _Record(NamedTuple):
    weights_sha256: str
    config_sha256: str
    measurements: list[dict[str, Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder. Each file is read and checked once, when it is first needed.

    Every attribute may raise a ZooError that says which file is missing, damaged or not what it should be.

    Args:
        source: The source that the user gave: a name, `local-dir:PATH`, or `hf-hub:user/repository@revision`.
        folder: The folder that holds the files.
        root: The folder that symbolic links among the files must not leave.
        entry: The entry in the registry; None unless this is a pretrained checkpoint of the zoo.
        plugins: Names of the installed packages whose classes the user trusts; see `Zoo.load`.
    """

    source: str
    folder: Path
    root: Path
    entry: Entry | None = None
    plugins: tuple[str, ...] = ()

    @classmethod
    def of_folder(cls, folder: str | Path, plugins: Collection[str] = ()) -> Checkpoint:
        """The checkpoint in a folder on this machine."""
        path = expand(folder)
        return cls(f"local-dir:{folder}", path, path, plugins=tuple(plugins))

    # -------------------------------------------------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        """The name of a pretrained checkpoint, or else the name of the folder."""
        return self.source if self.entry else self.folder.resolve().name

    @property
    def class_name(self) -> str:
        """The class of the model, such as `vae.VAE`."""
        return self._config.class_name

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's constructor arguments, JSON-plain; only `load` checks them against the class."""
        return self._config.arguments

    @property
    def family(self) -> str:
        """The family of the zoo that exports the class, such as `vae`, or the name of the package that does."""
        return re.split("[.:]", self.class_name)[0]

    @cached_property
    def capabilities(self) -> list[str]:
        """Names of the capabilities of the class, the most specific first."""
        return self.entry.capabilities if self.entry else capabilities_of(self.model_class())

    @cached_property
    def data_name(self) -> str:
        """Name of the training data set: from the first number, or else from the recipe, or else "unknown"."""
        if self.entry:
            return self.entry.data
        for number in self.numbers:
            return number.data
        section = self.settings.get("data")
        return str(section.get("class")) if isinstance(section, dict) else "unknown"

    @property
    def size(self) -> int:
        """Size of the weights in bytes."""
        return self.path(WEIGHTS).stat().st_size

    @property
    def weights_sha256(self) -> str:
        """sha256 of the weights according to `metrics.json`."""
        return self._record.weights_sha256

    @property
    def config_sha256(self) -> str:
        """sha256 of `config.json` according to `metrics.json`."""
        return self._record.config_sha256

    @property
    def licence(self) -> str | None:
        """The licence of a pretrained checkpoint of the zoo; None for any other checkpoint."""
        return LICENCE if self.entry else None

    @cached_property
    def numbers(self) -> list[Measurement]:
        """The measurements in `metrics.json`."""
        where = f"{self.folder}: measurement"
        return [Measurement.from_dict(record, where) for record in self._record.measurements]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The measurements as recorded in `metrics.json`, each with the command that recomputes it."""
        return self._record.measurements

    @property
    def commands(self) -> list[str]:
        """The commands that recompute the numbers, each once, for this source."""
        recorded = [str(record.get("command", "zoo evaluate NAME")).split() for record in self._record.measurements]
        return list(dict.fromkeys(" ".join(["zoo evaluate", self.source, *words[3:]]) for words in recorded))

    @cached_property
    def recipe(self) -> str | None:
        """The text of `recipe.yaml`, or None if there is none."""
        if not (self.folder / RECIPE).exists():
            return None
        return read_bytes(self.path(RECIPE), MAX_BYTES, CheckpointError).decode("utf-8", "replace")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe as a mapping; empty if there is none."""
        return parse_yaml(self.recipe or "{}", f"{self.source}: recipe")

    def to_dict(self) -> dict[str, Any]:
        """All facts about the checkpoint, JSON-plain."""
        names = ("source", "class_name", "family", "capabilities", "data_name", "size", "licence", "recipe")
        facts = {name: getattr(self, name) for name in names}
        return {**facts, "folder": str(self.folder), "numbers": [number.to_dict() for number in self.numbers]}

    def __str__(self) -> str:
        lines = [
            self.source,
            f"  class         {self.class_name}",
            f"  capabilities  {', '.join(self.capabilities)}",
            f"  data          {self.data_name}",
            f"  size          {self.size / 1e6:.2f} MB",
            *([f"  licence       {self.licence}"] if self.licence else []),
            f"  folder        {self.folder}",
            "  numbers",
        ]
        for number in self.numbers:
            lines += [f"    {number}", *([f"      by class: {number.by_class}"] if number.by_class else [])]
        if self.recipe is not None:
            lines += ["  recipe", *(f"    {line}" for line in self.recipe.splitlines())]
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------------------ what it is

    def model_class(self) -> type[ZooModule]:
        """The class of the model."""
        return find_class(self.class_name, str(self.folder / CONFIG), self.plugins)

    @cached_property
    def classes(self) -> list[str] | None:
        """Names of the classes in the order of the labels, from the recipe or from its published data set, else None.

        The data themselves are not read.
        """
        import zoo.data

        section = self.settings.get("data")
        section = section if isinstance(section, dict) else {}
        named = section.get("classes") or getattr(getattr(zoo.data, str(section.get("class")), None), "classes", None)
        return [str(name) for name in named] if isinstance(named, list | tuple) else None

    def data(self) -> DataModule:
        """The training data, as the recipe describes them.

        Raises:
            ConfigError: There is no recipe, or it does not name the data.
            DataError: The data are the user's own and are no longer where they were.
        """
        from zoo.data import build

        if "data" not in self.settings:
            raise ConfigError(f"{self.source}: expected a recipe that says which data it was made from, found none")
        try:
            return build(self.settings["data"], self.settings.get("seed", 0))
        except DataError as error:
            raise DataError(f"{self.source}: this needs the data that it was made from: {error}") from error

    def load(self, *, device: str = "cpu") -> ZooModule:
        """Returns the model with its weights, in evaluation mode and float32.

        No tensor is read before the files have passed all checks.

        Args:
            device: Where to put the model, such as "cuda".

        Raises:
            CheckpointError: A file is missing or damaged, or the files do not belong together.
            ConfigError: The device, the class or its arguments are invalid.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load as read_tensors

        from zoo.store.building import build, device_of, sketch

        target, where = device_of(device), str(self.folder / CONFIG)
        config, record, path = self._config, self._record, self.path(WEIGHTS)
        if not path.is_file():
            raise CheckpointError(f"{path}: expected a file, found something else")
        with path.open("rb") as file:
            header = read_header(file, str(path))
            cls = self.model_class()
            arguments = bind(cls, config.arguments, f"{where}: arguments")
            for promised in {record.config_sha256, self.entry.config_sha256 if self.entry else record.config_sha256}:
                _compare(where, promised, config.sha256)
            compare(str(path), header, sketch(cls, arguments, where))
            file.seek(0)
            content = file.read(min(os.fstat(file.fileno()).st_size, MAX_WEIGHTS))
        for promised in {record.weights_sha256, self.entry.weights_sha256 if self.entry else record.weights_sha256}:
            _compare(str(path), promised, sha256(content))
        model = build(cls, arguments)
        try:
            model.load_state_dict(read_tensors(content), strict=True)
        except (SafetensorError, RuntimeError) as exc:
            raise CheckpointError(f"{path}: {str(exc).splitlines()[0][:200]}; fetch it again") from exc
        model.pretrained = True
        return model.eval().to(target)

    # ------------------------------------------------------------------------------------------------------ its files

    def path(self, name: str) -> Path:
        """The path of one of the files.

        Raises:
            CheckpointError: There is no such file, or it is a symbolic link that leads out of `root`.
        """
        folder, path = self.folder, self.folder / name
        if not path.exists():
            state = f"has no {name}" if folder.exists() else "does not exist"
            if not folder.exists() and (left := sorted(folder.parent.glob(f".{glob.escape(folder.name)}.old-*"))):
                state += f", and a save that was killed has left {left[0]}, which can be renamed to it"
            if pickles := sorted(file.name for file in folder.glob("*") if file.suffix in _PICKLES):
                state += f" and {brief(pickles[0])} is a pickle, which could run code and is never opened"
            raise CheckpointError(f"{folder}: expected a checkpoint folder with {name}, but it {state}; check the path")
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise CheckpointError(f"{path}: expected a file of the checkpoint, found a link that leads out of it")
        return path

    @cached_property
    def _config(self) -> _Config:
        path = self.path(CONFIG)
        content = read_bytes(path, MAX_CONFIG, CheckpointError)
        hints = {"format_version": int, "class": str, "arguments": dict[str, Any]}
        fields = check(parse_json(content, str(path)), hints, str(path))
        _check_format(fields["format_version"], path)
        return _Config(str(modern(fields["class"])), fields["arguments"], sha256(content))

    @cached_property
    def _record(self) -> _Record:
        path, hints = self.path(METRICS), {"weights_sha256": str, "config_sha256": str}
        content = parse_json(read_bytes(path, MAX_BYTES, CheckpointError), str(path))
        fields = check(content, {"format_version": int, **hints, "measurements": list[dict[str, Any]]}, str(path))
        _check_format(fields["format_version"], path)
        for key in hints:
            if not _SHA256.fullmatch(fields[key]):
                raise ConfigError(f"{path}: {key} must be 64 hexadecimal digits, found {brief(fields[key])}")
        return _Record(fields["weights_sha256"], fields["config_sha256"], fields["measurements"])


Card = Callable[[Checkpoint], str]
"""Writes the model card of a checkpoint; see `zoo.store.card`."""


def capabilities_of(cls: type) -> list[str]:
    """Names of the capabilities that a model class inherits, the most specific first."""
    homes = ("zoo.capabilities", "zoo.unnormalized", "zoo.module")
    return [base.__name__ for base in cls.__mro__ if base.__module__ in homes and base.__name__ != "ZooModule"]


def sha256(content: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def _check_format(version: int, path: Path) -> None:
    if not 1 <= version <= FORMAT:
        raise ConfigError(f"{path}: expected format_version 1 to {FORMAT}, found {brief(version)}; update the zoo")


def _compare(where: str, expected: str, found: str) -> None:
    if expected != found:
        raise CheckpointError(
            f"{where}: expected sha256 {expected[:12]}..., found {found[:12]}...; the file was damaged or altered, "
            "fetch it again"
        )
