"""The common Trainer: `lightning.Trainer` with one tested set of defaults."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy

from zoo.config import near
from zoo.errors import ConfigError
from zoo.training.callbacks import AtomicCheckpointIO, LogMeans, SampleGrid

CHECKPOINT = "last.ckpt"


def Trainer(  # noqa: N802 - stands for the class that it makes
    folder: str | Path,
    *,
    ema_decay: float | None = 0.999,
    checkpoint_every: int = 500,
    sample_grids: bool = True,
    wandb: dict[str, Any] | None = None,
    progress: bool = True,
    callbacks: list[Callback] | None = None,
    **options: Any,
) -> lightning.Trainer:
    """A `lightning.Trainer` that averages weights, logs, draws, checkpoints atomically, and resumes exactly.

    Args:
        folder: where the run keeps `last.ckpt`, `logs/` and `samples/`.
        ema_decay: of the exponential moving average of the weights, which is what validation and export see; or None.
        checkpoint_every: steps between checkpoints of the run.
        sample_grids: draw a grid of samples after each validation.
        wandb: arguments of `WandbLogger` (project, name, offline, ...), or None to log to CSV alone.
        progress: show a progress bar.
        callbacks: more callbacks.
        options: everything else that `lightning.Trainer` takes: max_epochs, devices, strategy, precision, ...

    Raises:
        ConfigError: the machine does not have the devices asked for, or Lightning refuses an option.
    """
    known = inspect.signature(lightning.Trainer).parameters
    for name in options:
        if name not in known:
            raise ConfigError(f"trainer: no option {name!r}; {near(name, known)}")
    folder = Path(folder)
    ours: list[Callback] = [LogMeans()]
    if sample_grids:
        ours.append(SampleGrid(folder / "samples"))  # before the averaging callback: it sees averaged weights
    if ema_decay is not None:
        # buffers hold constants and power iterations, which must not be averaged
        ours.append(EMAWeightAveraging(decay=ema_decay, use_buffers=False))
    ours.append(
        ModelCheckpoint(
            dirpath=folder,
            filename=Path(CHECKPOINT).stem,
            every_n_train_steps=checkpoint_every,
            enable_version_counter=False,
        )
    )
    loggers: list[Logger] = [CSVLogger(folder, name="logs")]
    if wandb is not None:
        loggers.append(WandbLogger(save_dir=folder, **wandb))
        ours.append(LearningRateMonitor("step"))
    if progress:
        ours.append(TQDMProgressBar(refresh_rate=20))
    settings: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 50,
        "use_distributed_sampler": False,  # the data layer stripes batches itself, so that n processes equal one
        "enable_model_summary": False,
        "enable_progress_bar": progress,
        "plugins": [AtomicCheckpointIO()],
        **options,
    }
    if settings.get("strategy") == "ddp":
        # in an adversarial step each of the two backward passes leaves the other network's parameters unused
        settings["strategy"] = DDPStrategy(find_unused_parameters=True)
    try:
        return lightning.Trainer(
            default_root_dir=folder, logger=loggers, callbacks=[*ours, *(callbacks or [])], **settings
        )
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # MisconfigurationException is a RuntimeError or an Exception
        reason = " ".join(str(error).split())
        raise ConfigError(f"trainer: {reason}") from error
