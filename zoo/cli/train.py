"""Train: from a recipe, or from a checkpoint on own data."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zoo.cli.command import command, either, option
from zoo.cli.options import (
    NAME,
    PLUGIN,
    SHARED,
    checkpoint_of,
    new_shape,
    number,
    own_data,
    own_data_of,
    reading,
    seed,
    whole,
)
from zoo.config import parse_yaml
from zoo.errors import ConfigError, ZooError
from zoo.files import expand


def _run_options(parser: argparse.ArgumentParser) -> None:
    """The options of a training run, and keys of its recipe."""
    parser.add_argument(
        "--out", type=expand, required=True, help="Checkpoint folder to create; the run is kept in OUT.run"
    )
    parser.add_argument("--seed", type=seed, help="Seed in place of the recipe's")
    parser.add_argument("--resume", action="store_true", help="Go on with the run in OUT.run")
    parser.set_defaults(takes_recipe_keys=True, check=_check_folder)
    parser.epilog = "--SECTION.KEY VALUE sets a key of the recipe: --trainer.devices 2 --optimization.lr 1e-4"


def split_recipe_keys(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separates `--section.key value` and `--section.key=value` from the other words.

    Returns:
        The other words, and {"section.key": value} with each value read as YAML.
    """
    words: list[str] = []
    keys: dict[str, Any] = {}
    rest = iter(arguments)
    for word in rest:
        key, equals, value = word.partition("=")
        if not (key.startswith("--") and "." in key):
            words.append(word)
            continue
        if not equals and ((value := next(rest, "--")).startswith("--")):
            raise ConfigError(f"{key}: expected a value after it, found {'none' if value == '--' else value}")
        keys[key[2:]] = parse_yaml(f"value: {value}", key)["value"]
    return words, keys


def _check_folder(options: argparse.Namespace) -> None:
    is_result = options.resume and options.out.with_name(f"{options.out.name}.run").exists()
    if options.out.exists() and not is_result:  # a result to which numbers may be missing
        raise ConfigError(f"{options.out}: exists already; choose another folder")


@command(
    "Train",
    option(
        "recipe", metavar="RECIPE", help="YAML file, a checkpoint whose recipe to run again, or a model such as dcgan"
    ),
    PLUGIN,
    option("--data", type=expand, help="Your own data in place of the recipe's: a folder of images, or .npz or .npy"),
    *new_shape,
    option("--minutes", type=number, help="Time to train on --data for, in place of the recipe's epochs"),
    *reading,
    _run_options,
    SHARED,
)
def fit(options: argparse.Namespace) -> None:
    """Train the model of a recipe, or any model on your own images.

    `zoo fit NAME --out FOLDER` trains a pretrained checkpoint again. With `--data`, the model gets the size, channels
    and classes of your data, and the chosen defaults are printed as a recipe.
    """
    if options.data is not None:
        _fit_own(options)
        return
    for name in ("size", "grey", "minutes", "binarize", "skip_corrupt"):
        if getattr(options, name):
            raise ConfigError(f"--{name.replace('_', '-')}: expected --data beside it, found none")

    from zoo.store.recipes import load_recipe

    recipe = load_recipe(options.recipe, _recipe_keys(options), options.plugins)  # before torch is imported

    from zoo.distributed import is_leader
    from zoo.training.recipe import make

    with _resumable():
        made = make(recipe, options.out, resume=options.resume, plugins=options.plugins)
    if is_leader():
        print(made.folder)
        if not made.numbers:
            print(f"now measure it: zoo evaluate {made.source} --write")


def _fit_own(options: argparse.Namespace) -> None:
    own_data_of(options)

    from zoo.distributed import is_leader
    from zoo.training.scratch import train_on

    with _resumable():
        made = train_on(
            options.recipe,
            options.data,
            options.out,
            size=options.size,
            grey=options.grey,
            minutes=options.minutes,
            binarize=options.binarize,
            skip_corrupt=options.skip_corrupt,
            resume=options.resume,
            overrides=_recipe_keys(options),
            plugins=options.plugins,
        )
    if is_leader():
        draws = "Classifier" not in made.capabilities
        hint = "draw from it: zoo sample {} --out samples.png" if draws else "measure it: zoo evaluate {} --write"
        print(f"{made.folder}\nnow {hint.format(made.source)}")


@command(
    "Train",
    NAME,
    own_data,
    *new_shape,
    either(
        option("--steps", type=whole(most=10**7), help="Number of training steps at most (default: 1000)"),
        option("--minutes", type=number, help="Time to train for, in place of --steps"),
    ),
    _run_options,
    SHARED,
)
def finetune(options: argparse.Namespace) -> None:
    """Adapt a checkpoint to your own images or arrays.

    Short trial runs find the learning rate. Validation chooses the best weights, so that the result is not worse than
    the checkpoint, and stops training that gets no better. Folders called train, val and test are splits. With
    `--size` or `--grey`, the model gets another shape and begins with the layers of the checkpoint that fit.
    """
    from zoo.store.recipes import override

    checkpoint, data = checkpoint_of(options), own_data_of(options)
    override({}, _recipe_keys(options))  # unknown sections are refused before torch is imported

    from zoo.distributed import is_leader
    from zoo.training.finetune import finetune

    with _resumable():
        folder = finetune(
            checkpoint,
            data,
            options.out,
            steps=options.steps,
            minutes=options.minutes,
            resize=options.resize,
            binarize=options.binarize,
            skip_corrupt=options.skip_corrupt,
            size=options.size,
            grey=options.grey,
            resume=options.resume,
            overrides=_recipe_keys(options),
        )
    if is_leader():
        print(folder)


def _recipe_keys(options: argparse.Namespace) -> dict[str, Any]:
    return options.recipe_keys if options.seed is None else {**options.recipe_keys, "seed": options.seed}


@contextmanager
def _resumable() -> Iterator[None]:
    """Says how an interrupted run goes on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        raise ZooError("interrupted; give the same command with --resume to go on") from None
