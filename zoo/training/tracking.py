"""Runs in Weights & Biases: what Lightning's `WandbLogger` logs of a training, and the checkpoint that came of it.

Losses, learning rate and sample grids are logged by callbacks of the Trainer, figures of the system by wandb itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import WandbLogger

from zoo.config import near
from zoo.distributed import is_leader, on_leader
from zoo.errors import ConfigError
from zoo.measurement import Measurement


def wandb_logger(folder: Path, arguments: dict[str, Any]) -> WandbLogger:
    """The logger of a run that is kept in `folder`, not yet begun; `arguments` as of `Trainer`.

    Raises:
        ConfigError: wandb is not installed, or an argument is unknown.
    """
    try:
        import wandb
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"trainer: wandb: the package cannot be imported ({reason}); pip install wandb, or leave it out"
        ) from error
    options = {"save_dir": folder, **arguments}
    known = {*inspect.signature(WandbLogger).parameters, *inspect.signature(wandb.init).parameters} - {"kwargs"}
    for name in options:
        if name == "log_model":
            raise ConfigError("trainer: wandb: log_model is not used here: the finished checkpoint is logged anyway")
        if name not in known:
            raise ConfigError(f"trainer: wandb: no option {name!r}; {near(name, known)}")
    if options.pop("offline", False):
        options["mode"] = "offline"  # Lightning's own switch sets the mode of the whole process
    return WandbLogger(**options)


def begin(trainer: lightning.Trainer) -> None:
    """Opens the W&B run of a Trainer, if it has one, before anything else is made. Every process must call it.

    Raises:
        ConfigError: wandb has no key, or does not reach its server.
    """

    def open_run(logger: WandbLogger) -> None:
        import wandb

        try:
            _ = logger.experiment
        except wandb.errors.Error as error:
            raise ConfigError(
                f"trainer: wandb: {' '.join(str(error).split())} Or log without a network: offline: true"
            ) from error

    for logger in _wandb(trainer):
        on_leader(partial(open_run, logger))


@contextmanager
def failing(trainer: lightning.Trainer) -> Iterator[None]:
    """Ends the W&B run of a Trainer, if it has one, as failed where the body fails."""
    try:
        yield
    except BaseException:
        for logger in _wandb(trainer) if is_leader() else []:
            with suppress(Exception):  # what went wrong first is what matters
                logger.experiment.finish(exit_code=1)
        raise


def finish(trainer: lightning.Trainer, folder: Path, numbers: list[Measurement]) -> None:
    """Ends the W&B run of a Trainer with the numbers of the checkpoint in `folder`, an artifact; for the leader."""
    for logger in _wandb(trainer):
        import wandb

        logger.log_metrics({_title(number): number.value for number in numbers}, step=trainer.global_step)
        artifact = wandb.Artifact(folder.name, "model", metadata={_title(number): number.value for number in numbers})
        artifact.add_dir(str(folder))
        logger.experiment.log_artifact(artifact)
        logger.experiment.finish()


def is_tracked(trainer: lightning.Trainer) -> bool:
    """Whether the Trainer logs to W&B."""
    return bool(_wandb(trainer))


def _wandb(trainer: lightning.Trainer) -> list[WandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _title(number: Measurement) -> str:
    unit = {"nats": "_nats", "bits/dim": "_bits_per_dim"}.get(number.unit, "")
    return f"{number.split}/{number.name}{unit}"
