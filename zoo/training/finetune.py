"""Fine-tuning of a pretrained checkpoint on your own images or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.config import bind
from zoo.data.own import own_section
from zoo.distributed import join, on_leader
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.examples import check_classes, check_like, shape_of
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
    """Fine-tunes a checkpoint on your own data. The result is a checkpoint folder like any other.

    A tenth of the data is held out. The numbers of the model on it, before and after, are printed and recorded in the
    folder.

    Args:
        source: A checkpoint, or a source that `Zoo.load` takes.
        data: A folder of images, where folders inside it are labels, or an .npz or .npy file.
        folder: The new checkpoint folder, which must not exist. The run itself is kept in `<folder>.run`.
        epochs: Number of passes over the data.
        resize: Whether to convert images to the size and channels of the model.
        binarize: Whether to make pixels black or white, for models of binary data.
        skip_corrupt: Whether to leave out files that cannot be decoded.
        resume: Whether to go on with the run in `<folder>.run`.
        overrides: New values for keys of the recipe, such as {"optimization.lr": 1e-4}.

    Returns:
        The folder.

    Raises:
        DataError: The data are missing or damaged, or do not have the shape of the model.
        ConfigError: The checkpoint or a setting is unknown, or the folder exists already.
    """
    folder, path = expand(folder), expand(data).resolve()
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
            "data": own_section(path, shape_of(model), resize, binarize, skip_corrupt),
            "optimization": {"lr": 2e-4, "schedule": "cosine", "gradient_clip": 100.0},
            "trainer": {"max_epochs": epochs, "ema_decay": 0.99, "checkpoint_every": 100},
            "evaluation": {"k": 100, "num": 1000},  # own data sets are small
        },
        overrides or {},
    )
    module = build_data(recipe["data"], recipe["seed"])
    settings = Evaluation(**bind(Evaluation, recipe["evaluation"] or {}, "evaluation"))
    check_like(start, model, module)
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
