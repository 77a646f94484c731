"""Fine-tuning: a pretrained checkpoint adapted to a user's own images or arrays."""

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
            "data": own_section(path, shape_of(model), resize, binarize, skip_corrupt),
            "optimization": {"lr": 2e-4, "schedule": "cosine", "gradient_clip": 100.0},
            "trainer": {"max_epochs": epochs, "ema_decay": 0.99, "checkpoint_every": 100},
            "evaluation": {"k": 100, "num": 1000},  # own data are few
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
