"""One checkpoint folder: read it without trusting it, write it without losing anything.

    config.json         class and constructor arguments
    model.safetensors   the weights
    metrics.json        sha256 of both, and every measured number
    recipe.yaml         the input of the run that made it (optional)
    README.md           the model card, generated
    samples.png         a grid of samples (optional)
    curve.png           training loss and validation number against steps (optional)

Reading goes from what is cheap and safe to what is costly: names and sizes, the safetensors header, the schema of the
configuration, a sketch of the model without memory, keys and shapes, sha256, and only then tensors. No file can name
code outside the zoo, and nothing is ever unpickled. Writing fills a new folder beside the old one, reads it back, and
puts it in its place with a rename.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import inspect
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from zoo.config import MAX_BYTES, bind, brief, check, parse_json, parse_yaml, read_bytes
from zoo.errors import CheckpointError, ConfigError, ZooError
from zoo.store.weights import MAX_WEIGHTS, compare, exported, read_header

if TYPE_CHECKING:
    from zoo.capabilities import ZooModule

CONFIG, WEIGHTS, METRICS = "config.json", "model.safetensors", "metrics.json"
RECIPE, CARD, SAMPLES, CURVE = "recipe.yaml", "README.md", "samples.png", "curve.png"
FILES = (CONFIG, WEIGHTS, METRICS, RECIPE, CARD, SAMPLES, CURVE)
"""All that a checkpoint folder may hold."""

FORMAT = 1
MAX_CONFIG = 2**14  # bytes; those of the zoo have some hundred

_CLASS = re.compile(r"zoo((?:\.[a-z][a-z0-9_]*)+)\.([A-Z][A-Za-z0-9]*)", re.ASCII)
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def sha256(content: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Config:
    """What rebuilds a model: `config.json`, and its sha256."""

    class_name: str
    arguments: dict[str, Any]
    sha256: str


@dataclass(frozen=True)
class Metrics:
    """What is known of a checkpoint: `metrics.json`."""

    weights_sha256: str
    config_sha256: str
    measurements: list[dict[str, Any]]


def member(folder: Path, name: str, inside: Path | None = None) -> Path:
    """The path of a file of the folder, refused where a symbolic link leads out of `inside` (by default the folder)."""
    path = folder / name
    if not path.exists():
        state = f"has no {name}" if folder.exists() else "does not exist"
        if not folder.exists() and (left := sorted(folder.parent.glob(f".{glob.escape(folder.name)}.old-*"))):
            state += f", and a save that was killed has left {left[0]}, which can be renamed to it"
        if pickles := sorted(file.name for file in folder.glob("*") if file.suffix in _PICKLES):
            state += f" and {brief(pickles[0])} is a pickle, which could run code and is never opened"
        raise CheckpointError(f"{folder}: expected a checkpoint folder with {name}, but it {state}; check the path")
    if not path.resolve().is_relative_to((inside or folder).resolve()):
        raise CheckpointError(f"{path}: expected a file of the checkpoint, found a link that leads out of it")
    return path


def read_config(folder: Path, inside: Path | None = None) -> Config:
    """`config.json`; arguments are checked against the class only by `load`."""
    path = member(folder, CONFIG, inside)
    content = read_bytes(path, MAX_CONFIG, CheckpointError)
    hints = {"format_version": int, "class": str, "arguments": dict[str, Any]}
    fields = check(parse_json(content, str(path)), hints, str(path))
    if fields["format_version"] != FORMAT:
        found = brief(fields["format_version"])
        raise ConfigError(f"{path}: expected format_version {FORMAT}, found {found}; update the zoo")
    return Config(fields["class"], fields["arguments"], sha256(content))


def read_metrics(folder: Path, inside: Path | None = None) -> Metrics:
    """`metrics.json`."""
    path = member(folder, METRICS, inside)
    hints = {"format_version": int, "weights_sha256": str, "config_sha256": str, "measurements": list[dict[str, Any]]}
    fields = check(parse_json(read_bytes(path, MAX_BYTES, CheckpointError), str(path)), hints, str(path))
    for key in ("weights_sha256", "config_sha256"):
        if not _SHA256.fullmatch(fields[key]):
            raise ConfigError(f"{path}: {key} must be 64 hexadecimal digits, found {brief(fields[key])}")
    return Metrics(fields["weights_sha256"], fields["config_sha256"], fields["measurements"])


def read_recipe(folder: Path, inside: Path | None = None) -> str | None:
    """The text of `recipe.yaml`, or None where there is none."""
    if not (folder / RECIPE).exists():
        return None
    path = member(folder, RECIPE, inside)
    return read_bytes(path, MAX_BYTES, CheckpointError).decode("utf-8", "replace")


def load(
    folder: str | Path,
    *,
    device: str = "cpu",
    inside: Path | None = None,
    weights_sha256: str | None = None,
    config_sha256: str | None = None,
) -> ZooModule:
    """The model in a checkpoint folder, in evaluation mode and float32.

    Args:
        device: where to put it.
        inside: the files may be symbolic links to files inside this folder; by default, inside `folder`.
        weights_sha256, config_sha256: what the files must be, besides what `metrics.json` says.

    Raises:
        CheckpointError, ConfigError: one line; no tensor has been read where the folder is not what it promises.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as read_tensors

    from zoo.store.building import build, sketch

    folder = Path(folder)
    target = device_of(device)
    config, metrics = read_config(folder, inside), read_metrics(folder, inside)
    where, path = str(folder / CONFIG), member(folder, WEIGHTS, inside)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file, found something else")
    with path.open("rb") as file:
        header = read_header(file, str(path))
        cls = find_class(config.class_name, where)
        arguments = bind(cls, config.arguments, f"{where}: arguments")
        for record in {metrics.config_sha256, config_sha256 or metrics.config_sha256}:
            _compare(where, record, config.sha256)
        compare(str(path), header, sketch(cls, arguments, where))
        file.seek(0)
        content = file.read(min(os.fstat(file.fileno()).st_size, MAX_WEIGHTS))
    for record in {metrics.weights_sha256, weights_sha256 or metrics.weights_sha256}:
        _compare(str(path), record, sha256(content))
    model = build(cls, arguments)
    try:
        model.load_state_dict(read_tensors(content), strict=True)
    except (SafetensorError, RuntimeError) as exc:
        raise CheckpointError(f"{path}: {str(exc).splitlines()[0][:200]}; fetch it again") from exc
    model.pretrained = True
    return model.eval().to(target)


def device_of(device: str) -> Any:
    """The `torch.device` of that name; ConfigError where this machine has none."""
    import torch

    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, TypeError) as exc:
        reason = str(exc).splitlines()[0].split(". ")[0]  # the first sentence
        raise ConfigError(
            f"device: expected one of this machine, such as 'cpu', found {brief(device)}: {reason}"
        ) from None
    return target


def _compare(where: str, expected: str, found: str) -> None:
    if expected != found:
        found = f"sha256 {expected[:12]}..., found {found[:12]}..."
        raise CheckpointError(f"{where}: expected {found}; the file was damaged or altered, fetch it again")


def find_class(name: str, where: str) -> type[ZooModule]:
    """The model class that `name` means, such as `zoo.vae.vae.VAE`.

    Only a module file inside the zoo package is ever imported, and only if it defines a class of this name.

    Raises:
        ConfigError: the name means anything else.
    """
    import zoo

    found = _CLASS.fullmatch(name) if isinstance(name, str) and len(name) < 200 else None
    if found is None:
        raise ConfigError(f"{where}: expected a class of the zoo such as 'zoo.vae.vae.VAE', found {brief(name)}")
    module, title = name.rpartition(".")[0], found[2]
    files = [Path(root, *found[1][1:].split(".")).with_suffix(".py") for root in zoo.__path__]
    source = next((file.read_text("utf-8") for file in files if file.is_file()), "")
    if re.search(rf"^class {title}\b", source, re.MULTILINE) is None:
        raise ConfigError(f"{where}: the zoo has no class {name!r}; it may need a newer version of the zoo")
    from zoo.capabilities import ZooModule

    cls = getattr(importlib.import_module(module), title)
    if not (issubclass(cls, ZooModule) and not inspect.isabstract(cls)):
        raise ConfigError(f"{where}: expected a model, found {name!r}, which is none")
    return cls


# ------------------------------------------------------------------------------------------------------------ writing


def save(
    model: ZooModule,
    folder: str | Path,
    *,
    overwrite: bool = False,
    recipe: Mapping[str, Any] | str | None = None,
    measurements: Iterable[Any] = (),
    dtype: Literal["float32", "float16"] = "float32",
) -> Path:
    """Write `model` as a checkpoint folder: all of it or, whatever fails, nothing.

    A kill between the two renames at its end leaves no folder, and the old one beside it under a name with a dot.

    Args:
        folder: refused if it exists, unless `overwrite` is set and it holds nothing but a checkpoint.
        recipe: the input of the run, as a mapping or as the text of a YAML file, which keeps its comments.
        measurements: `zoo.metrics.Measurement`s or their dicts.
        dtype: of floating-point tensors in the file; they load as float32.

    Returns:
        The folder.

    Raises:
        CheckpointError: the folder exists, the disk is full, or weights do not fit into `dtype`.
        ConfigError: the class is not one of the zoo, or its arguments are not JSON-plain.
    """
    folder = Path(folder).resolve()
    if folder.exists():
        _check_overwrite(folder, overwrite)
    contents = _contents(model, recipe, measurements, dtype)
    token = secrets.token_hex(4)
    temporary, old = (folder.with_name(f".{folder.name}.{kind}-{token}") for kind in ("new", "old"))
    try:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            _write(temporary / name, content)
        load(temporary)
        from zoo.store.card import render_card

        _write(temporary / CARD, render_card(temporary, name=folder.name).encode())
        _sync(temporary)
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        with suppress(OSError):  # the new folder is in place
            _sync(folder.parent)
    except OSError as exc:
        raise _unwritten(folder, exc) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def update(
    folder: str | Path, measurements: Iterable[Any] | None = None, files: Mapping[str, bytes] | None = None
) -> None:
    """Put new numbers, and files such as `samples.png`, into a checkpoint folder, and rewrite its card.

    Each file is replaced in one step: an interrupted update leaves old files and new ones, and never half a file.
    """
    folder = Path(folder)
    record = read_metrics(folder)
    changed = dict(files or {})
    replaceable = (RECIPE, SAMPLES, CURVE)
    if unknown := changed.keys() - set(replaceable):
        raise ConfigError(
            f"{folder}: {min(unknown)!r} is not a file that can be replaced; expected one of {', '.join(replaceable)}"
        )
    if measurements is not None:
        changed[METRICS] = _metrics(record.weights_sha256, record.config_sha256, measurements)
    from zoo.store.card import render_card

    try:
        for name, content in changed.items():
            _replace(folder / name, content)
        _replace(folder / CARD, render_card(folder).encode())
    except OSError as exc:
        state = "each file is as it was or as it shall be; make room, then repeat the command"
        raise CheckpointError(f"{folder}: cannot be written: {exc.strerror or exc}; {state}") from exc


def _unwritten(folder: Path, exc: OSError) -> CheckpointError:
    return CheckpointError(
        f"{folder}: cannot be written: {exc.strerror or exc}; nothing was changed, make room or choose another folder"
    )


def _check_overwrite(folder: Path, overwrite: bool) -> None:
    if not overwrite:
        raise CheckpointError(f"{folder}: exists already; choose another folder, or overwrite it (overwrite=True)")
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: expected a checkpoint folder to overwrite, found a file; choose another folder"
        )
    # a killed `update` leaves `.NAME.new-TOKEN`, which was to become NAME
    names = {path.name: re.sub(r"^\.(.+)\.new-[0-9a-f]{8}$", r"\1", path.name) for path in folder.iterdir()}
    if foreign := sorted(name for name, becomes in names.items() if becomes not in FILES):
        raise CheckpointError(
            f"{folder}: holds {brief(foreign[0])}, which is no file of a checkpoint; choose another folder"
        )
    if names:
        try:
            read_config(folder)
        except ZooError as exc:  # other libraries have files of these names
            raise CheckpointError(f"{exc}; {folder} is not overwritten, since it is no checkpoint of the zoo") from None


def _contents(
    model: ZooModule, recipe: Mapping[str, Any] | str | None, measurements: Iterable[Any], dtype: str
) -> dict[str, bytes]:
    """File names and contents, apart from the card."""
    from safetensors.torch import save as to_bytes

    if dtype not in ("float32", "float16"):
        raise ConfigError(f"save: dtype must be 'float32' or 'float16', found {brief(dtype)}")
    cls = type(model)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if find_class(name, "save") is not cls:
        raise ConfigError(f"save: {name} is not the class of this model, which was defined elsewhere")
    arguments = bind(cls, dict(model.hparams), f"save: arguments of {cls.__name__}")
    config = _json({"format_version": FORMAT, "class": name, "arguments": arguments})
    tensors = {
        key: exported(key, value, "float32" if key in model.unrounded else dtype)
        for key, value in model.state_dict().items()
    }
    weights = to_bytes(tensors, {"format": "pt"})
    contents = {CONFIG: config, WEIGHTS: weights, METRICS: _metrics(sha256(weights), sha256(config), measurements)}
    if recipe is not None:
        text = recipe if isinstance(recipe, str) else yaml.safe_dump(dict(recipe), sort_keys=False, width=120)
        parse_yaml(text, "save: recipe")
        contents[RECIPE] = text.encode()
    return contents


def _metrics(weights: str, config: str, measurements: Iterable[Any]) -> bytes:
    rows = [entry if isinstance(entry, dict) else entry.to_dict() for entry in measurements]
    return _json({"format_version": FORMAT, "weights_sha256": weights, "config_sha256": config, "measurements": rows})


def _json(value: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"save: expected plain and finite values in configuration and metrics, found {exc}") from None


def _write(path: Path, content: bytes) -> None:
    """Write a new file to the disk itself, so that a full disk shows here."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new-{secrets.token_hex(4)}")
    try:
        _write(temporary, content)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make renames in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
