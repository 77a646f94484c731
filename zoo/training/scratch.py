"""Training of any model on your own data from scratch: a recipe whose defaults fit the data.

The recipe of a shipped checkpoint says which optimiser suits the model. The shape, the grey levels and the classes come
from the data, and the length of training from the time that there is.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.capabilities import ClosedForm, Unnormalized, ZooModule
from zoo.config import load_yaml
from zoo.data.base import DataModule
from zoo.data.own import check_size, own_section
from zoo.distributed import is_leader, join, on_leader
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.metrics.examples import check_fit
from zoo.store.checkpoint import RECIPE, Checkpoint
from zoo.store.names import find_class
from zoo.store.recipes import read_recipe, recipe_of_class
from zoo.store.registry import registry
from zoo.training.finetune import EVALUATION, TEMPERATURES, VALIDATIONS, by_steps, strengths, tried
from zoo.training.recipe import build_data, build_model, check_place, make, override, run_of

EPOCH = 50_000
"""Number of training images of the shipped recipes, which turns their epochs into steps."""
MOST_STEPS = 10_000
"""Number of steps unless users give minutes or steps."""
TIMED_STEPS = 10
"""Number of steps whose time is taken to fill the minutes."""
WARMUP = 20
"""The rate of learning rises over 1/20 of the steps at most."""
STANDARD_DEVIATION = 1000
"""Number of images from which the standard deviation of pixels is estimated."""


def train_on(
    source: str,
    data: str | Path,
    folder: str | Path,
    *,
    size: int | None = None,
    grey: bool = False,
    minutes: float | None = None,
    binarize: bool = False,
    skip_corrupt: bool = False,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    plugins: Collection[str] = (),
) -> Checkpoint:
    """Trains a new model on your own data, with defaults that fit the data. They are printed as a recipe.

    Args:
        source: A model class such as `dcgan`, or a checkpoint or a recipe whose model and optimiser to use.
        data: A folder of images, where folders inside it are labels, or an .npz or .npy file.
        folder: The new checkpoint folder, which must not exist. The run itself is kept in `<folder>.run`.
        size: Height and width to which images are scaled; by default, images keep their size.
        grey: Whether to convert images to grey.
        minutes: Time for training. The number of steps is estimated from the first ones.
        binarize: Whether to make pixels black or white, for models of binary data.
        skip_corrupt: Whether to leave out files that cannot be decoded.
        resume: Whether to go on with the run in `<folder>.run`.
        overrides: New values for keys of the recipe, such as {"optimization.lr": 1e-4}.
        plugins: Names of installed packages whose classes may be used; see `Zoo.load`.

    Returns:
        The checkpoint.

    Raises:
        DataError: The data are missing or damaged, or of other grey levels than the model.
        ConfigError: The model is unknown or does not take images of this size, the images are too large, or the folder
            exists already.
    """
    folder, changes = expand(folder), dict(overrides or {})
    join()
    on_leader(lambda: check_place(folder, resume))
    if minutes is not None and not 0 < minutes < math.inf:
        raise ConfigError(f"minutes: expected more than 0, found {minutes}")
    if resume and (began := run_of(folder) / RECIPE).exists():
        return make(override(load_yaml(began), changes), folder, resume=True, plugins=plugins)
    began_at = time.monotonic()
    section = own_section(expand(data).resolve(), None, False, binarize, skip_corrupt, size, grey)
    class_name, base = _base(source, plugins)
    recipe = override({"name": folder.name, "seed": 0, "data": section, "evaluation": EVALUATION}, changes)
    module = build_data(recipe["data"], recipe["seed"])
    if len(module.event_shape) == 3:
        check_size(*module.event_shape[1:])
    recipe["model"] = {"class": class_name, **_arguments(class_name, base.get("model") or {}, module, plugins)}
    recipe = override(recipe, changes)
    model = build_model(recipe["model"], recipe["seed"], plugins)
    check_fit(model, module)
    recipe = _planned(override(recipe, {}), base, model, module, changes, minutes, began_at, plugins)
    module.batch_size = recipe["data"]["batch_size"]
    if is_leader():
        print(yaml.safe_dump(recipe, sort_keys=False), end="")
    return make(recipe, folder, data=module, plugins=plugins)


def _base(source: str, plugins: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The name of the model class and a recipe that suits it, which may be that of another class of its family."""
    is_recipe = source in registry() or ":" in source or source.endswith((".yaml", ".yml"))
    if not is_recipe:
        return recipe_of_class(source)
    recipe = read_recipe(source, plugins)
    if "model" not in recipe:
        raise ConfigError(f"{source}: expected a recipe with a section 'model', found none; pass the checkpoint itself")
    return str(recipe["model"].get("class")), recipe


def _arguments(
    class_name: str, section: Mapping[str, Any], data: DataModule, plugins: Collection[str]
) -> dict[str, Any]:
    """Arguments of a model that fit the data: those of a recipe that the class knows, and what the data determine."""
    known = inspect.signature(find_class(class_name, "recipe: model", plugins)).parameters
    found: dict[str, Any] = {**section, "event_shape": list(data.event_shape)}
    if data.num_classes:
        found["num_classes"] = data.num_classes
    if data.levels is not None or "logit" in known:  # densities of grey levels alone keep theirs, and refuse the data
        found["levels"] = data.levels
    if data.levels == 2:
        found["likelihood"] = "bernoulli"
    elif found.get("likelihood", "bernoulli") == "bernoulli":
        found |= {"likelihood": "discretized-logistic", "min_scale": 0.05}
    if "sigma_data" in known:
        x = 2 * next(data.batches("train", batch_size=STANDARD_DEVIATION)).x - 1
        found["sigma_data"] = round(max(0.01, float(x.std())), 3)
    return {name: value for name, value in found.items() if name in known}


def _planned(
    recipe: dict[str, Any],
    base: Mapping[str, Any],
    model: ZooModule,
    data: DataModule,
    changes: dict[str, Any],
    minutes: float | None,
    began: float,
    plugins: Collection[str],
) -> dict[str, Any]:
    """The recipe with its batch size, optimiser and length of training."""
    own = base.get("trainer") or {}
    num, wanted = len(data.split("train")), (base.get("data") or {}).get("batch_size", 128)
    size = num // math.ceil(num / min(wanted, num))  # an epoch leaves out less than a batch
    recipe["data"] = {**recipe["data"], "batch_size": size}
    kept = {name: own[name] for name in ("ema_decay", "precision", "sample_grids") if name in own}
    recipe["dtype"] = base.get("dtype", "float32")
    if isinstance(model, ClosedForm):
        if minutes is not None:
            raise ConfigError(f"minutes: {type(model).__name__} is fitted in passes over the data; leave it out")
        recipe["trainer"] = {**kept, "max_epochs": own.get("max_epochs") or 1, "keep_best": True}
        arguments = {name: value for name, value in recipe["model"].items() if name != "class"}
        candidates = strengths(recipe["model"]["class"], arguments, model)
        best, _ = tried(recipe, candidates, {"max_epochs": 1}, data, changes, plugins)
        return override(override(recipe, best), changes)
    recipe["trainer"] = {**kept, "keep_best": True, "checkpoint_every": 500}
    if isinstance(model, Unnormalized):
        recipe["trainer"]["log_z_temperatures"] = TEMPERATURES
    recipe["optimization"] = _optimization(base, data)
    steps = _steps(base)
    if minutes is not None:
        seconds = tried(recipe, [{}], by_steps(TIMED_STEPS), data, changes, plugins)[1] / TIMED_STEPS
        steps = max(VALIDATIONS, int((60 * minutes - (time.monotonic() - began)) / seconds))
    every = math.ceil(steps / VALIDATIONS)
    recipe["trainer"] |= by_steps(every * math.ceil(steps / every), every)
    recipe["optimization"]["warmup"] = max(1, min(recipe["optimization"].get("warmup", 0), steps // WARMUP))
    return override(recipe, changes)


def _steps(base: Mapping[str, Any]) -> int:
    """Number of training steps of a shipped recipe, but not more than `MOST_STEPS`."""
    trainer, size = base.get("trainer") or {}, (base.get("data") or {}).get("batch_size", 128)
    if (trainer.get("max_steps") or -1) > 0:
        return int(min(MOST_STEPS, trainer["max_steps"]))
    return int(min(MOST_STEPS, max(1, (trainer.get("max_epochs") or 1) * EPOCH // size)))


def _optimization(base: Mapping[str, Any], data: DataModule) -> dict[str, Any]:
    """The optimiser of a shipped recipe. A bound on the gradient grows with the number of values, as the loss does."""
    found = {"schedule": "cosine", **(base.get("optimization") or {})}
    if found.get("gradient_clip"):
        before = math.prod((base.get("model") or {}).get("event_shape") or (1, 28, 28))
        found["gradient_clip"] = float(f"{found['gradient_clip'] * max(1.0, math.prod(data.event_shape) / before):.3g}")
    return found
