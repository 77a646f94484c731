"""Recipes: the full input of a run, as plain YAML; running one gives a checkpoint folder.

    name: vae-mnist                       # of the checkpoint
    seed: 0                               # of the weights, the noise of training and the order of the data
    data: {class: MNIST, ...}             # a class of zoo.data and its arguments
    model: {class: zoo.vae.vae.VAE, ...}  # a class of the zoo and its arguments
    optimization: {...}                   # fields of `Optimization`
    trainer: {max_epochs: 60, ...}        # arguments of `Trainer`
    evaluation: {...}                     # settings of the numbers to measure
    dtype: float16                        # of the exported weights; float32 by default

A recipe that fine-tunes has `start: NAME`, what `Zoo.load` takes, in place of the section `model`; with both, the model
begins with the weights of that checkpoint, which may be of another class with the same parameters, or some of them.
With `teachers: [NAME, ...]`, likewise, it learns what these expect of the data: see `ZooModule.learn_from`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from zoo.capabilities import ZooModule
from zoo.config import bind, brief, check, load_yaml
from zoo.data import build as build_data
from zoo.data.base import DataModule
from zoo.distributed import join, on_leader, sensing_loss, size
from zoo.errors import CheckpointError, ConfigError
from zoo.measurement import Measurement
from zoo.metrics.evaluate import evaluate_checkpoint
from zoo.metrics.examples import check_classes, check_levels
from zoo.optim.optimization import Optimization
from zoo.store import checkpoint
from zoo.store.checkpoint import CURVE, RECIPE
from zoo.store.zoo import LOCAL, Zoo
from zoo.training.curve import draw_curve
from zoo.training.tracking import failing, finish, is_tracked

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


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads a recipe and applies overrides such as {"trainer.devices": 2}.

    Raises:
        ConfigError: sections that are unknown, missing or of the wrong kind.
    """
    recipe = override(load_yaml(path), overrides or {})
    for alternatives in (("data",), ("model", "start")):
        if not recipe.keys() & set(alternatives):
            names = " or ".join(map(repr, alternatives))
            raise ConfigError(f"{path}: expected one section {names}; see the recipes of shipped checkpoints")
    return recipe


def override(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the recipe with dotted keys set, its sections checked."""
    changed = copy.deepcopy(dict(recipe))
    for key, value in overrides.items():
        *parents, last = key.split(".")
        section = changed
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise ConfigError(f"--{key}: {parent!r} is no section of the recipe")
        section[last] = value
    return check(changed, SECTIONS, "recipe", optional=SECTIONS)


def build_model(section: Mapping[str, Any], seed: int = 0) -> ZooModule:
    """The model that the section `model` of a recipe describes, its weights initialised with `seed`."""
    from zoo.store.checkpoint import find_class

    arguments = dict(section)
    kind = find_class(str(arguments.pop("class", None)), "recipe: model")
    bound = bind(kind, arguments, f"model: {kind.__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**bound)


def begin(recipe: Mapping[str, Any], seed: int = 0) -> ZooModule:
    """The untrained model of a recipe: new, or with the weights of the checkpoint where it starts.

    Raises:
        ConfigError: `start` has parameters that the one which the section `model` describes has not, or the model does
            not learn from these teachers.
    """
    model = _begin(recipe, seed)
    if names := recipe.get("teachers"):
        model.learn_from([Zoo.load(name) for name in names])
    return model


def _begin(recipe: Mapping[str, Any], seed: int) -> ZooModule:
    if "model" not in recipe:
        return Zoo.load(recipe["start"])
    model = build_model(recipe["model"], seed)
    if "start" in recipe:
        start = Zoo.load(recipe["start"])
        try:
            unused = model.load_state_dict(start.state_dict(), strict=False).unexpected_keys
        except RuntimeError as error:  # a page of names and shapes
            unused = [str(error)]
        if unused:
            raise ConfigError(
                f"start: the parameters of {recipe['start']}, a {type(start).__name__}, are not those of the "
                f"{type(model).__name__} that `model` describes; give it the same sizes"
            )
        model.pretrained = True
    return model


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Takes numbers nearer to zero than 1e-38 for zero: saturated units have them, and CPUs are slow at them.

    In the calling thread, and in those that torch starts for it within: all, where it has computed nothing before.
    """
    was_set = (torch.tensor(2.0**-126) / 2).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_set)


@_without_denormals()
def fit(
    recipe: Mapping[str, Any], folder: str | Path, *, resume: bool = False, data: DataModule | None = None
) -> ZooModule:
    """Trains what a recipe describes, keeping the run (checkpoints, logs, sample grids) in `folder`.

    Args:
        recipe: as `load_recipe` gives it.
        folder: of the run; must not exist, unless resumed.
        resume: go on from the last checkpoint in `folder`, or from the beginning where there is none.
        data: what the section `data` describes, where it has been read already.

    Returns:
        The trained model with its averaged weights.

    Raises:
        ConfigError: the recipe does not fit its classes, or `folder` is in the way.
        DataError: the data are damaged, or not what the model learns from.
        CheckpointError: the run's checkpoint cannot be read or written.
        ZooError: training diverged.
    """
    from zoo.training.trainer import CHECKPOINT, Trainer

    recipe, folder = override(recipe, {}), Path(folder)
    join()
    on_leader(lambda: _check_free(recipe, folder, resume))
    seed = recipe.get("seed", 0)
    data = data or build_data(recipe["data"], seed)
    model = begin(recipe, seed)
    check_fit(model, data)
    model.seed = seed
    model.optimization = Optimization(**bind(Optimization, recipe.get("optimization") or {}, "optimization"))
    options = recipe.get("trainer") or {}
    if "folder" in options:
        raise ConfigError("trainer: folder is no option of a recipe; it is chosen when the recipe is run")
    if options.get("max_epochs") is None and options.get("max_steps") is None:  # max_time alone tells no schedule
        raise ConfigError("trainer: expected max_epochs or max_steps, found neither; say where training ends")
    trainer = Trainer(**bind(Trainer, {"folder": str(folder), **options}, "trainer"))
    with failing(trainer):
        if size() not in (1, trainer.world_size):
            raise ConfigError(
                f"trainer: expected devices x num_nodes to be the {size()} processes that were started, found "
                f"{trainer.world_size}; set trainer.devices"
            )
        on_leader(lambda: _note(recipe, folder))
        model.to(memory_format=torch.channels_last)  # three times faster convolutions on the CPU
        model.train()
        last = folder / CHECKPOINT
        try:
            with sensing_loss():
                trainer.fit(model, data, ckpt_path=last if resume and last.exists() else None, weights_only=True)
        except (MisconfigurationException, ValueError) as error:
            if not isinstance(error, MisconfigurationException) and "val_check_interval" not in str(error):
                raise
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    return model.eval()


def _check_free(recipe: Mapping[str, Any], folder: Path, resume: bool) -> None:
    """A run goes on with the data, model and optimiser that it began with; epochs and devices are its own affair."""
    if not folder.exists():
        return
    if not resume:
        raise ConfigError(f"{folder}: a run is there already; resume it, or choose another folder")
    path = folder / RECIPE
    began = load_yaml(path) if path.exists() else recipe
    for section in ("seed", "data", "model", "start", "teachers", "optimization"):
        if began.get(section) != recipe.get(section):
            raise ConfigError(
                f"{path}: the run to resume began with another section {section!r}: expected "
                f"{brief(began.get(section))}, found {brief(recipe.get(section))}; choose another folder"
            )


def _note(recipe: Mapping[str, Any], folder: Path) -> None:
    """Keeps the recipe with the run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False))
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error.strerror or error}; make room or choose another folder"
        ) from error


def check_fit(model: ZooModule, data: DataModule) -> None:
    """Whether a model can learn from the data.

    Raises:
        ConfigError: examples have another shape.
        DataError: they have other grey levels, or labels that the model does not have.
    """
    expected, found = tuple(getattr(model, "event_shape", data.event_shape)), tuple(data.event_shape)
    if expected != found:
        raise ConfigError(
            f"model: expected event_shape {list(found)}, the shape of the examples of {data.name}, found "
            f"{list(expected)}"
        )
    check_classes(model, data)
    check_levels(model, data)


def make(
    recipe: Mapping[str, Any], folder: str | Path, *, resume: bool = False, data: DataModule | None = None
) -> Path:
    """`fit` in `<folder>.run`, then the checkpoint folder itself with its training curve; the leader writes it.

    A run that is logged to Weights & Biases ends with the numbers of the checkpoint, measured as its recipe says.

    Raises:
        ZooError: as `fit` and `Zoo.save`; `folder` is refused if it exists, before anything is trained.
    """
    folder = Path(folder)
    join()
    on_leader(lambda: check_absent(folder))
    run = folder.with_name(f"{folder.name}.run")
    model = fit(recipe, run, resume=resume, data=data)
    with failing(model.trainer):
        on_leader(lambda: _export(model, recipe, run, folder))
        if is_tracked(model.trainer):
            numbers = evaluate_checkpoint(f"{LOCAL}{folder}", device=str(model.trainer.strategy.root_device))
            on_leader(lambda: _publish(model.trainer, folder, numbers))
    return folder


def check_absent(folder: Path) -> None:
    """Raises ConfigError where there is something already."""
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; choose another folder")


def _export(model: ZooModule, recipe: Mapping[str, Any], run: Path, folder: Path) -> None:
    Zoo.save(model, folder, recipe=recipe, dtype=recipe.get("dtype", "float32"))
    if (curve := draw_curve(run)) is not None:
        checkpoint.update(folder, files={CURVE: curve})


def _publish(trainer: lightning.Trainer, folder: Path, numbers: list[Measurement]) -> None:
    command = f"zoo evaluate {LOCAL}{folder.name}"
    checkpoint.update(folder, [{**number.to_dict(), "command": command} for number in numbers])
    finish(trainer, folder, numbers)
