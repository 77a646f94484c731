"""Fine-tuning: a pretrained checkpoint adapted to a user's own images or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.capabilities import ZooModule
from zoo.config import bind
from zoo.data.base import DataModule, levels_title
from zoo.data.own import SUFFIXES
from zoo.distributed import join, on_leader
from zoo.errors import ConfigError, DataError
from zoo.files import expand
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.examples import check_classes
from zoo.store.checkpoint import Checkpoint
from zoo.store.source import checkpoint
from zoo.store.zoo import Zoo
from zoo.training.recipe import build_data, check_absent, make, override


def finetune(
    source: str | Checkpoint,
    data: str | Path,
    folder: str | Path,
    *,
    epochs: int = 10,
    resize: bool = False,
    binarize: bool = False,
    skip_corrupt: bool = False,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Adapts a checkpoint to own data; the result is a checkpoint folder like any other.

    Prints the model's numbers on the held-out tenth of the data before and after, and records them in the folder.

    Args:
        source: what `Zoo.load` takes.
        data: a folder of images (folders inside it are labels), or an .npz or .npy file.
        folder: where the result goes; must not exist. The run itself is kept in `<folder>.run`.
        epochs: passes over the data.
        resize: bring images to the size and channels of the model.
        binarize: make pixels black or white, for models of binary data.
        skip_corrupt: leave out files that cannot be decoded.
        resume: go on with the run in `<folder>.run`.
        overrides: dotted keys of the recipe, such as {"optimization.lr": 1e-4}.

    Returns:
        The folder.

    Raises:
        DataError: the data are missing, damaged, or do not have the model's shape.
        ConfigError: an unknown checkpoint or setting, or `folder` is in the way.
    """
    folder, path = Path(folder), expand(data).resolve()
    join()
    on_leader(lambda: check_absent(folder))
    if epochs < 1:
        raise ConfigError(f"epochs: expected at least 1, found {epochs}")
    start = source if isinstance(source, Checkpoint) else checkpoint(source)
    model = start.load()
    recipe = override(
        {
            "name": folder.name,
            "start": start.source,
            "seed": 0,
            "data": own_section(model, path, resize, binarize, skip_corrupt),
            "optimization": {"lr": 2e-4, "schedule": "cosine", "gradient_clip": 100.0},
            "trainer": {"max_epochs": epochs, "ema_decay": 0.99, "checkpoint_every": 100},
            "evaluation": {"k": 100, "num": 1000},  # own data are few
        },
        overrides or {},
    )
    module = build_data(recipe["data"], recipe["seed"])
    settings = Evaluation(**bind(Evaluation, recipe["evaluation"] or {}, "evaluation"))
    check_fit(start, model, module)
    check_classes(model, module)
    result = make(recipe, folder, resume=resume, data=module)
    before, after = (evaluate(m, module, settings) for m in (model, result.load()))

    def record() -> None:
        rows = []
        for old, new in zip(before, after, strict=True):
            print(f"before: {old}\nafter:  {new}")
            row = replace(new, details=new.details | {"before": old.value})
            rows.append({**row.to_dict(), "command": f"zoo evaluate local-dir:{result.name}"})
        Zoo.update(result, rows)

    on_leader(record)
    return result.folder


def own_section(model: ZooModule, path: Path, resize: bool, binarize: bool, skip_corrupt: bool) -> dict[str, Any]:
    """The section `data` of a recipe for own data, in the model's size where they are resized.

    Raises:
        ConfigError: an option that arrays do not have, or a model of images that are not square.
    """
    options = {"resize": resize, "binarize": binarize, "skip_corrupt": skip_corrupt}
    if not path.is_dir():
        is_array = path.exists() and path.suffix.lower() not in SUFFIXES  # else Arrays says what is wrong
        if is_array and (given := [name for name, value in options.items() if value]):
            raise ConfigError(f"{path}: {given[0]} is for a folder of images, found no folder; prepare arrays yourself")
        return {"class": "Arrays", "path": str(path)}
    section: dict[str, Any] = {"class": "ImageFolder", "path": str(path)}
    if resize:
        channels, height, width = _event_shape(model)
        if height != width:
            raise ConfigError(
                f"resize: expected a model of square images, found {height}x{width}; resize them yourself"
            )
        section |= {"size": height, "channels": channels}
    return section | {name: True for name in ("binarize", "skip_corrupt") if options[name]}


def check_fit(start: Checkpoint, model: ZooModule, data: DataModule) -> None:
    """Shape and grey levels of the data against those that the model was trained on.

    Raises:
        DataError: they differ.
    """
    expected, found = _event_shape(model), tuple(data.event_shape)
    if found != expected:
        raise DataError(
            f"{data.name}: expected examples of shape {_title(expected)} (channels x height x width) for "
            f"{start.source}, found {_title(found)}; pass --resize (resize=True) to bring images to this shape"
        )
    try:
        levels = start.data().levels
    except (ConfigError, DataError):  # no recipe, or own data that stayed on another machine: nothing to compare with
        return
    if data.levels != levels:
        advice = {2: "pass --binarize, or an array of bool", 256: "pass images, or an array of uint8"}
        raise DataError(
            f"{data.name}: expected {levels_title(levels)} for {start.source}, found {levels_title(data.levels)}; "
            f"{advice.get(levels or 0, 'pass an array of floats')}"
        )


def _event_shape(model: ZooModule) -> tuple[int, ...]:
    return tuple(model.event_shape)  # type: ignore[arg-type]


def _title(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
