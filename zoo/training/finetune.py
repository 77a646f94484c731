"""Fine-tuning of a pretrained checkpoint on your own images or arrays.

The recipe of the checkpoint itself says which optimiser suits the model. Fine-tuning derives another recipe from it,
made for 50 to 5,000 examples: small batches, a budget in steps, validation at every tenth of it, and `keep_best`, so
that the result is never worse than the start. What depends on the data, the learning rate or the regularisation of a
closed form, is found by short trial runs.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zoo.capabilities import Adversarial, Classifier, ClosedForm, Conditional, GenerativeModel, Unnormalized, ZooModule
from zoo.config import bind, brief, load_yaml
from zoo.data.base import DataModule
from zoo.data.own import ImageFolder, own_section
from zoo.distributed import is_leader, join, on_leader
from zoo.errors import ConfigError, ZooError
from zoo.files import expand
from zoo.measurement import Measurement, mean_and_error
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.examples import check_classes, check_like, measuring, per_example, shape_of
from zoo.optim import Optimization
from zoo.store.checkpoint import BEFORE_AFTER, RECIPE, Checkpoint
from zoo.store.source import checkpoint
from zoo.store.zoo import Zoo
from zoo.training.before_after import before_after
from zoo.training.callbacks import KeepBest
from zoo.training.recipe import (
    begin,
    build_data,
    build_model,
    check_place,
    fit,
    make,
    override,
    run_of,
    take_layers,
)

STEPS = 1000
FEW = 5000
"""Number of training examples below which batches are small."""
SMALL_BATCH, SMALLEST_BATCH = 32, 8
BATCH_VALUES = 2**15
"""Number of values in a small batch, which bounds the memory: 10 colour images of 32x32 pixels."""
VALIDATIONS = 10
PATIENCE = 4
TRIAL_STEPS, FIRST_STEPS = 50, 5
TRIAL_SHARE = 0.08
"""Share of the minutes that each trial run takes at most."""
RATES = (1.0, 0.3, 0.1)
"""Learning rates that are tried, as multiples of the checkpoint's own."""
STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4)
"""Regularisations of a closed form that are tried, as multiples of the checkpoint's own."""
WEAKEST = 1e-3
"""Regularisation in place of one that is zero."""
EPOCHS = 10
"""Number of passes over the data for a closed form."""
TEMPERATURES = 500
"""Effort of estimating log Z for a validation number."""
EVALUATION = {"k": 100, "num": 1000, "runs": 100, "temperatures": 1000}
"""How the result is measured; own data sets are small."""


def finetune(
    source: str | Checkpoint,
    data: str | Path,
    folder: str | Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    resize: bool = False,
    binarize: bool = False,
    skip_corrupt: bool = False,
    size: int | None = None,
    grey: bool = False,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    plugins: Collection[str] = (),
) -> Path:
    """Fine-tunes a checkpoint on your own data. The result is a checkpoint folder like any other.

    About a tenth of the data is held out for validation, which chooses the weights, and another tenth for the test. The
    numbers of the model on the test examples, before and after, are printed and recorded in the folder, and samples
    before and after are drawn as `before_after.png`.

    Args:
        source: A checkpoint, or a source that `Zoo.load` takes.
        data: A folder of images, where folders inside it are labels, or an .npz or .npy file.
        folder: The new checkpoint folder, which must not exist. The run itself is kept in `<folder>.run`.
        steps: Largest number of training steps, 1000 by default. Training stops earlier if the validation number gets
            no better.
        minutes: Time for training, in place of `steps`. The number of steps is estimated from trial runs.
        resize: Whether to convert images to the size and channels of the model.
        binarize: Whether to make pixels black or white, for models of binary data.
        skip_corrupt: Whether to leave out files that cannot be decoded.
        size: Height and width to which images are scaled, if the model is to have other ones than the checkpoint. The
            new model begins with the layers that fit, which are printed. So it does for arrays of another shape.
        grey: Whether images are converted to grey, and the model gets one channel.
        resume: Whether to go on with the run in `<folder>.run`.
        overrides: New values for keys of the recipe, such as {"optimization.lr": 1e-4}.
        plugins: Names of installed packages whose classes the checkpoint may use; see `Zoo.load`.

    Returns:
        The folder.

    Raises:
        DataError: The data are missing or damaged, or do not have the shape of the model.
        ConfigError: The checkpoint or a setting is unknown, the folder exists already, or fine-tuning would not change
            the model.
    """
    folder, path = expand(folder), expand(data).resolve()
    changes = dict(overrides or {})
    join()
    on_leader(lambda: check_place(folder, resume))
    for name, value in (("steps", steps), ("minutes", minutes)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{name}: expected more than 0, found {value}")
    start = source if isinstance(source, Checkpoint) else checkpoint(source, plugins)
    model = start.load()
    if model.fixed:
        raise ConfigError(f"{start.source}: cannot be fine-tuned, since {model.fixed}")
    if resize and (size is not None or grey):
        raise ConfigError("resize: expected the size of the model or another one, found both; leave out one of them")
    section = own_section(path, shape_of(model), resize, binarize, skip_corrupt, size, grey)
    base: dict[str, Any] = {"name": folder.name, "start": start.source, "seed": 0, "data": section}
    base["evaluation"] = EVALUATION
    recipe = override(base, changes)
    module = build_data(recipe["data"], recipe["seed"])
    if isinstance(model, Classifier | Conditional) and isinstance(module, ImageFolder) and module.classes:
        base |= _labelled(start, model, module, section)
        recipe = override(base, changes)
        module = build_data(recipe["data"], recipe["seed"])
    keeps_shape = section["class"] == "ImageFolder" and size is None and not grey
    if not keeps_shape and tuple(module.event_shape) != shape_of(model):
        arguments = {**start.arguments, **base.get("model", {}), "event_shape": list(module.event_shape)}
        base["model"] = {"class": start.class_name, **arguments}
        recipe = override(base, changes)
        _tell_layers(start, model, recipe)
    model = begin(recipe, recipe["seed"], start.plugins).eval()
    check_like(start, model, module)
    check_classes(model, module)
    settings = Evaluation(**bind(Evaluation, recipe["evaluation"] or {}, "evaluation"))
    before = _measured(model, module, settings)  # before training, so that what cannot be measured shows now

    began = run_of(folder) / RECIPE
    if resume and began.exists():
        kept = {key: value for key, value in load_yaml(began).items() if key not in ("name", "start")}
        recipe = override({**base, **kept, "data": {**kept["data"], **base["data"]}}, changes)
        module.batch_size = recipe["data"]["batch_size"]
    else:
        recipe = _planned(base, start, model, module, Budget(steps, minutes), changes)
    made = make(recipe, folder, resume=resume, data=module, plugins=start.plugins)
    result = made.load()
    after = _measured(result, module, settings)
    on_leader(lambda: _record(made, before, after))
    on_leader(lambda: _draw(made, model, result, module))
    if is_leader():
        print(_in_words(model, result, before, after, len(module.split("test"))))
    return folder


# ------------------------------------------------------------------------------------------------------------- recipe


@dataclass(frozen=True)
class Budget:
    """How long to train: a number of steps, or the minutes that they take; `STEPS` if neither is given."""

    steps: int | None = None
    minutes: float | None = None


def _tell_layers(start: Checkpoint, model: ZooModule, recipe: Mapping[str, Any]) -> None:
    """Prints which layers of a checkpoint fit the model of a recipe, whose images have another shape."""
    taken, anew = take_layers(build_model(recipe["model"], plugins=start.plugins), model)
    if is_leader():
        print(f"layers that begin with those of {start.source}: {', '.join(taken) or 'none'}")
        print(f"layers that begin anew: {', '.join(anew) or 'none'}")


def _labelled(
    start: Checkpoint, model: Classifier | Conditional, data: ImageFolder, section: dict[str, Any]
) -> dict[str, Any]:
    """Sections of the recipe that say which folder is which label of the model.

    Folders that are called like classes of the model are these classes. Otherwise labels follow the order of the
    folders, and the model gets as many as there are folders.
    """
    found, known = data.classes or [], start.classes or []
    if set(found) <= set(known) and len(known) == model.num_classes:
        return {"data": {**section, "classes": known}}
    if is_leader():
        print("labels: " + ", ".join(f"{label} = {name}" for label, name in enumerate(found)))
    changed: dict[str, Any] = {"data": {**section, "classes": found}}
    if len(found) != model.num_classes:
        changed["model"] = {"class": start.class_name, **start.arguments, "num_classes": len(found)}
        if is_leader():
            print(f"the model had {model.num_classes} labels and now has {len(found)}")
    return changed


def _planned(
    base: dict[str, Any], start: Checkpoint, model: ZooModule, data: DataModule, budget: Budget, changes: dict[str, Any]
) -> dict[str, Any]:
    """The whole recipe, after the trial runs that it takes."""
    own = start.settings
    averages = (own.get("trainer") or {}).get("ema_decay", 0.999)
    trainer = {"ema_decay": averages, "sample_grids": False, "keep_best": True, "patience": PATIENCE}
    num, wanted = len(data.split("train")), (own.get("data") or {}).get("batch_size", SMALL_BATCH)
    if num < FEW and not isinstance(model, ClosedForm):
        parts = model.critic_steps if isinstance(model, Adversarial) else 1
        wanted = min(wanted, _small_batch(data.event_shape) * parts)
    size = num // math.ceil(num / wanted)  # an epoch leaves out less than a batch
    recipe = {**base, "data": {**base["data"], "batch_size": size}, "trainer": {**trainer, "checkpoint_every": 100}}
    if isinstance(model, ClosedForm):
        recipe["trainer"]["max_epochs"] = EPOCHS
        epochs = {"max_epochs": 3 if model.iterative else 1}
        best, _ = tried(
            recipe, strengths(start.class_name, start.arguments, model), epochs, data, changes, start.plugins
        )
        return override(override(recipe, best), changes)
    if isinstance(model, Unnormalized):
        recipe["trainer"]["log_z_temperatures"] = TEMPERATURES
    recipe["optimization"] = {"schedule": "cosine", **(own.get("optimization") or {})}
    return _planned_steps(recipe, data, budget, changes, start.plugins)


def _small_batch(event_shape: Sequence[int]) -> int:
    """Number of examples in a small batch, fewer of large examples, so that the memory of training is bounded."""
    return min(SMALL_BATCH, max(SMALLEST_BATCH, BATCH_VALUES // math.prod(event_shape)))


def _planned_steps(
    recipe: dict[str, Any], data: DataModule, budget: Budget, changes: dict[str, Any], plugins: Collection[str]
) -> dict[str, Any]:
    """The recipe with a learning rate that trial runs have found, and a number of steps."""
    began, steps, trial = time.monotonic(), budget.steps or STEPS, TRIAL_STEPS
    rates: list[dict[str, Any]] = [{}] if "optimization.lr" in changes else _rates(recipe["optimization"])
    if steps < TRIAL_STEPS:  # trials would take longer than the run itself
        rates = rates[:1]
    best, seconds = rates[0], 0.0
    if budget.minutes is not None:
        seconds = tried(recipe, rates[:1], by_steps(FIRST_STEPS), data, changes, plugins)[1] / FIRST_STEPS
        trial = min(TRIAL_STEPS, max(FIRST_STEPS, int(TRIAL_SHARE * 60 * budget.minutes / seconds)))
    if len(rates) > 1:
        recipe["optimization"]["warmup"] = max(1, trial // 10)
        best, duration = tried(recipe, rates, by_steps(trial), data, changes, plugins)
        seconds = duration / trial
    if budget.minutes is not None:
        steps = max(VALIDATIONS, int((60 * budget.minutes - (time.monotonic() - began)) / seconds))
    every = math.ceil(steps / VALIDATIONS)
    recipe["trainer"] |= by_steps(every * math.ceil(steps / every), every)
    recipe["optimization"]["warmup"] = max(1, steps // 20)
    if is_leader() and seconds:
        print(f"training takes {steps} steps at most, about {steps * seconds / 60:.1f} minutes")
    return override(override(recipe, best), changes)


def by_steps(num: int, every: int | None = None) -> dict[str, Any]:
    """Options of the trainer for a number of steps, with a validation after each `every` of them or at the end."""
    return {"max_epochs": -1, "max_steps": num, "val_check_interval": every or num, "check_val_every_n_epoch": None}


def _rates(optimization: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Changes of a recipe: the learning rates to try."""
    own = {name: optimization.get(name, getattr(Optimization, name)) for name in ("lr", "critic_lr")}
    return [
        {f"optimization.{name}": float(f"{rate * value:.3g}") for name, value in own.items() if value is not None}
        for rate in RATES
    ]


def strengths(class_name: str, arguments: Mapping[str, Any], model: ClosedForm) -> list[dict[str, Any]]:
    """Changes of a recipe: the regularisations to try for a model of this class with these arguments."""
    if (name := model.regularizer) is None:
        return [{}]
    own = max(getattr(model, name), WEAKEST)
    return [{"model": {"class": class_name, **arguments, name: strength * own}} for strength in STRENGTHS]


def tried(
    recipe: dict[str, Any],
    candidates: list[dict[str, Any]],
    length: dict[str, Any],
    data: DataModule,
    changes: dict[str, Any],
    plugins: Collection[str],
) -> tuple[dict[str, Any], float]:
    """Short runs with each of some changes of a recipe.

    Args:
        recipe: The recipe.
        candidates: New values by key, one mapping for each run.
        length: Length of the runs, as options of the trainer.
        data: The data set.
        changes: What the user wants changed.
        plugins: Names of the installed packages whose model classes may be used.

    Returns:
        The candidate with the best validation number at the end, and the seconds that its steps took.

    Raises:
        ZooError: All runs failed.
    """
    quiet = {"progress": False, "logger": False, "wandb": None, "patience": None, "checkpoint_every": 10**9}
    options = {f"trainer.{name}": value for name, value in {**quiet, **length}.items()}
    data.batch_size = changes.get("data.batch_size", recipe["data"]["batch_size"])
    numbers: list[float] = []
    times: list[float] = []
    failure: ZooError | None = None
    for candidate in candidates:
        with tempfile.TemporaryDirectory() as folder:
            try:
                trial = override(recipe, {**candidate, **changes, **options})
                trained = fit(trial, Path(folder) / "trial", data=data, plugins=plugins)
                numbers.append(_keeper(trained).last)
                times.append(_keeper(trained).seconds)
            except ZooError as error:  # too high a rate diverges, and a singular covariance has no inverse
                numbers.append(math.nan)
                times.append(math.nan)
                failure = error
    best = min(range(len(candidates)), key=lambda i: numbers[i] if math.isfinite(numbers[i]) else math.inf)
    if failure is not None and all(map(math.isnan, times)):
        raise failure
    if is_leader() and len(candidates) > 1:
        tried = ", ".join(f"{number:.5g}" for number in numbers)
        print(f"trial runs: {tried} on the validation images; the best had {brief(candidates[best], 200)}")
    return candidates[best], times[best]


def _keeper(trained: ZooModule) -> KeepBest:
    callbacks = trained.trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, KeepBest))


# ------------------------------------------------------------------------------------------------------------ results


WORDS = {
    "nll": "nats per image",
    "neg_elbo": "nats per image (a bound)",
    "accuracy": "% of the labels right",
    "squared_error": "squared error per image",
    "fid": "FID",
    "kid": "KID",
}
"""What the last line of fine-tuning calls a number; the first that a model has is the one that it tells."""


def _measured(model: ZooModule, data: DataModule, settings: Evaluation) -> list[Measurement]:
    """All numbers of a model on the test examples, in parts that take little memory.

    If none of them is in `WORDS`, the number that the model's objective is judged by is added.
    """
    size = max(10, min(500, 400_000 // math.prod(data.event_shape)))
    found = evaluate(model, data, settings, batch_size=size)
    if any(number.name in WORDS for number in found):
        return found
    name = model.objective.judged_by
    with measuring(model):
        values = per_example(
            lambda batch: model.objective.validation_step(model, batch)[name],
            data,
            "test",
            index=None,
            batch_size=size,
            device=model.device,
            label=f"{name} on {data.name} test",
            progress=True,
        )
    value, error = mean_and_error(values)
    return [*found, Measurement(name, value, error, "", "estimate", len(values), settings.seed, "test", data.name)]


def _record(made: Checkpoint, before: list[Measurement], after: list[Measurement]) -> None:
    """Prints the numbers, and writes them into the checkpoint."""
    rows = []
    for new in after:
        old = next((number for number in before if number.key == new.key), None)
        print(f"before: {old}\nafter:  {new}")
        details = new.details | ({} if old is None else {"before": old.value})
        rows.append({**replace(new, details=details).to_dict(), "command": f"zoo evaluate local-dir:{made.name}"})
    Zoo.update(made, rows)


def _draw(made: Checkpoint, before: ZooModule, after: ZooModule, data: DataModule) -> None:
    """Adds a picture of samples before and after to the checkpoint, if the model draws images."""
    if isinstance(before, GenerativeModel) and isinstance(after, GenerativeModel) and len(data.event_shape) == 3:
        Zoo.update(made, files={BEFORE_AFTER: before_after(before, after, data)})


def _in_words(
    old_model: ZooModule, new_model: ZooModule, before: list[Measurement], after: list[Measurement], num: int
) -> str:
    """What was learned, in one sentence; `num` is the number of test examples."""
    pairs = {new.name: (old, new) for new in after[::-1] for old in before if old.key == new.key}
    name = next(name for name in (*WORDS, new_model.objective.judged_by) if name in pairs)
    old, new = pairs[name]
    change = f"{old.value:.4g} -> {new.value:.4g} {WORDS.get(name, name)} on {num} test images"
    advice = "add images, or try more --steps or another --optimization.lr"
    new_state = new_model.state_dict()
    if all(torch.equal(value, new_state[key]) for key, value in old_model.state_dict().items()):
        return f"learned nothing: the checkpoint as it was suits your validation images best; {advice}"
    is_better = new.value > old.value if name == "accuracy" else new.value < old.value
    return f"learned: {change}" if is_better else f"learned nothing that the test images show: {change}; {advice}"
