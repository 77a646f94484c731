"""Writes checkpoint folders without losing anything: a new folder beside the old one, read back, then renamed."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from zoo.config import bind, brief, parse_yaml
from zoo.errors import CheckpointError, ConfigError, ZooError
from zoo.files import printable, sync, write_atomically, write_new
from zoo.measurement import Measurement
from zoo.store.checkpoint import (
    BEFORE_AFTER,
    CARD,
    CONFIG,
    CURVE,
    CURVE_TABLE,
    FILES,
    FORMAT,
    METRICS,
    RECIPE,
    SAMPLES,
    WEIGHTS,
    Card,
    Checkpoint,
    sha256,
)
from zoo.store.names import name_of
from zoo.store.weights import exported

if TYPE_CHECKING:
    from zoo.module import ZooModule

COMPILED = "_orig_mod."
"""Part of the names of weights in modules that `torch.compile` has wrapped; saving removes it."""


def save(
    model: ZooModule,
    folder: str | Path,
    *,
    card: Card,
    overwrite: bool = False,
    recipe: Mapping[str, Any] | str | None = None,
    numbers: Iterable[Measurement | Mapping[str, Any]] = (),
    dtype: Literal["float32", "float16"] = "float32",
) -> Checkpoint:
    """Writes a model as a checkpoint folder: all of it or, if anything fails, nothing.

    If the process is killed between the two renames at the end, the folder is missing, and the old folder lies beside
    it as `.NAME.old-TOKEN`.

    Args:
        model: The model; its class must be one that `Zoo.load` can find again.
        folder: The folder. It must not exist, unless `overwrite` is set and it holds nothing but a checkpoint.
        card: Function that writes the model card.
        overwrite: Whether to replace an existing checkpoint.
        recipe: The input of the run, as a mapping or as the text of a YAML file, whose comments are kept.
        numbers: Measurements of the model, or their records.
        dtype: Type of the floating-point tensors in the file; they load as float32.

    Raises:
        CheckpointError: The folder exists, the disk is full, or weights do not fit into `dtype`.
        ConfigError: `Zoo.load` could not find the class, or its arguments are not JSON-plain.
    """
    model, folder = getattr(model, "_orig_mod", model), Path(folder).resolve()  # what `torch.compile` wrapped
    if folder.exists():
        _check_overwrite(folder, overwrite)
    contents = _contents(model, recipe, numbers, dtype)
    token = secrets.token_hex(4)
    temporary, old = (folder.with_name(f".{folder.name}.{kind}-{token}") for kind in ("new", "old"))
    try:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            write_new(temporary / name, content)
        plugins = (name_of(type(model)).partition(":")[0],)
        saved = Checkpoint(f"local-dir:{folder.name}", temporary, temporary, plugins=plugins)
        saved.load()
        write_new(temporary / CARD, printable(card(saved)).encode())
        sync(temporary)
        if folder.exists():
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        with suppress(OSError):  # the new folder is in place
            sync(folder.parent)
    except OSError as exc:
        raise CheckpointError(
            f"{folder}: cannot be written: {exc.strerror or exc}; nothing was changed, make room or choose another "
            "folder"
        ) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return Checkpoint.of_folder(folder, plugins)


def update(
    checkpoint: Checkpoint,
    *,
    card: Card,
    numbers: Iterable[Measurement | Mapping[str, Any]] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Checkpoint:
    """Puts new numbers, and files such as `samples.png`, into a checkpoint folder, and rewrites its card.

    Each file is replaced in one step: an interrupted update may leave old files beside new ones, but never half a file.

    Args:
        checkpoint: The checkpoint.
        card: Function that writes the model card.
        numbers: Measurements that replace the old ones; None to keep the old ones.
        files: Contents by name: of the recipe and of pictures, such as `samples.png`.

    Returns:
        The checkpoint as it is now.

    Raises:
        CheckpointError: The folder cannot be written to.
        ConfigError: One of the files cannot be replaced.
    """
    folder, changed = checkpoint.folder, dict(files or {})
    replaceable = (RECIPE, SAMPLES, CURVE, CURVE_TABLE, BEFORE_AFTER)
    if unknown := changed.keys() - set(replaceable):
        raise ConfigError(
            f"{folder}: {min(unknown)!r} is not a file that can be replaced; expected one of {', '.join(replaceable)}"
        )
    if numbers is not None:
        changed[METRICS] = _metrics(checkpoint.weights_sha256, checkpoint.config_sha256, numbers)
    updated = replace(checkpoint)  # a copy that reads the files again
    try:
        for name, content in changed.items():
            write_atomically(folder / name, content)
        write_atomically(folder / CARD, printable(card(updated)).encode())
    except OSError as exc:
        state = "each file is as it was or as it shall be; make room, then repeat the command"
        raise CheckpointError(f"{folder}: cannot be written: {exc.strerror or exc}; {state}") from exc
    return updated


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
            _ = Checkpoint.of_folder(folder).class_name
        except ZooError as exc:  # other libraries have files of these names
            raise CheckpointError(f"{exc}; {folder} is not overwritten, since it is no checkpoint of the zoo") from None


def _contents(
    model: ZooModule,
    recipe: Mapping[str, Any] | str | None,
    numbers: Iterable[Measurement | Mapping[str, Any]],
    dtype: str,
) -> dict[str, bytes]:
    """Names and contents of the files, apart from the card."""
    from safetensors.torch import save as to_bytes

    if dtype not in ("float32", "float16"):
        raise ConfigError(f"save: dtype must be 'float32' or 'float16', found {brief(dtype)}")
    cls = type(model)
    state = {key.replace(COMPILED, ""): value for key, value in model.state_dict().items()}
    arguments = bind(cls, dict(model.hparams), f"save: arguments of {cls.__name__}")
    config = _json({"format_version": FORMAT, "class": name_of(cls), "arguments": arguments})
    tensors = {
        key: exported(key, value, "float32" if key in model.unrounded else dtype) for key, value in state.items()
    }
    weights = to_bytes(tensors, {"format": "pt"})
    contents = {CONFIG: config, WEIGHTS: weights, METRICS: _metrics(sha256(weights), sha256(config), numbers)}
    if recipe is not None:
        text = recipe if isinstance(recipe, str) else yaml.safe_dump(dict(recipe), sort_keys=False, width=120)
        parse_yaml(text, "save: recipe")
        contents[RECIPE] = text.encode()
    return contents


def _metrics(weights: str, config: str, numbers: Iterable[Measurement | Mapping[str, Any]]) -> bytes:
    rows = [number.to_dict() if isinstance(number, Measurement) else dict(number) for number in numbers]
    return _json({"format_version": FORMAT, "weights_sha256": weights, "config_sha256": config, "measurements": rows})


def _json(value: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"save: expected plain and finite values in configuration and metrics, found {exc}") from None
