"""What all models of the zoo share: how Lightning trains them, and the two kinds of them, which draw or label.

What a model can do beyond that is told by `zoo.capabilities`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self, cast

import zoo.compatibility  # noqa: F401

# isort: split
import torch
from lightning import LightningModule
from torch import Tensor

from zoo import objectives
from zoo.batch import Batch, as_batch
from zoo.checks import check_values, guard, unchecked
from zoo.errors import ConfigError
from zoo.files import expand
from zoo.given import Given, Labels, check_given, check_num, check_sampler, rows_of
from zoo.optim import Optimization
from zoo.progress import steps
from zoo.random import Streams, seed_from
from zoo.samplers.base import Sampler

VALIDATION = -1  # validation uses the noise of "step -1" in every epoch, so that epochs can be compared


def _zoo() -> Any:
    """The class `Zoo`, which lies above the models."""
    return importlib.import_module("zoo.store.zoo").Zoo


def _source_of(text: str, revision: str | None) -> str:
    """The source, as `Zoo.load` takes it, that users of the Hub mean."""
    if ":" in text or "/" not in text or expand(text).is_dir():
        if revision is not None:
            raise ConfigError(f"revision: expected none for {text}, which is no repository, found {revision}")
        return f"local-dir:{text}" if expand(text).is_dir() else text
    return f"hf-hub:{text}" + (f"@{revision}" if revision else "")


class ZooModule(LightningModule, ABC):
    """A module that the zoo can train, save and load. Constructor arguments are JSON-plain and kept in `hparams`.

    Attributes:
        objective: How it learns.
        facts: What the taxonomy says of it, by column; see `facts_of`.
        usage: Lines of Python that show what it can do, by name; see `usage_of`.
        optimization: How `Trainer.fit` optimises it; set from the recipe.
        seed: Keys the noise of training, together with the step and the example.
        pretrained: Whether it comes from a checkpoint, so that what belongs to the first steps of training is over.
        fixed: Why fine-tuning cannot bring the model to other data, as the end of a sentence; empty if it can.
        unrounded: Names of the weights that checkpoints of half precision keep in full precision.
        real: Names of the methods that take any real numbers, though the data are grey levels; see `zoo.checks`.
        adaptive: Names of the methods whose values decide how long they compute, so that no graph holds them; see
            `zoo.graphs`.
        lacks_onnx: Whether ONNX lacks an operation of the model's graph, which only `torch.export` then holds.
    """

    objective: objectives.Objective = objectives.Objective()
    facts: ClassVar[dict[str, str]] = {}
    usage: ClassVar[dict[str, str]] = {}
    optimization: Optimization = Optimization()
    seed: int = 0
    pretrained: bool = False
    fixed: ClassVar[str] = ""
    unrounded: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    adaptive: ClassVar[tuple[str, ...]] = ()
    lacks_onnx: ClassVar[bool] = False
    _own_steps = 0  # steps of training that no Trainer counts

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        guard(cls)

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = self.objective.automatic

    # Lightning's own properties miss `bfloat16()`, and casts and moves of a module of which this one is a part.

    @property  # type: ignore[misc]
    def dtype(self) -> torch.dtype:
        """Data type of the weights; of a model without any, the one that it was cast to."""
        for tensor in self._weights():
            if tensor.is_floating_point():
                return tensor.dtype
        return cast(torch.dtype, super().dtype)

    @property
    def device(self) -> torch.device:
        """Device of the weights; of a model without any, the one that it was moved to."""
        return next((tensor.device for tensor in self._weights()), super().device)

    def _weights(self) -> Iterator[Tensor]:
        return chain(self.parameters(), self.buffers())

    @property
    def is_driven(self) -> bool:
        """Whether a Lightning Trainer was given this very module, not one of which it is a part."""
        return self._trainer is not None and self._trainer.lightning_module is self

    @property
    def global_step(self) -> int:
        """Number of steps of training: those of the Trainer, and those of loops that call `training_step` themselves.

        It keys the noise of training, which is therefore another one at each step, whatever drives the model.
        """
        return self._own_steps + (super().global_step if self.is_driven else 0)

    def streams(self, batch: Batch, training: bool = True) -> Streams:
        """The noise of this step, one stream per example."""
        return Streams(self.seed, batch.index, self.global_step if training else VALIDATION)

    def given(self, batch: Batch) -> dict[str, Tensor]:
        """What `log_prob` and its like take from a batch besides x, as keywords; see `Conditional`."""
        return {}

    def learn_from(self, teachers: Sequence[ZooModule]) -> None:
        """From now on, training follows what the teachers expect of the data, not the data alone.

        Distillation, Hinton et al. 2015, https://arxiv.org/abs/1503.02531. Teachers are not part of the model.

        Raises:
            ConfigError: The model does not learn from teachers, or not from these.
        """
        raise ConfigError(f"teachers: {type(self).__name__} learns from the data alone; leave them out")

    def take_weights(self, start: ZooModule) -> list[str]:
        """Begins with the weights of a trained model, by their names.

        Returns:
            The weights of that model for which there is no place.

        Raises:
            RuntimeError: A weight has another shape.
        """
        return self.load_state_dict(start.state_dict(), strict=False).unexpected_keys

    @classmethod
    def from_pretrained(cls, source: str, *, revision: str | None = None, device: str = "cpu") -> Self:
        """Loads a model of this class with its weights, in evaluation mode; see `Zoo.load`.

        Args:
            source: A checkpoint folder, a repository of the Hub such as "you/my-gan", or a name of `zoo list`.
            revision: Tag, branch or commit of the repository; by default, the newest version.
            device: Device to put the model on.

        Raises:
            ZooError: As `Zoo.load`.
        """
        return _zoo().load(_source_of(source, revision), cls, device=device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes a new checkpoint folder; see `Zoo.save`, which also takes numbers and a recipe.

        Raises:
            ZooError: As `Zoo.save`.
        """
        _zoo().save(self, folder)

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Publishes the model on the Hugging Face Hub, without numbers or a recipe.

        `Zoo.push` publishes a whole checkpoint folder.

        Args:
            repo: Name of the repository, "you/my-gan"; it is created if it does not exist.
            private: Whether only its owner can see the repository.

        Returns:
            The source from which `Zoo.load` loads exactly this version.

        Raises:
            ZooError: As `Zoo.save` and `Zoo.push`.
        """
        with TemporaryDirectory() as place:
            self.save_pretrained(Path(place) / "model")
            return str(_zoo().push(Path(place) / "model", repo, private=private).source)

    # Lightning calls these; the objective does the work.

    def configure_optimizers(self) -> Any:
        return self.objective.configure_optimizers(self)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        self.optimization.clip(optimizer)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step: the losses by name, as scalars. The first batch of an epoch is checked.

        Args:
            batch: A `Batch`, x, or (x, labels); x is [B, *event_shape].
            batch_idx: Number of the batch.

        Raises:
            DataError: The examples have another shape or other values than the model expects.
        """
        batch = self._batch(batch, batch_idx)
        if batch_idx == 0:
            check_values(self, batch.x, f"training {type(self).__name__}")
        with unchecked():
            losses = self.objective.training_step(self, batch)
        if not (self.is_driven and self.trainer.training):
            self._own_steps += 1
        self._log("train", losses, batch)
        return losses

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Held-out quantities by name, each [B]; arguments and errors are those of `training_step`."""
        batch = self._batch(batch, batch_idx)
        values = self._measured(batch, batch_idx)
        self._log("valid", values, batch)
        return values

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The quantities of `validation_step`, for `Trainer.test`, logged as `test/NAME`."""
        batch = self._batch(batch, batch_idx)
        values = self._measured(batch, batch_idx)
        self._log("test", values, batch)
        return values

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Any:
        """The quantities of `validation_step`, of each example, for `Trainer.predict`."""
        return self._measured(self._batch(batch, batch_idx), batch_idx)

    def _measured(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if batch_idx == 0:
            check_values(self, batch.x, f"{type(self).__name__}")
        with unchecked():
            return self.objective.validation_step(self, batch)

    def _batch(self, batch: Any, batch_idx: int) -> Batch:
        if isinstance(batch, Batch):
            return batch
        rank, world = (self._trainer.global_rank, self._trainer.world_size) if self._trainer is not None else (0, 1)
        return as_batch(batch, torch.promote_types(self.dtype, torch.float32), batch_idx, rank, world)

    def _log(self, stage: str, values: dict[str, Tensor], batch: Batch) -> None:
        """Logs means as `stage/NAME`, unless a callback of the Trainer `logs_means` already."""
        running = {"train": "training", "valid": "validating", "test": "testing"}[stage]
        if not self.is_driven or not getattr(self.trainer, running):
            return
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        if stage != "test" and any(getattr(callback, "logs_means", False) for callback in callbacks):
            return
        means = {f"{stage}/{name}": value.detach().float().mean() for name, value in values.items()}
        self.log_dict(means, prog_bar=True, batch_size=len(batch.x), sync_dist=stage != "train")

    def on_train_start(self) -> None:
        self._own_steps = 0
        self.objective.on_train_start(self)

    def on_validation_start(self) -> None:
        self.objective.on_validation_start(self)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.objective.on_before_optimizer_step(self, optimizer)

    def on_train_epoch_end(self) -> None:
        self.objective.on_train_epoch_end(self)

    def on_fit_end(self) -> None:
        self.objective.on_fit_end(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.objective.on_save_checkpoint(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.objective.on_load_checkpoint(self, checkpoint)


def facts_of(cls: type[ZooModule]) -> dict[str, str]:
    """What the capabilities of a class say of it, by column of the taxonomy."""
    return {**gathered(cls, "facts"), "trained by": cls.objective.title}


def usage_of(cls: type[ZooModule]) -> list[str]:
    """Lines of Python that show what models of a class can do; they draw 8 examples x first."""
    is_conditional = facts_of(cls).get("labels") == "yes"
    labels = ", labels=labels" if is_conditional else ""
    lines = [line.format(labels=labels) for line in gathered(cls, "usage").values()]
    return ["labels = torch.arange(8) % model.num_classes", *lines] if is_conditional else lines


def gathered(cls: type, name: str) -> dict[str, Any]:
    """The dictionaries of that name of a class and its bases, as one; the more specific class wins."""
    return {key: value for base in reversed(cls.__mro__) for key, value in vars(base).get(name, {}).items()}


class GenerativeModel(ZooModule):
    """Anything that draws.

    Attributes:
        event_shape: Shape of one example, (C, H, W) for images.
        levels: Number of grey levels of a pixel (2 for binary, 256 for 8-bit images) where the model has a likelihood
            of them, else None.
        samplers: Kinds of samplers that can draw from it.
    """

    facts: ClassVar = {"latents": "none", "density": "none", "generator": "one pass", "completes": "no", "labels": "no"}
    usage: ClassVar = {"sample": "x = model.sample(8{labels}, generator=torch.Generator().manual_seed(0))"}
    arguments: ClassVar[dict[str, Any]] = {}
    event_shape: tuple[int, ...]
    levels: int | None = None
    samplers: tuple[type[Sampler], ...] = ()

    @abstractmethod
    def draw(self, streams: Streams) -> Tensor:
        """Draws one example per stream: [len(streams), *event_shape]; images in [0, 1].

        A model that takes labels or a sampler gets them as keywords, never None.
        """

    def defaults(self, streams: Streams) -> Given:
        """What `draw` is given if the caller of `sample` does not say; see `Conditional`."""
        return {}

    def unsaid(self, given: Given, streams: Streams) -> Given:
        """The defaults, unless everything is given; then they draw no noise."""
        return {} if given.keys() == self.takes().keys() else self.defaults(streams)

    @classmethod
    def takes(cls) -> dict[str, Any]:
        """What `sample` can be given, by name, with the function that checks it."""
        return gathered(cls, "arguments")

    def sample(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        labels: Labels = None,
        sampler: Sampler | None = None,
        batch_size: int = 250,
    ) -> Tensor:
        """Draws from the model.

        Each example has its own stream of noise: the result depends on `generator` but not on `batch_size`, up to
        rounding. A pixel whose probability is within rounding of its noise can differ.

        Args:
            num_samples: Number of examples.
            generator: Source of the seed of all noise; torch's global generator by default.
            labels: Classes to draw, one for all examples or one for each, if the model is `Conditional`.
            sampler: How to draw, if the model has `samplers`.
            batch_size: Number of examples drawn at once; bounds the memory.

        Returns:
            [num_samples, *event_shape]; images in [0, 1], points in data units.

        Raises:
            ConfigError: The model does not take labels or samplers, or not these.
        """
        batches = list(
            self.iter_samples(num_samples, generator=generator, labels=labels, sampler=sampler, batch_size=batch_size)
        )
        return torch.cat(batches) if batches else torch.empty(0, *self.event_shape, device=self.device)

    @torch.no_grad()
    def iter_samples(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        labels: Labels = None,
        sampler: Sampler | None = None,
        batch_size: int = 250,
        positions: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yields the batches that `sample` concatenates, so that memory does not grow with `num_samples`.

        Args:
            num_samples, generator, labels, sampler, batch_size: As in `sample`.
            positions: Which of the samples to draw, [n], int64; by default all, in order.
        """
        check_num("num_samples", num_samples, 0)
        given = check_given(self, {"labels": labels, "sampler": sampler}, num_samples)
        index = torch.arange(num_samples) if positions is None else positions
        for streams, rows in batches_of(index, generator, batch_size):
            yield self.draw(streams, **{**self.unsaid(given, streams), **rows_of(given, rows, self.device)})


def batches_of(index: Tensor, generator: torch.Generator | None, batch_size: int) -> Iterator[tuple[Streams, Tensor]]:
    """The noise of the examples at the positions `index` and the positions, batch by batch."""
    check_num("batch_size", batch_size, 1)
    seed = seed_from(generator)
    return ((Streams(seed, rows), rows) for rows in steps(index.split(batch_size), "batch") if len(rows))


class Sampled(GenerativeModel):
    """A model that learned something from which a sampler draws; the sampler is an argument of `sample`."""

    arguments: ClassVar = {"sampler": check_sampler}

    @property
    def sampler(self) -> Sampler:
        """The sampler that draws if none is given; by default the first of `samplers`, with its own defaults."""
        return self.samplers[0]()

    def defaults(self, streams: Streams) -> Given:
        return {"sampler": self.sampler, **super().defaults(streams)}

    def draw(self, streams: Streams, sampler: Sampler | None = None, **given: Any) -> Tensor:
        return (sampler or self.sampler)(self, streams, **given)


class Classifier(ZooModule):
    """Labels images; its features are behind the metrics of sample quality.

    Attributes:
        event_shape: Shape of one image.
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        num_features: Width of `features`.
    """

    objective: objectives.Objective = objectives.Classification()
    usage: ClassVar = {
        "logits": "logits = model(torch.rand(8, *model.event_shape))  # images in [0, 1] -> [8, num_classes]"
    }
    event_shape: tuple[int, ...]
    num_classes: int
    num_features: int

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer: [B, *event_shape] in [0, 1] -> [B, num_features]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits: [B, *event_shape] in [0, 1] -> [B, num_classes]."""

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
        """The logits of a batch, which needs no labels, for `Trainer.predict`."""
        return cast(Tensor, self(self._batch(batch, batch_idx).x))

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both; a classifier whose logits come from its features need not compute them twice."""
        return self.features(x), self(x)
