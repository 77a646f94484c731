"""Recipes: the full input of a run, as plain YAML; running one gives a checkpoint folder.

    name: vae-mnist                       # of the checkpoint
    seed: 0                               # of the weights, the noise of training and the order of the data
    data: {class: MNIST, ...}             # a class of zoo.data and its arguments
    model: {class: zoo.vae.vae.VAE, ...}  # a class of the zoo and its arguments
    optimization: {...}                   # fields of `Optimization`
    trainer: {max_epochs: 60, ...}        # arguments of `Trainer`
    evaluation: {...}                     # settings of the numbers to measure
    dtype: float16                        # of the exported weights; float32 by default

A recipe that fine-tunes has `start: NAME`, what `Zoo.load` takes, in place of the section `model`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from zoo.capabilities import ClosedForm, ZooModule
from zoo.catalog import Zoo
from zoo.config import bind, load_yaml, near
from zoo.data.base import DataModule
from zoo.errors import ConfigError
from zoo.training.optimization import Optimization

SECTIONS = ("name", "seed", "data", "model", "optimization", "trainer", "evaluation", "dtype", "start")


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads a recipe and applies overrides such as {"trainer.devices": 2}.

    Raises:
        ConfigError: unknown sections, or sections of the wrong kind.
    """
    recipe = override(load_yaml(path), overrides or {})
    for alternatives in (("data",), ("model", "start")):
        if len(recipe.keys() & set(alternatives)) != 1:
            names = " or ".join(map(repr, alternatives))
            raise ConfigError(f"{path}: expected one section {names}; see the recipes of shipped checkpoints")
    return recipe


def override(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the recipe with dotted keys set."""
    changed = copy.deepcopy(dict(recipe))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = changed
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise ConfigError(f"--{key}: {parent!r} is no section of the recipe")
        section[last] = value
    for section_name in changed:
        if section_name not in SECTIONS:
            raise ConfigError(f"recipe: no section {section_name!r}; {near(section_name, SECTIONS)}")
    return changed


def build_data(section: Mapping[str, Any], seed: int = 0) -> DataModule:
    """The data module that the section `data` of a recipe describes."""
    import zoo.data

    arguments = dict(section)
    name = arguments.pop("class", None)
    kinds = {
        k: v for k in zoo.data.__all__ if isinstance(v := getattr(zoo.data, k), type) and issubclass(v, DataModule)
    }
    del kinds["DataModule"]
    if name not in kinds:
        raise ConfigError(f"data: no class {name!r}; {near(str(name), kinds)}")
    return kinds[name](**bind(kinds[name], {"seed": seed, **arguments}, f"data: {name}"))


def build_model(section: Mapping[str, Any], seed: int = 0) -> ZooModule:
    """The model that the section `model` of a recipe describes, its weights initialised with `seed`."""
    from zoo.checkpoint import find_class

    arguments = dict(section)
    kind = find_class(str(arguments.pop("class", None)), "recipe: model")
    bound = bind(kind, arguments, f"model: {kind.__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**bound)


def fit(recipe: Mapping[str, Any], folder: str | Path, *, resume: bool = False) -> ZooModule:
    """Trains what a recipe describes, keeping the run (checkpoints, logs, sample grids) in `folder`.

    Args:
        recipe: as `load_recipe` gives it.
        folder: of the run; must not exist, unless resumed.
        resume: go on from the last checkpoint in `folder`.

    Returns:
        The trained model with its averaged weights.

    Raises:
        ConfigError: the recipe does not fit its classes, or `folder` is in the way.
        ZooError: training diverged.
    """
    from zoo.training.trainer import CHECKPOINT, Trainer

    folder = Path(folder)
    last = folder / CHECKPOINT
    if folder.exists() and not resume:
        raise ConfigError(f"{folder}: a run is there already; resume it, or choose another folder")
    seed = bind(_seed, {"seed": recipe.get("seed", 0)}, "recipe")["seed"]
    data = build_data(recipe["data"], seed)
    model = Zoo.load(recipe["start"]) if "start" in recipe else build_model(recipe["model"], seed)
    model.seed = seed
    settings = bind(Optimization, recipe.get("optimization") or {}, "optimization")
    model.optimization = Optimization(**settings)
    options = dict(recipe.get("trainer") or {})
    if isinstance(model, ClosedForm):
        options.setdefault("ema_decay", None)
    trainer = Trainer(**bind(Trainer, {"folder": str(folder), **options}, "trainer"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
    model.to(memory_format=torch.channels_last)  # three times faster convolutions on the CPU
    model.train()
    trainer.fit(model, data, ckpt_path=last if resume and last.exists() else None)
    return model.eval()


def make(recipe: Mapping[str, Any], folder: str | Path, *, resume: bool = False) -> Path:
    """`fit` in `<folder>.run`, then the checkpoint folder itself.

    Raises:
        ZooError: as `fit` and `Zoo.save`; `folder` is refused if it exists, before anything is trained.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; choose another folder")
    model = fit(recipe, folder.with_name(f"{folder.name}.run"), resume=resume)
    return Zoo.save(model, folder, recipe=recipe, dtype=recipe.get("dtype", "float32"))


def _seed(seed: int) -> None:
    """The schema of the recipe's seed."""
