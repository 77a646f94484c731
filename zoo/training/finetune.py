"""Fine-tuning: a pretrained checkpoint adapted to a user's own images or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data.base import DataModule
from zoo.errors import ConfigError, DataError
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.examples import data_of, read_recipe_of
from zoo.training.recipe import build_data, make, override

MEASURED = Evaluation(k=100, num=1000)
"""How the numbers before and after are measured: shortly, since own data are few."""


def finetune(
    source: str,
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

    Prints the model's numbers on the held-out tenth of the data before and after.

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
    from zoo import checkpoint
    from zoo.catalog import Zoo

    model = Zoo.load(source)
    section: dict[str, Any] = {"path": str(Path(data).expanduser().resolve())}
    if Path(data).expanduser().is_dir():
        section |= {"class": "ImageFolder"}
        if resize:
            channels, height, width = getattr(model, "event_shape", (1, 1, 1))
            if height != width:
                raise ConfigError(
                    f"resize: expected a model of square images, found {height}x{width}; resize them yourself"
                )
            section |= {"size": height, "channels": channels}
        section |= {"skip_corrupt": True} if skip_corrupt else {}
        section |= {"binarize": True} if binarize else {}
    else:
        section |= {"class": "Arrays"}
    recipe = override(
        {
            "name": Path(folder).name,
            "start": source,
            "seed": 0,
            "data": section,
            "optimization": {"lr": 2e-4, "schedule": "cosine", "gradient_clip": 100.0},
            "trainer": {"max_epochs": epochs, "ema_decay": 0.99, "checkpoint_every": 100},
            "evaluation": {"k": MEASURED.k, "num": MEASURED.num},
        },
        overrides or {},
    )
    module = build_data(recipe["data"])
    _check_fit(source, model, module)
    before = {m.key: m for m in evaluate(model, module, MEASURED, progress=False)}
    result = make(recipe, folder, resume=resume)
    after = evaluate(Zoo.load(f"local-dir:{result}"), module, MEASURED, progress=False)
    for measurement in after:
        print(f"before: {before[measurement.key]}\nafter:  {measurement}")
    command = f"zoo evaluate local-dir:{result.name} --k {MEASURED.k} --num {MEASURED.num}"
    checkpoint.update(result, [{**measurement.to_dict(), "command": command} for measurement in after])
    return result


def _check_fit(source: str, model: Any, data: DataModule) -> None:
    """Shape and grey levels of the data against those that the model was trained on."""
    expected, found = tuple(model.event_shape), tuple(data.split("train").x.shape[1:])
    if found != expected:
        raise DataError(
            f"{data.name}: expected examples of shape {_shape(expected)} (channels x height x width) for {source}, found "
            f"{_shape(found)}; pass --resize to bring images to this shape"
        )
    levels = data_of(source, read_recipe_of(source)).levels
    if data.levels != levels:
        names = {2: "binary pixels", 256: "8-bit pixels", None: "continuous values"}
        advice = "pass --binarize, or an array of bool" if levels == 2 else "pass images, or an array of uint8"
        raise DataError(f"{data.name}: expected {names[levels]} for {source}, found {names[data.levels]}; {advice}")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
