"""Callbacks of the common Trainer: they log means, average weights, draw samples and save the run."""

from __future__ import annotations

import math
import time
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

from zoo.capabilities import ClosedForm, GenerativeModel, Unnormalized, UnnormalizedDensity, ZooModule
from zoo.distributed import on_leader
from zoo.errors import CheckpointError, ConfigError, ZooError
from zoo.files import write_atomically
from zoo.mcmc import annealed_importance_sampling
from zoo.nn.precision import widest, widest_dtype


class LogMeans(Callback):
    """Logs the values that `training_step` and `validation_step` return.

    Values of training are averaged over steps, those of validation over examples, and both over all processes. They
    are summed on the device and logged every `log_every_n_steps` steps and at the end of each epoch, because a call of
    `log` at every step would cost more than a step of a small model. Training stops if a mean is not finite.
    """

    logs_means = True  # so that models do not log them again

    def __init__(self) -> None:
        self._train: dict[str, Tensor] = {}
        self._steps = 0
        self._logged = 0  # the last step that was logged
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
            self._logged = trainer.global_step  # the step stays the same while gradients are accumulated
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
            total = widest(value.detach()).sum()
            self._valid[name] = self._valid[name] + total if name in self._valid else total
        self._examples += len(next(iter(outputs.values())))

    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        names = trainer.strategy.broadcast(list(self._valid))  # if any process has examples, the first one has
        if not names:
            return
        none = torch.zeros((), dtype=widest_dtype(pl_module.device), device=pl_module.device)
        sums = torch.stack([*(self._valid.get(name, none) for name in names), none + self._examples])
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
        for name, mean in zip(names, sums[:-1] / sums[-1], strict=True):
            pl_module.log(f"valid/{name}", mean.float(), prog_bar=True)


class LogNormalizer(Callback):
    """Logs log Z of an unnormalised model after every validation, and the likelihood of an energy.

    log Z is exact if it can be summed over all states. Otherwise it comes from a short annealed importance sampling,
    which takes it to be too small, and likelihoods too high: watch how they move rather than what they are. This
    callback must come after `LogMeans` and before weight averaging in the list of callbacks.

    Args:
        temperatures: Number of inverse temperatures of a run.
        runs: Number of runs.
    """

    def __init__(self, temperatures: int, runs: int = 100) -> None:
        self.temperatures = temperatures
        self.runs = runs

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, Unnormalized):
            return
        exact = pl_module.exact_log_z()
        if exact is None:
            chain = pl_module.chain()
            log_z = annealed_importance_sampling(chain, self.runs, self.temperatures, seed=pl_module.seed).estimate
        else:
            log_z = exact.item()
        pl_module.log("valid/log_z", log_z)
        energy = trainer.callback_metrics.get("valid/energy")
        if isinstance(pl_module, UnnormalizedDensity) and energy is not None:
            pl_module.log("valid/nll", energy + log_z, prog_bar=True)


class WeightAverage(Callback):
    """Keeps an exponential moving average of the parameters for validation, checkpoints and the trained model.

        average <- d average + (1 - d) parameters    after step t,    d = min(decay, t / (t + 9))

    The decay d is smaller in the first steps (Abadi et al. 2016, ExponentialMovingAverage in TensorFlow), so that short
    runs forget the initial weights too. An update costs as much as the optimiser's own pass over the parameters. After
    the first `DENSE` steps it is therefore made at every fourth step only, with d^4, unless d is 0. Buffers hold
    constants and power iterations, and are not averaged. Models that are fitted in closed form are left alone.

    In the checkpoints of a run, `state_dict` holds the averaged weights and `raw_state_dict` those of the last step.

    Args:
        decay: The largest decay, in [0, 1).
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
        if step == self._step or not self._average:  # the step stays the same while gradients are accumulated
            return
        self._step = step
        self.update(self._average, list(self._parameters.values()), self.decay, step)

    @classmethod
    @torch.no_grad()
    def update(cls, average: list[Tensor], parameters: list[Parameter], decay: float, step: int) -> None:
        """Moves an average towards the parameters, in place.

        Args:
            average: Averaged values of the parameters.
            parameters: The parameters after the step.
            decay: The largest decay.
            step: Number of the step, from 1.
        """
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
        # not in `on_train_end`, which Lightning skips when a finished run is resumed
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


class KeepBest(Callback):
    """Gives the trained model the weights that had the best validation number, and stops training that gets no better.

    The weights at the start are a candidate, so that a run is never worse than its start. The number is the one that
    the model's objective is judged by, or the squared error of an unnormalised model without a likelihood. This
    callback must come after those that log validation numbers and before weight averaging in the list of callbacks, so
    that it sees the averaged weights.

    Args:
        patience: Number of validations without a better number after which training stops; None to never stop.

    Attributes:
        start: The number before the first step.
        value: The best number, where lower is better.
        last: The last number.
        step: The step after which the best number was measured; 0 for the start.
        seconds: Duration of the steps before the first validation.
    """

    def __init__(self, patience: int | None = None) -> None:
        self.patience = patience
        self.start = self.value = self.last = math.inf
        self.step = 0
        self.seconds = 0.0
        self._began = 0.0
        self._waited = 0
        self._weights: dict[str, Tensor] = {}

    def on_validation_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ZooModule)
        names = (f"valid/{pl_module.objective.judged_by}", "valid/squared_error")
        metrics = trainer.callback_metrics
        if (name := next((name for name in names if name in metrics), None)) is None:
            raise ConfigError(
                f"trainer: keep_best needs a validation number, and {type(pl_module).__name__} has none; leave it out"
            )
        number = self.last = metrics[name].item()
        if trainer.sanity_checking:
            self.start = self.value = number if math.isfinite(number) else math.inf
        elif number < self.value:
            self.value, self.step, self._waited = number, trainer.global_step, 0
        else:
            self._waited += 1
            self._stop_if_hopeless(trainer)
            return
        with torch.inference_mode(False):
            self._weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic() - self.seconds
        self._stop_if_hopeless(trainer)  # after a resume of a run that had stopped

    def on_validation_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and self.seconds == 0:
            self.seconds = time.monotonic() - self._began

    def _stop_if_hopeless(self, trainer: LightningTrainer) -> None:
        if self.patience is not None and self._waited >= self.patience:
            trainer.should_stop = True

    def teardown(self, trainer: LightningTrainer, pl_module: LightningModule, stage: str) -> None:
        # the model and the averaging callback set the weights in `on_fit_end`, which comes before
        if stage == "fit" and self._weights:
            pl_module.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("start", "value", "last", "step", "_waited", "_weights")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)


class SampleGrid(Callback):
    """Draws a grid of samples after every validation, always from the same noise.

    Each grid is a PNG file in `folder`, and goes to the loggers that take images. This callback must come before weight
    averaging in the list of callbacks, so that it draws from the averaged weights.

    Args:
        folder: Folder of the pictures.
        num_samples: Number of samples per grid.
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
        content, path = BytesIO(), self.folder / f"epoch_{trainer.current_epoch:04d}.png"
        try:
            picture.save(content, "PNG")
            write_atomically(path, content.getvalue(), is_only_writer=True)
        except OSError as error:
            raise CheckpointError(
                f"{path}: the picture cannot be written: {error.strerror or error}; make room, then resume the run"
            ) from error
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [picture], step=trainer.global_step)


class RunCheckpoint(Checkpoint):
    """Saves the run in one file, from which it resumes exactly, with or without averaged weights.

    A step that is followed by a validation is not saved, because Lightning would skip this validation after a resume.

    If both `max_steps` and `max_epochs` are set, nothing is saved at the end of an epoch, and so nothing at all if an
    epoch has a single batch.

    This callback replaces Lightning's `ModelCheckpoint`. That one saves after the last batch of an epoch, from where
    Lightning's loops resume with a wrong count of epochs, and it warns at each save of a model with several optimisers.
    Lightning also loses the position of the loader if the length of training was asked for before, as schedules do.

    Args:
        path: The file.
        every: Number of steps between two saves.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path = path
        self.every = every
        self._step = 0  # the step of the last save
        self._now = 0  # the step after the previous batch
        self._loader: dict[str, Any] | None = None

    def on_train_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if self._loader is not None and trainer.train_dataloader is not None:
            trainer.train_dataloader.load_state_dict(self._loader)
            self._loader = None

    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        has_stepped, self._now = trainer.global_step != self._now, trainer.global_step
        # a checkpoint does not hold accumulated gradients
        if has_stepped and not trainer.is_last_batch and not self._is_validated_next(trainer):
            self._save_when_due(trainer)

    @staticmethod
    def _is_validated_next(trainer: LightningTrainer) -> bool:
        loop = trainer.fit_loop.epoch_loop
        position = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
        return (position + 1) % (trainer.val_check_batch or math.inf) == 0

    def on_train_epoch_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if -1 in (trainer.max_steps, trainer.max_epochs):  # with both, Lightning would count the epoch twice later
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
        if "raw_state_dict" in checkpoint:  # Lightning itself would go on with the averages
            pl_module.load_state_dict(checkpoint["raw_state_dict"])


def _diverged(what: str, trainer: LightningTrainer) -> ZooError:
    return ZooError(
        f"training diverged: {what} at step {trainer.global_step}; try a smaller optimization.lr, a warmup or a "
        "gradient_clip"
    )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a kill or a full disk leaves the previous checkpoint as it was.

    Raises:
        CheckpointError: The file cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        try:
            write_atomically(Path(path), content.getbuffer(), is_only_writer=True)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be written: {error.strerror or error}; the previous checkpoint is kept; make room, "
                "then resume the run"
            ) from error
