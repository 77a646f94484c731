"""Recipes. A recipe is the full input of a run, as plain YAML; running it makes a checkpoint folder.

    name: vae-mnist                 # name of the checkpoint
    seed: 0                         # seed of the initial weights, the noise and the order of the data
    data: {class: MNIST, ...}       # class of `zoo.data` with its arguments
    model: {class: vae.VAE, ...}    # class of the model with its arguments
    optimization: {...}             # fields of `zoo.optim.Optimization`
    trainer: {max_epochs: 60, ...}  # arguments of `zoo.training.Trainer`
    evaluation: {...}               # settings of the numbers to measure
    dtype: float16                  # type of the exported weights; float32 by default

A recipe may have `start: SOURCE`, where the source is what `Zoo.load` takes. In place of the section `model`, it
fine-tunes that checkpoint. Together with `model`, the new model begins with the weights of that checkpoint, which may
have another class with the same parameters or some of them. If the images have another shape, it begins with the layers
that fit. With `teachers: [SOURCE, ...]` the model learns from the predictions of these checkpoints; see
`ZooModule.learn_from`.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from zoo.capabilities import ZooModule
from zoo.config import bind, brief, load_yaml, reason
from zoo.data import build as build_data
from zoo.data.base import DataModule
from zoo.distributed import is_leader, join, on_leader, sensing_loss, size
from zoo.errors import CheckpointError, ConfigError
from zoo.files import check_outside, expand, write_atomically
from zoo.measurement import Measurement
from zoo.metrics.evaluate import evaluate_checkpoint
from zoo.metrics.examples import check_fit
from zoo.optim import Optimization
from zoo.store.checkpoint import CONFIG, CURVE, CURVE_TABLE, RECIPE, Checkpoint
from zoo.store.names import find_class
from zoo.store.recipes import load_recipe as load_recipe
from zoo.store.recipes import override
from zoo.store.zoo import Zoo
from zoo.training.curve import curve_table, draw_curve
from zoo.training.tracking import failing, finish, is_tracked
from zoo.training.trainer import CHECKPOINT, Trainer


def build_model(section: Mapping[str, Any], seed: int = 0, plugins: Collection[str] = ()) -> ZooModule:
    """Builds the model that the section `model` of a recipe describes.

    Args:
        section: The class and its arguments.
        seed: Seed of the initial weights.
        plugins: Names of the installed packages whose classes may be used; see `Zoo.load`.
    """
    arguments = dict(section)
    kind = find_class(str(arguments.pop("class", None)), "recipe: model", plugins)
    bound = bind(kind, arguments, f"model: {kind.__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(**bound)


def begin(recipe: Mapping[str, Any], seed: int = 0, plugins: Collection[str] = ()) -> ZooModule:
    """Returns the untrained model of a recipe, either new or with the weights of the checkpoint in `start`.

    Args:
        recipe: The recipe.
        seed: Seed of the initial weights.
        plugins: As in `build_model`.

    Raises:
        ConfigError: The checkpoint in `start` has parameters that the model lacks, or the model cannot learn from these
            teachers.
    """
    model = _begin(recipe, seed, plugins)
    if names := recipe.get("teachers"):
        model.learn_from([Zoo.load(name, plugins=plugins) for name in names])
    return model


def _begin(recipe: Mapping[str, Any], seed: int, plugins: Collection[str]) -> ZooModule:
    if "model" not in recipe:
        return Zoo.load(recipe["start"], plugins=plugins)
    model = build_model(recipe["model"], seed, plugins)
    if "start" in recipe:
        start, model.pretrained = Zoo.load(recipe["start"], plugins=plugins), True
        if getattr(start, "event_shape", None) != getattr(model, "event_shape", None):
            taken, anew = take_layers(model, start)
            if not taken:
                raise ConfigError(
                    f"start: no layer of {recipe['start']} fits the {type(model).__name__} in the section `model`; "
                    "train it from scratch"
                )
            model.pretrained = not anew
            return model
        classes = [getattr(each, "num_classes", None) for each in (start, model)]
        is_relabelled = None not in classes and classes[0] != classes[1]
        try:
            unused = _take_weights(model, start) if is_relabelled else model.take_weights(start)
        except RuntimeError as error:  # its message is a page of names and shapes
            unused = [str(error)]
        if unused:
            raise ConfigError(
                f"start: the parameters of {recipe['start']}, a {type(start).__name__}, do not fit the "
                f"{type(model).__name__} in the section `model`; give it the same sizes"
            )
    return model


def take_layers(model: ZooModule, start: ZooModule) -> tuple[list[str], list[str]]:
    """Begins with the layers of a trained model that have the same names and shapes, for images of another shape.

    Returns:
        The names of the layers that were taken, and of those that stay as they are.
    """
    new, old = model.state_dict(), start.state_dict()
    layers: dict[str, list[str]] = {}
    for name in new:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)

    def fits(name: str) -> bool:
        return name in old and old[name].shape == new[name].shape

    taken = [layer for layer, names in layers.items() if all(map(fits, names))]
    model.load_state_dict({name: old[name] for layer in taken for name in layers[layer]}, strict=False)
    return taken, [layer for layer in layers if layer not in taken]


def _take_weights(model: ZooModule, start: ZooModule) -> list[str]:
    """As `ZooModule.take_weights`, for a model with another number of labels.

    Rows and columns of labels that the start lacks stay as they are, and those that the model lacks are dropped.
    """
    new, old = model.state_dict(), start.state_dict()
    excess = start.num_classes - model.num_classes  # type: ignore[operator]
    for name in old.keys() & new.keys():
        sizes = list(zip(old[name].shape, new[name].shape, strict=False))
        if old[name].ndim == new[name].ndim and all(size - other in (0, excess) for size, other in sizes):
            common = tuple(slice(min(pair)) for pair in sizes)
            fitted = new[name].clone()
            fitted[common] = old[name][common]
            old[name] = fitted
    return model.load_state_dict(old, strict=False).unexpected_keys


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Rounds denormal numbers (below 1e-38) to zero. Saturated units have such numbers, and CPUs are slow with them.

    This holds for the calling thread and for the threads that torch starts meanwhile. Those are all of its threads if
    it has computed nothing before.
    """
    was_set = (torch.tensor(2.0**-126) / 2).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_set)


@_without_denormals()
def fit(
    recipe: Mapping[str, Any],
    folder: str | Path,
    *,
    resume: bool = False,
    data: DataModule | None = None,
    plugins: Collection[str] = (),
) -> ZooModule:
    """Trains the model of a recipe.

    Args:
        recipe: The recipe, as `load_recipe` returns it.
        folder: Folder of the run, for its checkpoints, logs and sample grids. It must not exist unless `resume` is set.
        resume: Whether to go on from the last checkpoint in `folder`, or from the beginning if there is none.
        data: The data set of the section `data`, if it has been read already.
        plugins: Names of the installed packages whose model classes may be used; see `Zoo.load`.

    Returns:
        The trained model with its averaged weights.

    Raises:
        ConfigError: The recipe does not fit its classes, or the folder exists already.
        DataError: The data are damaged, or the model cannot learn from them.
        CheckpointError: The checkpoint of the run cannot be read or written.
        ZooError: Training diverged.
    """
    recipe, folder = override(recipe, {}), expand(folder)
    join()
    on_leader(lambda: check_outside_data(folder, recipe["data"]))
    on_leader(lambda: _check_free(recipe, folder, resume))
    seed = recipe.get("seed", 0)
    data = data or build_data(recipe["data"], seed)
    model = begin(recipe, seed, plugins)
    check_fit(model, data)
    model.seed = seed
    model.optimization = Optimization(**bind(Optimization, recipe.get("optimization") or {}, "optimization"))
    options = recipe.get("trainer") or {}
    if "folder" in options:
        raise ConfigError("trainer: folder is not an option of a recipe; choose it when you run the recipe")
    if options.get("max_epochs") is None and options.get("max_steps") is None:  # schedules need more than max_time
        raise ConfigError("trainer: expected max_epochs or max_steps, found neither; say where training ends")
    with _clearing(folder, model):
        trainer = Trainer(**bind(Trainer, {"folder": str(folder), **options}, "trainer"))
        with failing(trainer):
            if size() not in (1, trainer.world_size):
                raise ConfigError(
                    f"trainer: expected devices x num_nodes to equal the {size()} processes that were started, found "
                    f"{trainer.world_size}; set trainer.devices"
                )
            on_leader(lambda: _note(recipe, folder))
            last = folder / CHECKPOINT
            _train(trainer, model, data, last if resume and last.exists() else None)
    return model.eval()


def _train(trainer: lightning.Trainer, model: ZooModule, data: DataModule, last: Path | None) -> None:
    """Trains a model, from the checkpoint of the run if there is one."""
    model.to(memory_format=torch.channels_last)  # three times faster convolutions on the CPU
    model.train()
    try:
        with sensing_loss():
            trainer.fit(model, data, ckpt_path=last, weights_only=True)
    except (MisconfigurationException, ValueError) as error:
        if not isinstance(error, MisconfigurationException) and "val_check_interval" not in str(error):
            raise
        raise ConfigError(f"trainer: {reason(error)}") from error


@contextmanager
def _clearing(folder: Path, model: ZooModule) -> Iterator[None]:
    """If the body of the `with` statement fails before the first step, removes the folder of the run, if it is new."""
    is_new = not folder.exists()
    try:
        yield
    except BaseException:
        if is_new and is_leader() and (model._trainer is None or model.global_step == 0):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def check_outside_data(folder: Path, section: Mapping[str, Any]) -> None:
    """Checks that a folder to be written does not lie in the folder of own data that the section `data` names."""
    if isinstance(path := section.get("path"), str):
        check_outside(folder, path)


def _check_free(recipe: Mapping[str, Any], folder: Path, resume: bool) -> None:
    """Checks that the folder of a run is free, or that the run in it began with the same recipe.

    The number of epochs and the devices may change.
    """
    if not resume:
        _check_no_run(folder)
    path = folder / RECIPE
    began = load_yaml(path) if path.exists() else recipe
    for section in ("seed", "data", "model", "start", "teachers", "optimization"):
        if began.get(section) != recipe.get(section):
            raise ConfigError(
                f"{path}: the run to resume began with another section {section!r}: expected "
                f"{brief(began.get(section))}, found {brief(recipe.get(section))}; choose another folder"
            )


def _check_no_run(folder: Path) -> None:
    if folder.exists():
        raise ConfigError(f"{folder}: there is a run already; resume it, or choose another folder")


def _note(recipe: Mapping[str, Any], folder: Path) -> None:
    """Writes the recipe into the folder of the run."""
    try:
        write_atomically(folder / RECIPE, yaml.safe_dump(recipe, sort_keys=False).encode(), is_only_writer=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error.strerror or error}; make room or choose another folder"
        ) from error


def make(
    recipe: Mapping[str, Any],
    folder: str | Path,
    *,
    resume: bool = False,
    data: DataModule | None = None,
    plugins: Collection[str] = (),
) -> Checkpoint:
    """Trains the model of a recipe, and writes it as a checkpoint folder with its training curve.

    The run itself is kept in `<folder>.run`. The first process writes the folder. If the run is logged to Weights &
    Biases, the numbers of the checkpoint are measured at the end, with the settings of the recipe.

    Args:
        recipe: The recipe, as `load_recipe` returns it.
        folder: The checkpoint folder. It must not exist; this is checked before training.
        resume: Whether to go on with the run in `<folder>.run`.
        data: The data set of the section `data`, if it has been read already.
        plugins: Names of the installed packages whose model classes may be used; see `Zoo.load`.

    Raises:
        ZooError: As in `fit` and `Zoo.save`.
    """
    folder = expand(folder)
    join()
    on_leader(lambda: check_place(folder, resume))
    on_leader(lambda: check_outside_data(folder, recipe["data"]))
    if folder.exists():  # only what comes after training was interrupted
        return Checkpoint.of_folder(folder, plugins)
    run = run_of(folder)
    model = fit(recipe, run, resume=resume, data=data, plugins=plugins)
    with failing(model.trainer):
        on_leader(lambda: _export(model, recipe, run, folder, plugins))
        made = Checkpoint.of_folder(folder, plugins)
        if is_tracked(model.trainer):
            numbers = evaluate_checkpoint(made, device=str(model.trainer.strategy.root_device))
            on_leader(lambda: _publish(model.trainer, made, numbers))
    return made


def run_of(folder: Path) -> Path:
    """The folder of the run that makes a checkpoint folder."""
    return folder.with_name(f"{folder.name}.run")


def check_place(folder: Path, resume: bool) -> None:
    """Checks that neither a checkpoint folder nor its run is there yet, unless the run is to be resumed.

    Raises:
        ConfigError: One of them exists already.
    """
    if not resume:
        _check_no_run(run_of(folder))
    if folder.exists() and not (resume and (run_of(folder) / RECIPE).exists() and (folder / CONFIG).exists()):
        raise ConfigError(f"{folder}: exists already; choose another folder")


def _export(model: ZooModule, recipe: Mapping[str, Any], run: Path, folder: Path, plugins: Collection[str]) -> None:
    Zoo.save(model, folder, recipe=recipe, dtype=recipe.get("dtype", "float32"))
    if (curve := draw_curve(run)) is not None:
        Zoo.update(Checkpoint.of_folder(folder, plugins), files={CURVE: curve, CURVE_TABLE: curve_table(run)})


def _publish(trainer: lightning.Trainer, made: Checkpoint, numbers: list[Measurement]) -> None:
    command = f"zoo evaluate local-dir:{made.name}"
    Zoo.update(made, [{**number.to_dict(), "command": command} for number in numbers])
    finish(trainer, made.folder, numbers)
