"""Logging to Weights & Biases, through Lightning's `WandbLogger`.

Callbacks of the Trainer log losses, the learning rate and sample grids; wandb itself logs figures of the system. This
module opens the W&B run, and ends it with the numbers and files of the finished checkpoint.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import WandbLogger

from zoo.config import near, reason
from zoo.distributed import is_leader, on_leader
from zoo.errors import ConfigError
from zoo.measurement import Measurement


def wandb_logger(folder: Path, arguments: dict[str, Any]) -> WandbLogger:
    """Returns a logger whose W&B run has not begun yet.

    Args:
        folder: Folder of the run.
        arguments: Arguments of `WandbLogger` and `wandb.init`.

    Raises:
        ConfigError: The package wandb is not installed, or an argument is unknown.
    """
    try:
        import wandb
    except Exception as error:
        raise ConfigError(
            f"trainer: wandb: the package cannot be imported ({reason(error)}); pip install wandb, or leave it out"
        ) from error
    options = {"save_dir": folder, **arguments}
    known = {*inspect.signature(WandbLogger).parameters, *inspect.signature(wandb.init).parameters} - {"kwargs"}
    for name in options:
        if name == "log_model":
            raise ConfigError("trainer: wandb: leave out log_model; the finished checkpoint is logged anyway")
        if name not in known:
            raise ConfigError(f"trainer: wandb: no option {name!r}; {near(name, known)}")
    if options.pop("offline", False):
        options["mode"] = "offline"  # Lightning's own option sets the mode of the whole process
    return WandbLogger(**options)


def begin(trainer: lightning.Trainer) -> None:
    """Opens the W&B run of a Trainer, if it has one. Every process must call this before training.

    Raises:
        ConfigError: There is no key for wandb, or its server cannot be reached.
    """

    def open_run(logger: WandbLogger) -> None:
        import wandb

        try:
            _ = logger.experiment
        except wandb.errors.Error as error:
            raise ConfigError(f"trainer: wandb: {reason(error)} To log without a network, set offline: true") from error

    for logger in _wandb(trainer):
        on_leader(partial(open_run, logger))


@contextmanager
def failing(trainer: lightning.Trainer) -> Iterator[None]:
    """If the body of the `with` statement fails, marks the W&B run of a Trainer, if it has one, as failed."""
    try:
        yield
    except BaseException:
        for logger in _wandb(trainer) if is_leader() else []:
            with suppress(Exception):  # the first error is the one that matters
                logger.experiment.finish(exit_code=1)
        raise


def finish(trainer: lightning.Trainer, folder: Path, numbers: list[Measurement]) -> None:
    """Ends the W&B run of a Trainer with the finished checkpoint. Only the first process may call it.

    Args:
        trainer: The Trainer.
        folder: The checkpoint folder, which is logged as an artifact.
        numbers: The numbers of the checkpoint.
    """
    for logger in _wandb(trainer):
        import wandb

        logger.log_metrics({_title(number): number.value for number in numbers}, step=trainer.global_step)
        title = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name)  # W&B allows no other characters
        artifact = wandb.Artifact(title, "model", metadata={_title(number): number.value for number in numbers})
        artifact.add_dir(str(folder))
        logger.experiment.log_artifact(artifact)
        logger.experiment.finish()


def is_tracked(trainer: lightning.Trainer) -> bool:
    """Returns whether a Trainer logs to W&B."""
    return bool(_wandb(trainer))


def _wandb(trainer: lightning.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _title(number: Measurement) -> str:
    unit = {"nats": "_nats", "bits/dim": "_bits_per_dim"}.get(number.unit, "")
    return f"{number.split}/{number.name}{unit}"
