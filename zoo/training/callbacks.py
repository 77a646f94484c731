"""What the common Trainer does at each step: means logged, weights averaged, samples drawn, the run saved."""

from __future__ import annotations

import math
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning import Trainer as LightningTrainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from torch.nn import Parameter

from zoo.capabilities import ClosedForm, GenerativeModel
from zoo.distributed import on_leader
from zoo.errors import CheckpointError, ZooError


class LogMeans(Callback):
    """Logs what `training_step` and `validation_step` return, as means over steps and over examples, of all processes.

    Values are summed without leaving the device, and logged every `log_every_n_steps` steps and at the end of an epoch:
    one call of `log` a step would cost more than a small model's step. Training stops when a mean is not finite.
    """

    def __init__(self) -> None:
        self._train: dict[str, Tensor] = {}
        self._steps = 0
        self._logged = 0  # the last step that was
        self._valid: dict[str, Tensor] = {}
        self._examples = 0

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        self._logged = trainer.global_step

    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not outputs:
            return
        for name, value in outputs.items():
            value = value.detach().float()
            self._train[name] = self._train[name] + value if name in self._train else value
        self._steps += 1
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0 and trainer.global_step != self._logged:
            self._logged = trainer.global_step  # which stays what it is while gradients are accumulated
            self._log_training(trainer, pl_module, on_step=True)

    def on_train_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if self._steps:
            self._log_training(trainer, pl_module, on_step=False)

    def _log_training(self, trainer: LightningTrainer, pl_module: LightningModule, *, on_step: bool) -> None:
        sums = trainer.strategy.reduce(torch.stack(list(self._train.values())), reduce_op="mean")
        means = dict(zip(self._train, (sums / self._steps).tolist(), strict=True))
        self._train, self._steps = {}, 0
        for name, value in means.items():
            if not math.isfinite(value):
                raise _diverged(f"{name} is {value}", trainer)
        means["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        for name, value in means.items():
            pl_module.log(f"train/{name}", value, prog_bar=True, on_step=on_step, on_epoch=not on_step)

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
        names = trainer.strategy.broadcast(list(self._valid))  # the first process has rows if any has
        if not names:
            return
        none = torch.zeros((), dtype=torch.float64, device=pl_module.device)
        sums = torch.stack([*(self._valid.get(name, none) for name in names), none + self._examples])
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
        for name, mean in zip(names, sums[:-1] / sums[-1], strict=True):
            pl_module.log(f"valid/{name}", mean.float(), prog_bar=True)


class WeightAverage(Callback):
    """Exponential moving average of the parameters, which validation, checkpoints and the trained model have.

        average <- d average + (1 - d) parameters    after step t,    d = min(decay, t / (t + 9))

    The smaller d of the first steps (Abadi et al. 2016, ExponentialMovingAverage in TensorFlow) forgets the initial
    weights in short runs too. After the first `DENSE` steps only each fourth is averaged, with d^4, unless d is 0: it
    costs as much as the optimiser's own pass over the parameters. Buffers hold constants and power iterations: they are
    not averaged. Models fitted in closed form are left alone.

    In the run's checkpoints, `state_dict` holds the averaged weights and `raw_state_dict` those of the last step.
    """

    DENSE = 40

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._step = 0
        self._loaded: dict[str, Tensor] | None = None
        self._parameters: dict[str, Parameter] = {}
        self._average: list[Tensor] = []

    def on_fit_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        self._parameters = {} if isinstance(pl_module, ClosedForm) else dict(pl_module.named_parameters())
        self._average = [parameter.detach().clone() for parameter in self._parameters.values()]
        if self._loaded is not None:
            for name, average in zip(self._parameters, self._average, strict=True):
                average.copy_(self._loaded[name])
            self._loaded = None

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._step or not self._average:  # gradients are being accumulated
            return
        self._step = step
        self.update(self._average, list(self._parameters.values()), self.decay, step)

    @classmethod
    @torch.no_grad()
    def update(cls, average: list[Tensor], parameters: list[Parameter], decay: float, step: int) -> None:
        """Moves the average towards the parameters after that step."""
        stride = 4 if decay and step > cls.DENSE else 1
        if step % stride == 0:
            weight = 1 - min(decay, step / (step + 9)) ** stride
            torch._foreach_lerp_(average, list[Tensor](parameters), weight)

    def on_validation_epoch_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        self._swap()

    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        self._swap()

    @torch.no_grad()
    def on_fit_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        # not at the end of training, a hook that is left out when a finished run is resumed
        for parameter, average in zip(self._parameters.values(), self._average, strict=True):
            parameter.copy_(average)
        self._parameters, self._average = {}, []

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters.values(), self._average, strict=True):
            raw = parameter.clone()
            parameter.copy_(average)
            average.copy_(raw)

    def on_save_checkpoint(
        self, trainer: LightningTrainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        raw = checkpoint["state_dict"]
        checkpoint["raw_state_dict"] = raw
        checkpoint["state_dict"] = {**raw, **dict(zip(self._parameters, self._average, strict=True))}

    def on_load_checkpoint(
        self, trainer: LightningTrainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._step = checkpoint["global_step"]
        if "raw_state_dict" in checkpoint:
            self._loaded = checkpoint["state_dict"]


class SampleGrid(Callback):
    """Draws the same noise after every validation: one PNG an epoch in `folder`, and in loggers that take images.

    Stands before weight averaging in the list of callbacks, so that it draws from the averaged weights.
    """

    def __init__(self, folder: Path, num_samples: int = 64) -> None:
        self.folder = folder
        self.num_samples = num_samples

    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, GenerativeModel) or len(pl_module.event_shape) != 3:
            return
        on_leader(lambda: self._draw(trainer, pl_module))

    def _draw(self, trainer: LightningTrainer, pl_module: GenerativeModel) -> None:
        from zoo.pictures import grid

        picture = grid(pl_module.sample(self.num_samples, generator=torch.Generator().manual_seed(pl_module.seed)))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            picture.save(self.folder / f"epoch_{trainer.current_epoch:04d}.png")
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: a picture cannot be written: {error.strerror or error}; make room, then resume"
            ) from error
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [picture], step=trainer.global_step)


class RunCheckpoint(Checkpoint):
    """Saves the run every `every` steps in one file, from which it goes on exactly, with or without averages.

    Not at the end of an epoch where both `max_steps` and `max_epochs` are set: never, then, where it has one batch.

    In place of Lightning's `ModelCheckpoint`, which saves after the last batch of an epoch, where Lightning's loops
    resume with a wrong count of epochs, and warns at each save of a model with several optimisers. Lightning also loses
    the position of the loader where something asked for the length of training before, as schedules do.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every
        self._step = 0  # of the last save
        self._now = 0  # after the batch before
        self._loader: dict[str, Any] | None = None

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if self._loader is not None and trainer.train_dataloader is not None:
            trainer.train_dataloader.load_state_dict(self._loader)
            self._loader = None

    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        has_stepped, self._now = trainer.global_step != self._now, trainer.global_step
        if has_stepped and not trainer.is_last_batch:  # gradients that accumulate are not saved
            self._save_when_due(trainer)

    def on_train_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if -1 in (trainer.max_steps, trainer.max_epochs):  # else Lightning counts the epoch twice after resuming
            self._save_when_due(trainer)

    def _save_when_due(self, trainer: LightningTrainer) -> None:
        if trainer.global_step - self._step >= self.every:
            self._step = trainer.global_step
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_save_checkpoint(
        self, trainer: LightningTrainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for name, value in pl_module.named_parameters():
            if not value.isfinite().all():
                raise _diverged(f"{name} is not finite", trainer)
        if trainer.train_dataloader is not None and hasattr(trainer.train_dataloader, "state_dict"):
            checkpoint["loader"] = trainer.train_dataloader.state_dict()

    def on_load_checkpoint(
        self, trainer: LightningTrainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._step = self._now = checkpoint["global_step"]
        self._loader = checkpoint.get("loader")
        if "raw_state_dict" in checkpoint:  # else Lightning goes on with the averages
            pl_module.load_state_dict(checkpoint["raw_state_dict"])


def _diverged(what: str, trainer: LightningTrainer) -> ZooError:
    return ZooError(
        f"training diverged: {what} at step {trainer.global_step}; try a smaller optimization.lr, a warmup or a "
        "gradient_clip"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill or a full disk leaves the previous checkpoint as it was.

    Raises:
        CheckpointError: the file cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")  # what a kill leaves behind, the next save overwrites
        content = BytesIO()
        torch.save(checkpoint, content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise CheckpointError(
                f"{path}: cannot be written: {error.strerror or error}; the checkpoint before it is kept: make room, "
                "then resume"
            ) from error
