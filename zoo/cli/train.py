"""Train: from a recipe, or from a checkpoint on own data."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from zoo.cli.command import command, either, option
from zoo.cli.options import NAME, PLUGIN, SHARED, checkpoint_of, number, own_data, own_data_of, seed, whole
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
    option("recipe", metavar="RECIPE", help="YAML file, or a checkpoint whose recipe to run again"),
    PLUGIN,
    _run_options,
    SHARED,
)
def fit(options: argparse.Namespace) -> None:
    """Train the model that a recipe describes.

    `zoo fit NAME --out FOLDER` trains a pretrained checkpoint again.
    """
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


@command(
    "Train",
    NAME,
    own_data,
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
    the checkpoint, and stops training that gets no better. Folders called train, val and test are splits.
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
