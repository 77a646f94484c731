"""What a model can do, as types: the whole interface of the zoo.

A model inherits the capabilities that it has and no others; what it cannot do is a method that it does not have.
The class that promises a quantity also trains it, so that there is one training step per objective and none per model.
Log-likelihoods are in nats, per example, of the data as given: pixels in {0, 1} for binary data, {0, ..., 255}/255 for
8-bit images. Up is good in `log_prob` and `elbo`; down is good in `loss`, `nll` and `energy`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias, cast

import zoo.compatibility  # noqa: F401

# isort: split
import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributions import Distribution

from zoo.config import brief
from zoo.errors import ConfigError, DataError
from zoo.progress import steps
from zoo.random import Source, Streams, rand, randn, seed_from
from zoo.training.optimization import Optimization

Labels: TypeAlias = Tensor | Sequence[int] | int | None
VALIDATION = -1  # the noise of validation is that of "step -1": the same in every epoch, so that epochs compare


class Batch(NamedTuple):
    """What the data layer yields: examples, their labels if any, and their positions in the split."""

    x: Tensor  # [B, *event_shape], float
    labels: Tensor | None  # [B], int64
    index: Tensor  # type: ignore[assignment]  # [B], int64; a tuple's own `index` is not missed

    def divided(self, parts: int) -> Iterator[Batch]:
        """The batch in consecutive parts of equal size, up to one example."""
        if parts == 1:
            yield self
            return
        for rows in torch.arange(len(self.x)).tensor_split(parts):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            yield Batch(self.x[part], None if self.labels is None else self.labels[part], self.index[part])


class ZooModule(LightningModule, ABC):
    """A module that the zoo can train, save and load. Constructor arguments are JSON-plain and kept in `hparams`.

    Attributes:
        optimization: how `Trainer.fit` optimises it; set from the recipe.
        seed: keys the noise of training together with the step and the example.
        pretrained: whether it comes from a checkpoint, and what belongs to the first steps of training is over.
        unrounded: names of the weights that checkpoints of half precision keep whole.
    """

    optimization: Optimization = Optimization()
    seed: int = 0
    pretrained: bool = False
    unrounded: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # set by Lightning 40 times a step, at the cost of the checks of torch's modules
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def streams(self, batch: Batch, training: bool = True) -> Streams:
        """The noise of this step, one stream per example."""
        return Streams(self.seed, batch.index, self.global_step if training else VALIDATION)

    def conditions(self, batch: Batch) -> dict[str, Tensor]:
        """What `log_prob` and its like take of a batch besides x, as keywords: nothing, unless `Conditional`."""
        return {}

    def learn_from(self, teachers: Sequence[ZooModule]) -> None:
        """From now on, training follows what the teachers expect of the data, not the data alone (distillation).

        Hinton et al. 2015, https://arxiv.org/abs/1503.02531. Teachers are no part of the model nor of its checkpoints.

        Raises:
            ConfigError: the model does not learn from teachers, or not from these.
        """
        raise ConfigError(f"teachers: {type(self).__name__} learns from the data alone; leave them out")

    def configure_optimizers(self) -> Any:
        optimizer = self.optimization.build(self)
        return self.optimization.scheduled(optimizer, self.trainer.estimated_stepping_batches)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        self.optimization.clip(optimizer)


class GenerativeModel(ZooModule):
    """Anything that draws.

    Attributes:
        event_shape: shape of one example, (C, H, W) for images.
    """

    event_shape: tuple[int, ...]

    @abstractmethod
    def draw(self, streams: Streams) -> Tensor:
        """One example per stream: [len(streams), *event_shape], in [0, 1] for images. See `sample`."""

    def sample(self, num_samples: int, *, generator: torch.Generator | None = None, batch_size: int = 250) -> Tensor:
        """Draws from the model: [num_samples, *event_shape]; images in [0, 1], 2-D toy data in data units.

        Each example has its own stream of noise: the result depends on `generator` but not on `batch_size`, which
        only bounds the memory.
        """
        batches = list(self.iter_samples(num_samples, generator=generator, batch_size=batch_size))
        return torch.cat(batches) if batches else torch.empty(0, *self.event_shape, device=self.device)

    @torch.no_grad()
    def iter_samples(
        self,
        num_samples: int,
        *,
        generator: torch.Generator | None = None,
        batch_size: int = 250,
        positions: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """The batches that `sample` concatenates, one at a time: memory does not grow with `num_samples`.

        Args:
            positions: which of them to draw, [n], int64; by default all, in order.
        """
        for streams, _ in _batches(num_samples, generator, batch_size, positions):
            yield self.draw(streams)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Held-out quantities by name, each [B]; nothing here, but samples are drawn after validation."""
        return {}


def _batches(
    num_samples: int, generator: torch.Generator | None, batch_size: int, positions: Tensor | None
) -> Iterator[tuple[Streams, Tensor]]:
    """The noise of samples and their positions, batch by batch."""
    for name, value, least in (("num_samples", num_samples, 0), ("batch_size", batch_size, 1)):
        if not isinstance(value, Integral) or value < least:
            raise ConfigError(f"{name}: expected a whole number, at least {least}, found {brief(value)}")
    seed = seed_from(generator)
    index = torch.arange(num_samples) if positions is None else positions
    return ((Streams(seed, rows), rows) for rows in steps(index.split(batch_size), "batch") if len(rows))


def check_images(model: GenerativeModel, x: Tensor, where: str) -> None:
    """Raises DataError, of which `where` is the beginning, unless x is [B, *event_shape]."""
    if tuple(x.shape[1:]) != model.event_shape:
        expected = ", ".join(map(str, ("B", *model.event_shape)))
        raise DataError(f"{where}: expected images of shape [{expected}], found {list(x.shape)}")


class TractableDensity(GenerativeModel):
    """An exact density, trained by maximum likelihood.

    Attributes:
        levels: grey levels of the pixels that it is a density of (2: binary, 256: 8-bit), or None for real numbers.
    """

    levels: int | None = None

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), exact, in nats: [B, *event_shape] -> [B].

        x has the values that `levels` tells, which is not checked here: of others there is no likelihood.
        """

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """What training maximises, [B]: `log_prob`, unless a model learns from its parts in turn or altered data.

        A conditional density overrides this, and `log_prob`, with `labels` as one more argument.
        """
        return self.log_prob(x)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.training_log_prob(batch.x, self.streams(batch), **self.conditions(batch)).mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"nll": -self.log_prob(batch.x, **self.conditions(batch))}


class KnownEntropy(TractableDensity):
    """A density whose entropy is known: what the mean of -log_prob of its own samples tends to."""

    @abstractmethod
    def entropy(self) -> float:
        """-E[log p(x)], exact, in nats."""


class Dequantized(TractableDensity):
    """An exact density of continuous data, to which 8-bit images come by uniform dequantisation.

    `log_prob` takes any real x. For x in {0, ..., 255}/255, E_u[log_prob((255 x + u)/256)] - D log 256 with u uniform
    on [0, 1)^D is a lower bound of the log-probability of the 8-bit image (Theis et al. 2016,
    https://arxiv.org/abs/1511.01844, section 3.1). `levels` is the number of those to dequantise.
    """

    def dequantize(self, x: Tensor, *, generator: Source = None) -> Tensor:
        """x in {0, ..., L - 1}/(L - 1) -> (x (L - 1) + u)/L in [0, 1), with L levels; x itself where levels is None."""
        if self.levels is None:
            return x
        y = (x * (self.levels - 1) + rand(tuple(x.shape), generator, x.device)) / self.levels
        return y.clamp(max=1 - 2.0**-24)  # the sum can round up to the next level

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return super().training_step(
            batch._replace(x=self.dequantize(batch.x, generator=self.streams(batch))), batch_idx
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = self.dequantize(batch.x, generator=self.streams(batch, training=False))
        return super().validation_step(batch._replace(x=x), batch_idx)


class EvidenceLowerBound(GenerativeModel):
    """A lower bound of the log-likelihood, maximised.

    Attributes:
        levels: as of `TractableDensity`.
    """

    levels: int | None = None

    @abstractmethod
    def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
        """An unbiased estimate of the evidence lower bound, E[elbo] <= log p(x), in nats: [B, *event_shape] -> [B]."""

    def training_bound(self, x: Tensor, streams: Streams) -> Tensor:
        """What training maximises, [B]: `elbo`, unless a model learns from another bound, or warms up.

        A conditional bound overrides this, and `elbo`, with `labels` as one more argument.
        """
        return self.elbo(x, generator=streams)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.training_bound(batch.x, self.streams(batch), **self.conditions(batch)).mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        noise = self.streams(batch, training=False)
        return {"neg_elbo": -self.elbo(batch.x, generator=noise, **self.conditions(batch))}


class ImportanceWeighted(EvidenceLowerBound):
    """A bound that tightens to the log-likelihood with the number of importance samples (Burda et al. 2016).

    https://arxiv.org/abs/1509.00519

    Attributes:
        latent_shape: of the standard normal noise from which z is made.
        num_importance: k of the bound that training maximises; 1 for `elbo`.
    """

    latent_shape: tuple[int, ...]
    num_importance: int = 1

    @abstractmethod
    def log_weights_at(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """log p(x, z) - log q(z given x) at the z that q makes of noise, in nats.

        x [B, *event_shape], epsilon [k, B, *latent_shape] -> [k, B].
        A conditional bound overrides this, `log_weights` and `training_bound` with `labels` as one more argument.
        """

    def log_weights(self, x: Tensor, num_samples: int, *, generator: Source = None, **given: Tensor) -> Tensor:
        """log p(x, z) - log q(z given x) at independent z from q, in nats: [B, *event_shape] -> [num_samples, B].

        logsumexp over the first dimension minus log num_samples is the importance-weighted bound; its expectation
        does not decrease with num_samples and tends to log p(x).
        """
        return self.log_weights_at(x, self._noise(len(x), num_samples, generator), **given)

    def training_bound(self, x: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        """The importance-weighted bound with k = `num_importance`, [B].

        Its gradient is a mean of the k gradients of the log-weights w_j, weighted with w_j/sum w. It is estimated by
        that of one of them, drawn with these weights: k passes forward and one backward (section 3 of the paper).
        """
        if self.num_importance == 1:
            return self.elbo(x, generator=streams, **given)
        epsilon = self._noise(len(x), self.num_importance, streams)
        with torch.no_grad():
            log_weights = self.log_weights_at(x, epsilon, **given)  # [k, B]
            chosen = (log_weights.softmax(0).cumsum(0) < rand((len(x), 1), streams, x.device)[:, 0]).sum(0)
            chosen = chosen.clamp(max=self.num_importance - 1)  # a sum of weights can be rounded to below 1
            bound = log_weights.logsumexp(0) - math.log(self.num_importance)
        surrogate = self.log_weights_at(x, epsilon[chosen, torch.arange(len(x), device=x.device)][None], **given)[0]
        return bound + (surrogate - surrogate.detach())

    def _noise(self, num: int, num_samples: int, source: Source) -> Tensor:
        """[num_samples, num, *latent_shape], by example."""
        return randn((num, num_samples, *self.latent_shape), source, self.device).transpose(0, 1)


class ClosedForm(GenerativeModel):
    """Fitted from sufficient statistics, with no gradient and no optimiser, by the same Trainer.

    Attributes:
        statistics: sums over the examples seen; kept in the run's checkpoints, not among the weights.
        iterative: whether the statistics depend on the fit before, as in expectation maximisation: each epoch then
            begins with none. Otherwise more epochs, with other noise, add to them.
    """

    statistics: dict[str, Tensor]
    iterative = False

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    @abstractmethod
    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        """Sufficient statistics of x [B, *event_shape], as sums over the batch."""

    @abstractmethod
    def finish(self) -> None:
        """Set the parameters to their maximum-likelihood values given `self.statistics`."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([torch.zeros(())], lr=0.0)  # moves nothing; its steps count the iterations

    def on_train_start(self) -> None:
        self.statistics = {} if self.global_step == 0 else self._statistics_here()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        for name, value in self.gather(batch.x, generator=self.streams(batch)).items():
            total = self.trainer.strategy.reduce(value, reduce_op="sum")
            self.statistics[name] = self.statistics[name] + total if name in self.statistics else total
        cast(LightningOptimizer, self.optimizers()).step()
        return {}

    def on_validation_start(self) -> None:
        if self.trainer.is_last_batch:  # of part of an epoch there may be no fit
            self._finish()

    def on_train_epoch_end(self) -> None:
        if self.iterative:
            self._finish()
            self.statistics = {}

    def on_fit_end(self) -> None:
        self._finish()

    def _finish(self) -> None:
        is_part = self.iterative and not self.trainer.is_last_batch  # of an epoch
        if getattr(self, "statistics", None) and not is_part:
            self.statistics = self._statistics_here()
            self.finish()

    def _statistics_here(self) -> dict[str, Tensor]:
        """On the device of the model: those of a checkpoint come on the CPU."""
        return {name: value.to(self.device) for name, value in self.statistics.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["statistics"] = self.statistics

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.statistics = checkpoint["statistics"]


def _nothing() -> None:
    """The closure of a step whose gradients are there already."""


class Adversarial(GenerativeModel):
    """A generator trained against a critic by alternating updates; a step is one update of the generator.

    A batch is divided among the updates of the critic, each on examples of its own; then the generator moves once, by
    the fakes of the last of them.

    Attributes:
        generator: the network that is the model.
        critic: the network that it is trained against.
        critic_steps: updates of the critic for each of the generator.
    """

    generator: torch.nn.Module
    critic: torch.nn.Module
    critic_steps: int = 1
    _num_steps: float = math.inf

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **conditions: Tensor) -> dict[str, Tensor]:
        """What the critic minimises, under `loss`, with anything else worth logging; real, fake: [B, ...]."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **conditions: Tensor) -> Tensor:
        """What the generator minimises, a scalar; fake: [B, ...], carrying gradients."""

    def pair(self, x: Tensor, streams: Streams, **conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Real and fake examples as the critic sees them, [B, ...], from data x [B, *event_shape].

        What of them carries a gradient trains the generator.
        """
        return x, self.draw(streams)

    @property
    def progress(self) -> float:
        """The part of training that is over, in [0, 1]."""
        return min(1.0, self.global_step / self._num_steps)

    def configure_optimizers(self) -> Any:
        settings, self._num_steps = self.optimization, self.trainer.estimated_stepping_batches
        generator = settings.build(self.generator)
        critic = settings.build(self.critic, settings.critic_lr)
        return settings.scheduled(generator, self._num_steps), settings.scheduled(critic, self._num_steps)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if len(batch.x) < self.critic_steps:
            raise ConfigError(
                f"batch_size: expected at least {self.critic_steps} examples a process, one for each step of the "
                f"critic, found {len(batch.x)}"
            )
        settings, (generator, critic) = self.optimization, cast(list[Any], self.optimizers())
        for part in batch.divided(self.critic_steps):
            streams, conditions = self.streams(part), self.conditions(part)
            real, fake = self.pair(part.x, streams, **conditions)
            losses = self.critic_loss(real.detach(), fake.detach(), streams, **conditions)
            critic.zero_grad()
            self.manual_backward(losses["loss"])
            settings.clip(critic)
            self.trainer.strategy.optimizer_step(critic.optimizer, _nothing)  # critic.step() would count as a step
            self.after_critic_step()
            torch.clear_autocast_cache()  # of the critic's weights before

        self.critic.requires_grad_(False)
        loss = self.generator_loss(real, fake, streams, **conditions)
        generator.zero_grad()
        self.manual_backward(loss)
        settings.clip(generator)
        generator.step()
        self.critic.requires_grad_(True)

        for schedule in cast(list[Any], self.lr_schedulers() or []):
            schedule.step()
        renamed = {"critic_loss" if name == "loss" else name: value for name, value in losses.items()}
        return {"generator_loss": loss.detach(), **renamed, "diversity": diversity(real.detach(), fake.detach())}

    def after_critic_step(self) -> None:
        """Called after each update of the critic; nothing by default."""


def diversity(real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared distance of two fakes over that of two reals: about 1 where they vary as much, 0 where all are one.

    That of two independent draws is twice the sum of the variances of the dimensions. [B, ...], [B, ...] -> a scalar.
    """
    of_real, of_fake = (x.flatten(1).float().var(0, unbiased=False).sum() for x in (real, fake))
    return of_fake / of_real.clamp(min=1e-12)


class Classifier(ZooModule):
    """Labels images; the extractor of features behind the sample-quality metrics.

    Attributes:
        event_shape: shape of one image.
        num_classes: labels lie in {0, ..., num_classes - 1}.
        num_features: width of `features`.
    """

    event_shape: tuple[int, ...]
    num_classes: int
    num_features: int

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer: [B, *event_shape] in [0, 1] -> [B, num_features]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits: [B, *event_shape] in [0, 1] -> [B, num_classes]."""

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both; a classifier whose logits come from its features need not compute them twice."""
        return self.features(x), self(x)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        assert batch.labels is not None, "a classifier needs labelled data"
        return {"loss": torch.nn.functional.cross_entropy(self(batch.x), batch.labels)}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"error_rate": (self(batch.x).argmax(-1) != batch.labels).float()}


class Encoder(ABC):
    """Maps data to a distribution over codes; in a `Conditional`, `encode` takes `labels`, [B], too."""

    latent_shape: tuple[int, ...]

    @abstractmethod
    def encode(self, x: Tensor) -> Distribution:
        """The distribution q(z given x), batch shape [B], event shape `latent_shape`."""


class Decoder(ABC):
    """Maps codes to data; in a `Conditional`, `decode` takes `labels`, [B], too."""

    latent_shape: tuple[int, ...]

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The data that z stands for, E[x given z]: [B, *latent_shape] -> [B, *event_shape], images in [0, 1]."""

    @abstractmethod
    def prior(self) -> Distribution:
        """The distribution of codes p(z), event shape `latent_shape`."""


class Reconstructive(GenerativeModel, Encoder, Decoder):
    """Codes from which images come back, with as little squared error as training can reach.

    Errors say nothing of how codes are distributed: `prior` is fitted beside, by maximum likelihood, to the codes of
    the training images as they are.
    """

    def squared_error(self, x: Tensor) -> Tensor:
        """The sum over pixels of (decode(code of x) - x)^2: [B, *event_shape] -> [B]."""
        return (self.decode(self.encode(x).mean) - x).square().flatten(1).sum(1)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        z = self.encode(batch.x).mean
        error = (self.decode(z) - batch.x).square().flatten(1).sum(1).mean()
        code_nll = -self.prior().log_prob(z.detach()).mean()
        return {"loss": error + code_nll, "squared_error": error}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"squared_error": self.squared_error(batch.x)}


class Bijection(ABC):
    """An invertible map between data and codes of the same dimension."""

    @abstractmethod
    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and ladj = log |det dz/dx|: [B, *event_shape] -> ([B, *latent_shape], [B])."""

    @abstractmethod
    def from_latent(self, z: Tensor) -> Tensor:
        """The x with to_latent(x)[0] = z."""


class Completable(ABC):
    """Fills in unknown pixels by the model's own conditional distribution."""

    @abstractmethod
    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Draws what is not known, one example per stream; see `complete`.

        Args:
            x: [B, *event_shape], 0 where it is not known.
            known: bool, [B, *event_shape], as `given` lets it pass.

        Returns:
            [B, *event_shape]; what it holds where x is known does not matter.
        """

    def filler(self) -> Callable[[Tensor, Tensor, Streams], Tensor]:
        """`fill` for the batches of one call of `complete`, among which it may keep what it found out about a mask."""
        return self.fill

    @torch.no_grad()
    def complete(
        self, x: Tensor, mask: Tensor, *, generator: torch.Generator | None = None, batch_size: int = 250
    ) -> Tensor:
        """Draws from p(x_unknown given x_known), exactly unless the model's own docstring says otherwise.

        Each example has its own stream of noise: `batch_size` only bounds the memory.

        Args:
            x: [B, *event_shape]; values where `mask` is False do not matter.
            mask: bool, [*event_shape] or [B, *event_shape], True where x is known.
            generator: source of the draws.

        Returns:
            [B, *event_shape], equal to x where `mask` is True.

        Raises:
            ConfigError: the mask is not one that the model can condition on.
            DataError: x has another shape than examples of the model, or the model knows for certain that the known
                pixels cannot be.
        """
        x, known = self.given(x, mask)
        fill, streams = self.filler(), _batches(len(x), generator, batch_size, None)
        filled = [fill(x[rows], known[rows], noise) for noise, rows in streams]
        return torch.where(known, x, torch.cat(filled)) if filled else x

    def given(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x with zeros where it is not known, and where it is known: both [B, *event_shape], on the model's device.

        Raises:
            ConfigError: the mask is not boolean, or its shape is neither that of x nor of one example.
            DataError: x has another shape than examples of the model, or a known pixel is no number, or none of the
                model's grey levels.
        """
        model = cast(GenerativeModel, self)
        check_images(model, x, "complete")
        if tuple(mask.shape) not in (model.event_shape, tuple(x.shape)) or mask.dtype != torch.bool:
            raise ConfigError(
                f"complete: expected a bool mask of shape {list(model.event_shape)} or {list(x.shape)}, "
                f"found {str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}"
            )
        known = mask.to(model.device).expand_as(x)
        x = x.to(model.device, cast(torch.dtype, model.dtype)).where(known, 0)
        if not x.isfinite().all():
            raise DataError("complete: expected numbers in the known pixels, found NaN or infinity")
        if (levels := cast(TractableDensity, self).levels) is None:
            return x, known
        number = x * (levels - 1)
        if not ((number >= 0) & (number < levels) & ((number - number.round()).abs() < 1e-3)).all():
            kind, advice = f"pixels of {levels} grey levels from 0 to 1", "scale the images first, for example x / 255"
            if levels == 2:
                kind, advice = "binary pixels", "binarise the images first, for example (x > 0.5).float()"
            raise DataError(f"complete: {type(model).__name__} is a model of {kind}, but a known one is none; {advice}")
        return x, known


class Autoregressive(ABC):
    """Draws one value after another, and says what it expects of each, given those drawn before it.

    Attributes:
        levels: of the values, {0, ..., levels - 1}/(levels - 1).
    """

    levels: int

    @abstractmethod
    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """E[x_d given the values before it] of every value, exact; where x is binary, p(x_d = 1 given those before).

        Args:
            x: [B, *event_shape].
            order: as `order` gives it, of each image; by default, the first that the model has. Most have one alone.

        Returns:
            [B, *event_shape], in [0, 1] for images.
        """

    def order(self, streams: Streams) -> Tensor:
        """The order in which `draw` draws, given the same noise: rows from the top, unless a model says otherwise.

        Returns:
            [len(streams), D], int64: places in a flattened example, those of channels first where there are more.
        """
        model = cast(GenerativeModel, self)
        return torch.arange(math.prod(model.event_shape), device=model.device).expand(len(streams), -1)


class Conditional(GenerativeModel):
    """Models p(x given label): `log_prob` or `elbo` take `labels=`, [B], int64, and so does `sample`.

    Stands before the capabilities that it conditions in a class's list of bases.

    Attributes:
        num_classes: labels lie in {0, ..., num_classes - 1}.
    """

    num_classes: int

    @abstractmethod
    def draw_given(self, streams: Streams, labels: Tensor) -> Tensor:
        """One example per stream, of the class that its label says: labels [len(streams)], int64."""

    def draw(self, streams: Streams) -> Tensor:
        labels = (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_classes).long()
        return self.draw_given(streams, labels)

    def conditions(self, batch: Batch) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError(f"{type(self).__name__} is conditional: expected labelled data, found none with labels")
        return {"labels": batch.labels}

    def sample(
        self,
        num_samples: int,
        *,
        labels: Labels = None,
        generator: torch.Generator | None = None,
        batch_size: int = 250,
    ) -> Tensor:
        """As `GenerativeModel.sample`.

        Args:
            labels: one for all samples, or one for each; by default, each class is as likely as any other.

        Raises:
            ConfigError: a label is no class of the model, or there are more or fewer labels than samples.
        """
        batches = list(self.iter_samples(num_samples, labels=labels, generator=generator, batch_size=batch_size))
        return torch.cat(batches) if batches else torch.empty(0, *self.event_shape, device=self.device)

    @torch.no_grad()
    def iter_samples(
        self,
        num_samples: int,
        *,
        labels: Labels = None,
        generator: torch.Generator | None = None,
        batch_size: int = 250,
        positions: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """As `GenerativeModel.iter_samples`, and `labels` as `sample` takes them."""
        batches = _batches(num_samples, generator, batch_size, positions)
        given = None if labels is None else self.check_labels(labels, num_samples)
        for streams, rows in batches:
            yield self.draw(streams) if given is None else self.draw_given(streams, given[rows].to(self.device))

    def check_labels(self, labels: Labels, num: int) -> Tensor:
        """Labels of `num` examples: [num], int64, on the CPU.

        Raises:
            ConfigError: there are none, more or fewer than examples, or one is no class of the model.
        """
        if labels is None:
            raise ConfigError(f"labels: {type(self).__name__} is Conditional: expected one, or one of each, found none")
        expected = f"labels: expected one whole number or {num} of them"
        try:
            given = torch.as_tensor(labels).cpu()
        except (TypeError, ValueError, RuntimeError):  # words, lists of several lengths, numbers beyond 64 bits
            raise ConfigError(f"{expected}, found {brief(labels)}") from None
        if len(given.shape) == 1 and not len(given):
            given = given.long()  # an empty list has no type
        is_whole = not (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool)
        if not is_whole or given.shape not in ((), (num,)):
            found = f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
            raise ConfigError(f"{expected}, found {found}")
        given = given.long().expand(num)
        if num and not 0 <= given.min() <= given.max() < self.num_classes:
            wrong = next(int(label) for label in given if not 0 <= label < self.num_classes)
            raise ConfigError(f"labels: expected classes from 0 to {self.num_classes - 1}, found {wrong}")
        return given
