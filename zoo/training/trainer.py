"""The common Trainer: a `lightning.Trainer` with one tested set of defaults."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy

from zoo.capabilities import ZooModule
from zoo.config import brief, check, near, reason
from zoo.data.adapt import as_data, is_adaptable
from zoo.distributed import launcher, on_leader
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.metrics.examples import check_fit
from zoo.progress import on_terminal
from zoo.training.callbacks import (
    AtomicCheckpointIO,
    KeepBest,
    LogMeans,
    LogNormalizer,
    RunCheckpoint,
    SampleGrid,
    WeightAverage,
)
from zoo.training.tracking import begin, wandb_logger

CHECKPOINT = "last.ckpt"
_PRECISIONS = ("32-true", "32", 32, "bf16-mixed", "bf16", "16-mixed")
_COUNT = int | None
_KINDS: dict[str, Any] = {
    "max_epochs": _COUNT,
    "max_steps": _COUNT,
    "log_every_n_steps": _COUNT,
    "check_val_every_n_epoch": _COUNT,
    "accumulate_grad_batches": int,
    "num_nodes": int,
}
_OURS = {
    "gradient_clip_val": "set optimization.gradient_clip, which also works for models with two optimisers",
    "reload_dataloaders_every_n_epochs": "every epoch has a new order anyway",
    "gradient_clip_algorithm": "optimization.gradient_clip bounds the norm",
}


def Trainer(  # noqa: N802 - it is called in place of the class
    folder: str | Path,
    *,
    ema_decay: float | None = 0.999,
    checkpoint_every: int = 500,
    sample_grids: bool = True,
    log_z_temperatures: int | None = None,
    keep_best: bool = False,
    patience: int | None = None,
    wandb: dict[str, Any] | None = None,
    progress: bool = True,
    callbacks: list[Callback] | None = None,
    **options: Any,
) -> lightning.Trainer:
    """Makes a `lightning.Trainer` that averages weights, logs, draws samples, saves atomically and resumes exactly.

    Its `fit` takes data modules and loaders, and also data sets of PyTorch or torchvision; see `zoo.data.as_data`.

    Args:
        folder: Folder of the run, for `last.ckpt`, `logs/` and `samples/`.
        ema_decay: Decay of the exponential moving average of the weights, which validation and export use; None for no
            average.
        checkpoint_every: Number of steps between two checkpoints of the run.
        sample_grids: Whether to draw a grid of samples after each validation.
        log_z_temperatures: Number of temperatures of a short annealed importance sampling after each validation of an
            unnormalised model, which estimates log Z and with it the likelihood; None for none.
        keep_best: Whether the trained model gets the weights with the best validation number, those at the start
            included; see `KeepBest`.
        patience: Number of validations without a better number after which training stops; it needs `keep_best`.
        wandb: Arguments of `WandbLogger` and `wandb.init` (project, name, offline, ...); None to log to CSV only.
        progress: Whether to show a progress bar, on a terminal or in a notebook.
        callbacks: Further callbacks.
        options: Other options of `lightning.Trainer`: max_epochs, devices, strategy, precision, ...

    Raises:
        ConfigError: An option is unknown or impossible, or the machine does not have these devices.
    """
    known = inspect.signature(lightning.Trainer).parameters
    for name in options:
        if name in _OURS:
            raise ConfigError(f"trainer: leave out {name}; {_OURS[name]}")
        if name not in known:
            ours_too = [*known, *inspect.signature(Trainer).parameters]
            raise ConfigError(f"trainer: no option {name!r}; {near(name, ours_too)}")
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ConfigError(f"trainer: ema_decay must lie in [0, 1), found {ema_decay}")
    if checkpoint_every < 1:
        raise ConfigError(f"trainer: checkpoint_every must be at least 1, found {checkpoint_every}")
    if log_z_temperatures is not None and log_z_temperatures < 1:
        raise ConfigError(f"trainer: log_z_temperatures must be at least 1, found {log_z_temperatures}")
    if patience is not None and (patience < 1 or not keep_best):
        raise ConfigError(f"trainer: patience must be at least 1 and needs keep_best: true, found {patience}")
    if (precision := options.get("precision")) not in (None, *_PRECISIONS):
        raise ConfigError(
            f"trainer: precision: expected 32-true, bf16-mixed or 16-mixed, found {brief(precision)}; choose one, "
            "since others convert the weights but not the data"
        )
    check({name: value for name, value in options.items() if name in _KINDS}, _KINDS, "trainer", optional=_KINDS)
    if isinstance(options.get("max_time"), int | float):  # as YAML reads 12:00:00:00 too
        raise ConfigError("trainer: max_time: expected 'DD:HH:MM:SS', found a number; put it in quotes")
    _quieten()
    folder, num_nodes = expand(folder), options.get("num_nodes", 1)
    ours: list[Callback] = [LogMeans()]
    if sample_grids:
        ours.append(SampleGrid(folder / "samples"))  # before the averaging callback, so that it uses the averages
    if log_z_temperatures is not None:
        ours.append(LogNormalizer(log_z_temperatures))
    if keep_best:
        ours.append(KeepBest(patience))
    if ema_decay is not None:
        ours.append(WeightAverage(ema_decay))
    ours.append(RunCheckpoint(folder / CHECKPOINT, checkpoint_every))
    progress = progress and (on_terminal() or _in_notebook())
    if progress:
        ours.append(_Bar(refresh_rate=20))
    settings: dict[str, Any] = {
        "accelerator": "gpu" if torch.cuda.is_available() else "cpu",
        "devices": 1,
        "logger": True,
        "num_sanity_val_steps": -1 if keep_best else 0,  # this validates the start
        "log_every_n_steps": 50,
        "use_distributed_sampler": False,  # the data module itself divides batches among processes
        "enable_model_summary": False,
        "enable_progress_bar": progress,
        "plugins": [AtomicCheckpointIO(), *filter(None, [launcher(num_nodes)])],
        "profiler": _NoProfiler(),
        "default_root_dir": folder,
        **options,
    }
    num_processes = settings["devices"]
    if settings["accelerator"] == "cpu" and isinstance(num_processes, int) and num_processes > (os.cpu_count() or 1):
        raise ConfigError(
            f"trainer: devices={num_processes} asks for more processes than this machine has processors "
            f"({os.cpu_count()}); ask for fewer"
        )
    strategy = settings.get("strategy", "auto")
    method = strategy if isinstance(strategy, str) else getattr(strategy, "_start_method", "")
    if any(word in str(method) for word in ("spawn", "fork", "notebook")):
        raise ConfigError(
            f"trainer: strategy: {brief(strategy)} copies this process, and the trained model would stay in a copy; "
            "choose ddp, or leave it out for one device"
        )
    if strategy == "ddp" or (strategy == "auto" and (num_processes not in (1, "1") or num_nodes != 1)):
        settings["strategy"] = _DDP()
    try:
        if settings["logger"] is True:
            settings["logger"] = _loggers(folder, wandb)
        trainer = _Trainer(callbacks=[*ours, *(callbacks or [])], **settings)
    except (TypeError, ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise ConfigError(f"trainer: {reason(error)}") from error
    begin(trainer)
    return trainer


class _Trainer(lightning.Trainer):
    """A Trainer that also takes data sets of PyTorch and arrays; see `zoo.data.as_data`."""

    def fit(
        self, model: Any, train_dataloaders: Any = None, val_dataloaders: Any = None, *more: Any, **named: Any
    ) -> None:
        if is_adaptable(train_dataloaders):
            train_dataloaders, val_dataloaders = as_data(train_dataloaders, val_dataloaders), None
            if isinstance(model, ZooModule):
                check_fit(model, train_dataloaders)
        super().fit(model, train_dataloaders, val_dataloaders, *more, **named)


class _Bar(TQDMProgressBar):
    """Lightning's progress bar, on standard error, so that it does not mix with results on standard output."""

    def init_train_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_train_tqdm()

    def init_validation_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


class _NoProfiler(PassThroughProfiler):
    """Does nothing. Lightning enters the context of its profiler at each hook of each callback; this one is cheap."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return _NOTHING


_NOTHING = nullcontext()


class _DDP(DDPStrategy):
    """Averages gradients over processes.

    Models that are fitted in closed form have no gradients and are not wrapped; they sum statistics over processes
    themselves. For models that optimise manually, unused parameters are searched for, since each of the two backward
    passes of an adversarial step leaves some. If the first process cannot save a checkpoint, all processes stop.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        on_leader(partial(super().save_checkpoint, checkpoint, filepath, storage_options))

    def configure_ddp(self) -> None:
        module = self.lightning_module
        if module is not None and any(parameter.requires_grad for parameter in module.parameters()):
            self._ddp_kwargs["find_unused_parameters"] = not module.automatic_optimization
            self._ddp_kwargs["broadcast_buffers"] = False  # they are equal, and some processes have fewer batches
            super().configure_ddp()


def _loggers(folder: Path, wandb: dict[str, Any] | None) -> list[Logger]:
    csv = CSVLogger(folder, name="logs")
    return [csv] if wandb is None else [csv, wandb_logger(folder, wandb)]


_WARNINGS = (
    r".*LeafSpec.*is deprecated",  # from torch, about Lightning
    r".*does not have many workers",  # the data modules need none
    r".*`broadcast_buffers` is deprecated",  # from torch; the option that it recommends would still send them once
    r".*is smaller than the logging interval",  # means are also logged at the end of each epoch
    r".*when logging on epoch level in distributed setting",  # the logged values are means over processes already
)
_LINES = (
    "GPU available",
    "TPU available",
    "💡 Tip",
    "Loading `train_dataloader`",
    "You are using the plain",
    "`Trainer.fit` stopped: `max_",  # the end that was asked for
)


def _quieten() -> None:
    """Hides warnings and lines of Lightning that are wrong or useless here, and nothing else."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)
