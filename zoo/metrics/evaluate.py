"""Which numbers a model has: one table by capability, and the measuring of all of them.

A new number adds a function and a line to `GROUPS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo import latents
from zoo.capabilities import (
    Bijection,
    Classifier,
    Conditional,
    Decoder,
    Encoder,
    GenerativeModel,
    InfersLabels,
    KnownEntropy,
    Reconstructive,
    ZooModule,
)
from zoo.config import bind, near
from zoo.data.adapt import Data, as_data
from zoo.data.base import DataModule, Which
from zoo.data.own import Arrays, ImageFolder
from zoo.diffusion.denoiser import DiffusionModel
from zoo.distributed import share
from zoo.errors import ConfigError
from zoo.given import check_given
from zoo.measurement import Measurement
from zoo.metrics.classification import accuracy, bayes_accuracy
from zoo.metrics.codes import code_accuracy
from zoo.metrics.conditional import class_accuracy
from zoo.metrics.distances import NEIGHBOURS
from zoo.metrics.estimators import Effort, estimators_of
from zoo.metrics.examples import check_shapes, measuring
from zoo.metrics.extractors import ClassifierFeatures, Extractor, default_extractor, extractor_of, load_extractor
from zoo.metrics.inversion import inversion_error
from zoo.metrics.likelihood import entropy, nll
from zoo.metrics.outliers import NUM, outlier_detection
from zoo.metrics.quality import evaluate_quality, quality_floor, sampler_details
from zoo.metrics.reconstruction import squared_error
from zoo.module import batches_of
from zoo.samplers.base import Sampler
from zoo.store.checkpoint import Checkpoint

SLICE_OF_OUTLIERS = 100
"""Number of images of each set on which an AUROC is tried quickly."""

BAYES_EFFORT = {"k": 50, "draws": 10}
"""Fields of `Effort`. They are smaller than for likelihoods, since classes are only compared with each other."""

ODE_NUM = 500
"""Number of images whose likelihood is estimated by an ODE."""

BATCH_OF_CODES = 250
"""Number of codes that are decoded at once."""

SAMPLE_SLICE, VALUES_SLICE = 1000, 1_000_000
"""Number of samples on which a number of sample quality is checked quickly, and the most values in all of them."""


@dataclass(frozen=True)
class Evaluation(Effort):
    """How a checkpoint is measured: the section `evaluation` of its recipe.

    Attributes:
        k, draws, seed: See `Effort`; the seed is that of all other numbers, too.
        num: Number of samples, of reference images, and of training images in the floor.
        sampling_seeds: Number of seeds over which the FID is averaged: `seed` and those after it.
        extractor: Name of a classifier of the zoo, `inception`, or `inception:FILE`; see `default_extractor`.
        codes: Whether to measure `code_accuracy` of an encoder.
    """

    num: int = 10_000
    sampling_seeds: int = 1
    extractor: str | None = None
    codes: bool = False

    counts: ClassVar[tuple[str, ...]] = (*Effort.counts, "num", "sampling_seeds")


@dataclass(frozen=True)
class Study:
    """What is measured on, and how.

    Attributes:
        data: The data set.
        split: Split of the data set.
        settings: Settings of the evaluation.
        extractor: Judges samples; None if there is no extractor for such data, or no number needs it.
        sampler: How to draw, if the model has samplers; by default, its own.
        on_slice: Whether only a few seeded examples are measured.
        batch_size: Number of rows that pass through the network at once.
        progress: Whether to show progress bars.
    """

    data: DataModule
    split: Which
    settings: Evaluation
    extractor: Extractor | None
    sampler: Sampler | None
    on_slice: bool
    batch_size: int
    progress: bool

    @property
    def effort(self) -> dict[str, Any]:
        """Keywords of every likelihood."""
        return {field.name: getattr(self.settings, field.name) for field in fields(Effort)}

    @property
    def examples(self) -> dict[str, Any]:
        """Keywords of every number that is measured on examples."""
        index = "slice" if self.on_slice else None
        return {"index": index, "batch_size": self.batch_size, "progress": self.progress}

    @property
    def samples(self) -> dict[str, Any]:
        """Keywords of every number that is measured on samples."""
        return {"num": self.settings.num, "seed": self.settings.seed, "progress": self.progress}


@dataclass(frozen=True)
class Number:
    """A number that models with a capability have.

    Attributes:
        capability: The capability.
        measure: Measures it.
        of_samples: Whether it judges `num` images by an extractor; left out if there is none.
    """

    capability: type
    measure: Callable[[Any, Study], list[Measurement]]
    of_samples: bool = False


def _likelihood(model: GenerativeModel, study: Study) -> list[Measurement]:
    return nll(model, study.data, study.split, **study.effort, **study.examples)


def _ode(model: DiffusionModel, study: Study) -> list[Measurement]:
    data, split = study.data, study.split
    num = min(SLICE_OF_OUTLIERS if study.on_slice else ODE_NUM, len(data.split(split)))
    index = data.subset(split, num, study.settings.seed)
    return nll(model, data, split, on_request=True, **study.effort, **study.examples | {"index": index})


def _entropy(model: KnownEntropy, study: Study) -> list[Measurement]:
    return [] if study.on_slice else entropy(model, study.data, study.split, seed=study.settings.seed)


def _reconstruction(model: Reconstructive, study: Study) -> list[Measurement]:
    return squared_error(model, study.data, study.split, **study.examples)


def _inversion(model: Bijection, study: Study) -> list[Measurement]:
    seed, size = study.settings.seed, study.batch_size
    return inversion_error(model, study.data, study.split, seed=seed, batch_size=size, progress=study.progress)


def _accuracy(model: Classifier | InfersLabels, study: Study) -> list[Measurement]:
    return accuracy(model, study.data, study.split, **study.examples)


def _bayes_accuracy(model: Conditional, study: Study) -> list[Measurement]:
    if not estimators_of(type(model)):
        return []
    return bayes_accuracy(
        model,
        study.data,
        study.split,
        num=SLICE_OF_OUTLIERS if study.on_slice else NUM,
        seed=study.settings.seed,
        batch_size=study.batch_size,
        progress=study.progress,
        **BAYES_EFFORT,
    )


def _code_accuracy(model: Encoder, study: Study) -> list[Measurement]:
    return code_accuracy(model, study.data, study.split, **study.examples) if study.settings.codes else []


def _class_accuracy(model: Conditional, study: Study) -> list[Measurement]:
    if not isinstance(study.extractor, ClassifierFeatures) or study.extractor.data != study.data.name:
        return []
    return class_accuracy(model, study.data, study.extractor, split=study.split, sampler=study.sampler, **study.samples)


def _quality(model: GenerativeModel, study: Study) -> list[Measurement]:
    num = study.settings.num

    def draw(generator: torch.Generator) -> Iterator[Tensor]:
        return model.iter_samples(num, generator=generator, sampler=study.sampler, positions=share(num))

    found = _judged(model, draw, study)
    assert study.extractor is not None
    if not _knows_classes(study.extractor, study.data):  # the score would count classes that the images do not have
        found = [m for m in found if m.name != "inception_score"]
    return [replace(m, details=m.details | sampler_details(model, study.sampler)) for m in found]


def _expected_quality(model: GenerativeModel, study: Study) -> list[Measurement]:
    """The FID of E[x | z] for codes z of the prior, if samples also have noise in each pixel."""

    def draw(generator: torch.Generator) -> Iterator[Tensor]:
        for streams, _ in batches_of(share(study.settings.num), generator, BATCH_OF_CODES):
            labels = model.unsaid({}, streams).get("labels")
            yield latents.decode(model, latents.draw_codes(model, streams), labels=labels)

    if not latents.has_pixel_noise(model):
        return []
    return [replace(m, name="fid_expected") for m in _judged(model, draw, study) if m.name == "fid"]


def _judged(
    model: GenerativeModel, draw: Callable[[torch.Generator], Iterator[Tensor]], study: Study
) -> list[Measurement]:
    """The quality of images that `draw` makes of each sampling seed."""
    seed = study.settings.seed
    first, *others = (torch.Generator().manual_seed(seed + i) for i in range(study.settings.sampling_seeds))
    assert study.extractor is not None
    with measuring(model):
        again = map(draw, others)
        return evaluate_quality(
            draw(first), study.data, study.extractor, again=again, reference=study.split, **study.samples
        )


def _knows_classes(extractor: Extractor, data: DataModule) -> bool:
    """Whether the classes of an extractor are those of the data. Published data sets choose their own extractor."""
    if not isinstance(extractor, ClassifierFeatures) or not isinstance(data, ImageFolder | Arrays):
        return True
    return data.classes is not None and set(data.classes) <= set(extractor.classes or [])


def _floor(model: Classifier, study: Study) -> list[Measurement]:
    assert study.extractor is not None
    return quality_floor(study.data, study.extractor, reference=study.split, **study.samples)


def _outliers(model: GenerativeModel, study: Study) -> list[Measurement]:
    num = SLICE_OF_OUTLIERS if study.on_slice else NUM
    return outlier_detection(
        model, study.data, study.split, num=num, batch_size=study.batch_size, progress=study.progress
    )


GROUPS: dict[str, list[Number]] = {
    "likelihood": [Number(GenerativeModel, _likelihood), Number(KnownEntropy, _entropy)],
    "reconstruction": [Number(Reconstructive, _reconstruction), Number(Bijection, _inversion)],
    "accuracy": [
        Number(Classifier, _accuracy),
        Number(InfersLabels, _accuracy),
        Number(Encoder, _code_accuracy),
        Number(Conditional, _class_accuracy, of_samples=True),
    ],
    "quality": [
        Number(GenerativeModel, _quality, of_samples=True),
        Number(Decoder, _expected_quality, of_samples=True),
        Number(Classifier, _floor, of_samples=True),
    ],
    "outliers": [Number(GenerativeModel, _outliers)],
    "bayes": [Number(Conditional, _bayes_accuracy)],
    "ode": [Number(DiffusionModel, _ode)],
}
"""Groups of numbers, for `only`, and the numbers in them by capability."""

ON_REQUEST = ("outliers", "bayes", "ode")
"""Groups that are measured only if they are asked for."""


def evaluate(
    model: ZooModule,
    data: Data,
    settings: Evaluation | None = None,
    *,
    split: Which = "test",
    only: Collection[str] | None = None,
    on_slice: bool = False,
    extractor: Extractor | None = None,
    sampler: Sampler | None = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures every number that a model has on a data set; `GROUPS` says which by its capabilities.

    In a process group, every process must call it: they share the examples and samples, and all get all numbers.

    Args:
        model: The model.
        data: The data set. Of a data set of PyTorch or an array, all examples are the test split; see `as_data`.
        settings: Settings of the evaluation; by default, those of `Evaluation()`.
        split: Split of the data set.
        only: Some of `GROUPS`. By default, all but outliers and the quality of binary samples: tables of binary data
            compare likelihoods, and many of their models draw slowly.
        on_slice: Whether to measure only what `details["slice"]` of the whole number holds.
        extractor: Judges samples in place of the extractor that `settings` names.
        sampler: How to draw, if the model has samplers; by default, its own.
        batch_size: Number of rows that pass through the network at once; it changes no number.
        progress: Whether to show progress bars.

    Raises:
        ConfigError: There is no such group or extractor, or the model does not take the sampler.
        DataError: Model and data do not fit together, or there are too few data.
    """
    for group in only or ():
        if group not in GROUPS:
            raise ConfigError(f"only: no group of numbers {group!r}; {near(group, GROUPS)}")
    data = data if isinstance(data, DataModule) else as_data(test=data)
    settings = settings or Evaluation()
    if on_slice:  # the spread over sampling seeds belongs to the whole number
        settings = replace(settings, sampling_seeds=1)
    check_shapes(model, data)
    if sampler is not None:
        _check_sampler(model, sampler)
    groups = [group for group in GROUPS if (group in only if only else group not in ON_REQUEST)]
    numbers = [number for group in groups for number in GROUPS[group] if isinstance(model, number.capability)]
    judged = any(number.of_samples for number in numbers) and _has_images(data, split) and (data.levels != 2 or only)
    if judged and extractor is None:
        extractor = _own_extractor(model, data, settings)  # before anything is measured, since it may not be there
    study = Study(data, split, settings, extractor if judged else None, sampler, on_slice, batch_size, progress)
    found = []
    for number in numbers:
        found += _of_samples(number, model, study) if number.of_samples else number.measure(model, study)
    return found


def _check_sampler(model: ZooModule, sampler: Sampler) -> None:
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"sampler: {type(model).__name__} draws nothing; leave it out")
    check_given(model, {"sampler": sampler}, 0)


def _has_images(data: DataModule, split: Which) -> bool:
    """Whether there are enough images of a kind whose quality extractors judge."""
    is_image = len(data.event_shape) == 3 and data.levels in (2, 256)
    return is_image and min(len(data.split(split)), len(data.split("train"))) > NEIGHBOURS


def _own_extractor(model: ZooModule, data: DataModule, settings: Evaluation) -> Extractor | None:
    """The extractor that judges samples: a classifier itself, or else the one that the settings or the data name."""
    if isinstance(model, Classifier):
        frozen = type(model)(**model.hparams)
        frozen.load_state_dict(model.state_dict())
        return ClassifierFeatures(frozen.to(model.device), type(model).__name__)
    name = settings.extractor or default_extractor(data)
    return None if name is None else load_extractor(name, model.device)


def _of_samples(number: Number, model: ZooModule, study: Study) -> list[Measurement]:
    """Measures a number on `num` images, and records under `slice` what it is on the first of them.

    A number of no more images than the slice has is its own slice.
    """
    if study.extractor is None:
        return []
    settings, few = study.settings, min(SAMPLE_SLICE, max(100, VALUES_SLICE // math.prod(study.data.event_shape)))
    if settings.num <= few:
        return number.measure(model, study)
    small = number.measure(model, replace(study, settings=replace(settings, num=few, sampling_seeds=1)))
    if study.on_slice:
        return small
    slices = {m.name: {"slice": {"n": m.n, "value": m.value}} for m in small}
    return [replace(m, details=m.details | slices.get(m.name, {})) for m in number.measure(model, study)]


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    *,
    k: int | None = None,
    draws: int | None = None,
    num: int | None = None,
    seed: int | None = None,
    sampling_seeds: int | None = None,
    split: Which = "test",
    only: Collection[str] | None = None,
    on_slice: bool = False,
    data: Data | None = None,
    sampler: Sampler | None = None,
    device: str = "cpu",
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures every number of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        k, draws, num, seed, sampling_seeds: See `Evaluation`; by default, what the recipe of the checkpoint says.
        split, only, on_slice, sampler, batch_size, progress: See `evaluate`.
        data: The data set, as in `evaluate`; by default, the one that the recipe names.
        device: Where to put the model.

    Raises:
        ConfigError: The checkpoint has no recipe that names its data, or a setting is unknown.
        ZooError: As `Checkpoint.load` and `evaluate`.
    """
    chosen = {"k": k, "draws": draws, "num": num, "seed": seed, "sampling_seeds": sampling_seeds}
    settings = settings_of(checkpoint, **{name: value for name, value in chosen.items() if value is not None})
    model = checkpoint.load(device=device)
    return evaluate(
        model,
        checkpoint.data() if data is None else data,
        settings,
        split=split,
        only=only,
        on_slice=on_slice,
        extractor=extractor_of(checkpoint, device) if isinstance(model, Classifier) else None,
        sampler=sampler,
        batch_size=batch_size,
        progress=progress,
    )


def settings_of(checkpoint: Checkpoint, **chosen: Any) -> Evaluation:
    """How the recipe of a checkpoint says that it is measured, with some settings chosen otherwise.

    Raises:
        ConfigError: A setting is unknown or has an impossible value.
    """
    section = (checkpoint.settings.get("evaluation") or {}) | chosen
    return Evaluation(**bind(Evaluation, section, f"{checkpoint.source}: recipe: evaluation"))
