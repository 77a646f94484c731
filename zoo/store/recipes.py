"""Reading recipes: of files, of checkpoints, and those that come with the zoo. This file imports no torch.

`zoo.training.recipe` says what the sections of a recipe mean.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal

from zoo.config import brief, check, load_yaml, near
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.store import registry as records
from zoo.store.names import FAMILIES, check_name
from zoo.store.registry import registry
from zoo.store.source import checkpoint

IMAGES = ("shapes64", "cifar10", "mnist", "fashion-mnist", "binarized-mnist")
"""Data sets of images, those first whose recipes suit other images best."""

SECTIONS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "data": dict,
    "model": dict,
    "start": str,
    "teachers": list[str],
    "optimization": dict | None,
    "trainer": dict | None,
    "evaluation": dict | None,
    "dtype": Literal["float32", "float16"],
}


def read_recipe(source: str | Path, plugins: Collection[str] = ()) -> dict[str, Any]:
    """Reads a recipe; `load_recipe` also checks its sections.

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


def load_recipe(
    path: str | Path, overrides: Mapping[str, Any] | None = None, plugins: Collection[str] = ()
) -> dict[str, Any]:
    """Reads a recipe.

    Args:
        path: A YAML file, or a checkpoint; see `read_recipe`.
        overrides: New values by dotted key, such as {"trainer.devices": 2}.
        plugins: As in `Zoo.load`.

    Raises:
        ConfigError: A section is unknown, missing or of the wrong type, or there is no such class of models.
    """
    recipe = override(read_recipe(path, plugins), overrides or {})
    for alternatives in (("data",), ("model", "start")):
        if not recipe.keys() & set(alternatives):
            names = " or ".join(map(repr, alternatives))
            raise ConfigError(f"{path}: expected one section {names}; see the recipes of shipped checkpoints")
    if "model" in recipe:
        check_name(recipe["model"].get("class"), "recipe: model", plugins)
    return recipe


def recipe_of_class(name: str) -> tuple[str, dict[str, Any]]:
    """Finds the recipe from which the training of a model class on other data begins.

    It is that of a shipped checkpoint of images, of this class if there is one and else of the same family.

    Args:
        name: A class of the zoo in any case, with or without its family and dashes: `dcgan`, `wgan-gp`, `flows.Glow`.

    Returns:
        The name of the class, such as `gan.DCGAN`, and the recipe.

    Raises:
        ConfigError: There is no such class.
    """
    known = {f"{family}.{title}" for family in FAMILIES for title in importlib.import_module(f"zoo.{family}").__all__}
    word = name.lower().replace("-", "").replace("_", "")
    found = sorted(kind for kind in known if word in (kind.lower(), kind.lower().partition(".")[2]))
    if not found:
        titles = {kind.lower().partition(".")[2] for kind in known}
        raise ConfigError(f"no checkpoint and no model is called {brief(name)}; {near(name, {*titles, *registry()})}")
    if len(found) > 1:
        raise ConfigError(f"expected the name of one model, found {name}, which are {' and '.join(found)}; choose one")
    (kind,) = found
    entries = {key: entry for key, entry in registry().items() if entry.family == kind.partition(".")[0]}

    def rank(key: str) -> tuple[bool, bool, int, str]:
        data = entries[key].data.lower()  # of a checkpoint without numbers, it is the class of the data set
        place = IMAGES.index(data) if data in IMAGES else len(IMAGES)
        return data not in IMAGES, entries[key].class_name != kind, place, key

    return kind, checkpoint(min(entries, key=rank)).settings


def override(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of a recipe with new values, such as {"trainer.devices": 2}, after checking its sections."""
    changed: dict[str, Any] = _plain(recipe, "recipe")
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = changed
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise ConfigError(f"--{key}: {parent!r} is not a section of the recipe; check the name of the key")
        section[last] = _plain(value, f"--{key}")
    return check(changed, SECTIONS, "recipe", optional=SECTIONS)


def _plain(value: Any, where: str) -> Any:
    """A copy of a value as YAML has it: a number of NumPy or torch becomes one of Python, and a path becomes its text.

    Raises:
        ConfigError: It has no such form.
    """
    if isinstance(value, Mapping):
        return {key: _plain(entry, where) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, where) for entry in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{where}: expected a value that YAML can hold, found {brief(value)}")
