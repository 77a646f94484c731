"""Reading recipes: of files, of checkpoints, and those that come with the zoo. This file imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from zoo.config import load_yaml
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.store import registry as records
from zoo.store.source import checkpoint


def read_recipe(source: str | Path, plugins: Collection[str] = ()) -> dict[str, Any]:
    """Reads a recipe; `zoo.training.recipe` checks its sections.

    Args:
        source: A YAML file, which for `recipes/NAME.yaml` and `checkpoints/NAME/recipe.yaml` may be one that comes with
            the zoo; or a checkpoint, as `Zoo.load` takes it, whose recipe is read.
        plugins: As in `Zoo.load`.

    Raises:
        ConfigError: There is no such file or checkpoint, or it has no recipe.
        ZooError: A file is damaged, or a checkpoint cannot be fetched.
    """
    text = str(source)
    if isinstance(source, Path) or text.endswith((".yaml", ".yml")) or Path(text).is_file():
        path, shipped = expand(text), records.SHIPPED.parent / text
        return load_yaml(shipped if not path.exists() and shipped.is_file() else path)
    found = checkpoint(text, plugins)
    _ = found.class_name  # which a folder that is none lacks
    if found.recipe is None:
        raise ConfigError(f"{text}: expected a checkpoint with a recipe, found one without; pass a YAML file")
    return found.settings
