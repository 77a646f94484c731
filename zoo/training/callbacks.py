"""What the common Trainer adds to Lightning's own callbacks."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning import Trainer as LightningTrainer
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from zoo.capabilities import GenerativeModel
from zoo.errors import ZooError


class LogMeans(Callback):
    """Logs what `training_step` and `validation_step` return, as means over steps and over examples.

    Values are summed without leaving the device, and logged every `log_every_n_steps` steps: one call of `log` a step
    would cost more than a small model's step. Training stops with a clear message when a logged value is not finite.
    """

    def __init__(self) -> None:
        self._train: dict[str, Tensor] = {}
        self._steps = 0
        self._valid: dict[str, Tensor] = {}
        self._examples = 0

    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not outputs:
            return
        for name, value in outputs.items():
            value = value.detach()
            self._train[name] = self._train[name] + value if name in self._train else value
        self._steps += 1
        if trainer.global_step % trainer.log_every_n_steps:
            return
        means = {name: value / self._steps for name, value in self._train.items()}
        self._train, self._steps = {}, 0
        for name, value in means.items():
            if not torch.isfinite(value):
                raise ZooError(
                    f"training diverged: {name} is {value.item()} at step {trainer.global_step}; resume from the last "
                    "checkpoint with a smaller optimization.lr, a warmup or a gradient_clip"
                )
        pl_module.log_dict({f"train/{k}": v for k, v in means.items()}, prog_bar=True, on_step=True, on_epoch=False)

    def on_validation_epoch_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        self._valid, self._examples = {}, 0

    def on_validation_batch_end(
        self,
        trainer: LightningTrainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not outputs:
            return
        for name, value in outputs.items():  # [B]
            total = value.detach().double().sum()
            self._valid[name] = self._valid[name] + total if name in self._valid else total
        self._examples += len(batch.x)

    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if not self._examples:
            return
        count = torch.tensor(float(self._examples), dtype=torch.float64, device=pl_module.device)
        count = trainer.strategy.reduce(count, reduce_op="sum")
        for name, value in self._valid.items():
            mean = trainer.strategy.reduce(value, reduce_op="sum") / count
            pl_module.log(f"valid/{name}", mean.float(), prog_bar=True, rank_zero_only=False)


class SampleGrid(Callback):
    """Draws the same noise after every validation: one PNG an epoch in `folder`, and in loggers that take images.

    Stands before weight averaging in the list of callbacks, so that it draws from the averaged weights.
    """

    def __init__(self, folder: Path, num_samples: int = 64) -> None:
        self.folder = folder
        self.num_samples = num_samples

    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(pl_module, GenerativeModel):
            return
        if len(pl_module.event_shape) != 3:
            return
        from zoo.pictures import grid

        picture = grid(pl_module.sample(self.num_samples, generator=torch.Generator().manual_seed(pl_module.seed)))
        self.folder.mkdir(parents=True, exist_ok=True)
        picture.save(self.folder / f"epoch_{trainer.current_epoch:04d}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [picture], step=trainer.global_step)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill or a full disk leaves the previous checkpoint intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
