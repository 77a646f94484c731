"""Which numbers a model has, decided by what it can do, and the measuring of them on a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from zoo.capabilities import Classifier, Conditional, Encoder, GenerativeModel, Reconstructive, ZooModule
from zoo.config import bind, near
from zoo.data.base import DataModule, Which
from zoo.distributed import share
from zoo.errors import ConfigError
from zoo.measurement import Measurement
from zoo.metrics.classification import accuracy
from zoo.metrics.codes import code_accuracy
from zoo.metrics.conditional import class_accuracy, has_classifier
from zoo.metrics.examples import Index, check_shapes, measuring
from zoo.metrics.extractors import ClassifierFeatures, Extractor, default_extractor, extractor_of, load_extractor
from zoo.metrics.likelihood import nll
from zoo.metrics.outliers import NUM, outlier_detection
from zoo.metrics.quality import NEIGHBOURS, evaluate_quality, quality_floor
from zoo.metrics.reconstruction import squared_error
from zoo.store.checkpoint import Checkpoint

GROUPS = ("likelihood", "quality", "accuracy", "reconstruction", "outliers")
"""The groups of numbers, for `only`."""

SLICE_OF_OUTLIERS = 100
"""Images of each set on which an AUROC can be tried in seconds."""

SAMPLE_SLICE = 1000
"""Samples of the slice on which a number of sample quality can be checked in seconds."""


@dataclass(frozen=True)
class Evaluation:
    """How a checkpoint is measured: the section `evaluation` of its recipe.

    Attributes:
        k: importance samples per example.
        draws: of the dequantisation noise or of the code, per example.
        num: samples from the model, images of the reference, training images of the floor.
        seed: of every draw.
        sampling_seeds: sets of samples for the spread of the FID, drawn with `seed` and those that follow it.
        extractor: a classifier of the zoo by name, `inception`, or `inception:FILE`; by default, the one that was
            trained on the same data, else `lenet-mnist`.
        codes: whether an encoder is judged by the labels of nearest training codes.
    """

    k: int = 5000
    draws: int = 10
    num: int = 10_000
    seed: int = 0
    sampling_seeds: int = 1
    extractor: str | None = None
    codes: bool = False


def evaluate(
    model: ZooModule,
    data: DataModule,
    settings: Evaluation | None = None,
    *,
    split: Which = "test",
    only: Collection[str] | None = None,
    on_slice: bool = False,
    extractor: Extractor | None = None,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Every number that `model` has on `data`.

    Likelihoods where it has a density or a bound; accuracy where it labels, or draws by label what a classifier of
    its data knows, or by its codes where asked; squared error where it reconstructs; FID, KID, inception score,
    precision and recall where it draws 28x28 grey images. A classifier of such images has the floors of these, by
    itself. The AUROC of foreign images by likelihood where it is asked for.
    In a process group, every process must call it: they share the examples and samples, and all get all numbers.

    Args:
        settings: of the measurement; defaults as in `Evaluation`.
        only: some of `GROUPS`; by default all, but outliers and the quality of binary samples only where they are
            asked for: the tables of binary data are of likelihoods, and many of their models draw slowly.
        on_slice: measure a few seeded examples (samples) only: what `details["slice"]` of the whole number holds.
        extractor: in place of the one that `settings` names.
        batch_size: rows that pass through the network at once; changes no number.

    Raises:
        ConfigError: an unknown group or extractor.
        DataError: model and data do not fit each other, or the data are too few.
    """
    for group in only or ():
        if group not in GROUPS:
            raise ConfigError(f"only: no group of numbers {group!r}; {near(group, GROUPS)}")
    settings = settings or Evaluation()
    for name in ("num", "sampling_seeds"):
        if (number := getattr(settings, name)) < 1:
            raise ConfigError(f"{name}: expected at least 1, found {number}")
    if on_slice:  # the spread over sampling seeds is of the whole number, even where that has few samples
        settings = replace(settings, sampling_seeds=1)
    groups = set(only or GROUPS)
    check_shapes(model, data)
    index: Index = "slice" if on_slice else None
    has_quality = _has_quality(model, data, split) and (data.levels != 2 or bool(only))
    by_label = has_quality and "accuracy" in groups and isinstance(model, Conditional)
    by_quality = has_quality and "quality" in groups
    if extractor is None and (by_label or (by_quality and not isinstance(model, Classifier))):
        extractor = load_extractor(settings.extractor or default_extractor(data.name), model.device)  # may not be there
    found: list[Measurement] = []
    if "likelihood" in groups:
        found += nll(
            model,
            data,
            split,
            index=index,
            draws=settings.draws,
            k=settings.k,
            seed=settings.seed,
            batch_size=batch_size,
            progress=progress,
        )
    if "accuracy" in groups and isinstance(model, Classifier):
        found += accuracy(model, data, split, index=index, batch_size=batch_size, progress=progress)
    if "reconstruction" in groups and isinstance(model, Reconstructive):
        found += squared_error(model, data, split, index=index, batch_size=batch_size, progress=progress)
    if "accuracy" in groups and isinstance(model, Encoder) and settings.codes:
        found += code_accuracy(model, data, split, index=index, batch_size=batch_size, progress=progress)
    if by_label:
        assert isinstance(model, Conditional)
        found += _of_samples(_class_accuracy_of(model, data, settings, split, extractor, progress), settings, on_slice)
    if by_quality:
        found += _of_samples(_quality_of(model, data, settings, split, extractor, progress), settings, on_slice)
    if "outliers" in groups and only:
        num = SLICE_OF_OUTLIERS if on_slice else NUM
        found += outlier_detection(model, data, split, num=num, batch_size=batch_size, progress=progress)
    return found


def _of_samples(measure: Callable[[int], list[Measurement]], settings: Evaluation, on_slice: bool) -> list[Measurement]:
    """What `measure` finds on `settings.num` samples, with what it finds on the first of them under `slice`.

    A number of at most `SAMPLE_SLICE` samples is its own slice.
    """
    small = measure(min(SAMPLE_SLICE, settings.num))
    whole = small if on_slice or settings.num <= SAMPLE_SLICE else measure(settings.num)
    slices = {m.name: {"slice": {"n": m.n, "value": m.value}} for m in small if whole is not small}
    return [replace(m, details=m.details | slices.get(m.name, {})) for m in whole]


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
    data: DataModule | None = None,
    device: str = "cpu",
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Every number of a checkpoint, recomputed from its weights.

    Args:
        checkpoint: The checkpoint.
        k, draws, num, seed, sampling_seeds: As in `Evaluation`; by default, what the recipe of the checkpoint says.
        split, only, on_slice, batch_size: As in `evaluate`.
        data: The data; by default, what the recipe names.

    Raises:
        ConfigError: The checkpoint has no recipe that says which data, or a setting is unknown.
        ZooError: As `Zoo.load` and `evaluate` do.
    """
    chosen = {"k": k, "draws": draws, "num": num, "seed": seed, "sampling_seeds": sampling_seeds}
    section = (checkpoint.settings.get("evaluation") or {}) | {
        n: value for n, value in chosen.items() if value is not None
    }
    settings = Evaluation(**bind(Evaluation, section, f"{checkpoint.source}: recipe: evaluation"))
    model = checkpoint.load(device=device)
    return evaluate(
        model,
        data or checkpoint.data(),
        settings,
        split=split,
        only=only,
        on_slice=on_slice,
        extractor=extractor_of(checkpoint, device) if isinstance(model, Classifier) else None,
        batch_size=batch_size,
        progress=progress,
    )


def _has_quality(model: ZooModule, data: DataModule, split: Which) -> bool:
    is_drawn = isinstance(model, GenerativeModel | Classifier)
    is_grey = data.levels in (2, 256) and tuple(data.event_shape) == (1, 28, 28)
    return is_drawn and is_grey and min(len(data.split(split)), len(data.split("train"))) > NEIGHBOURS


def _copy(model: Classifier) -> Classifier:
    """Another one with the same weights, which nobody trains."""
    copy = type(model)(**model.hparams)
    copy.load_state_dict(model.state_dict())
    return copy.to(model.device)


def _quality_of(
    model: ZooModule,
    data: DataModule,
    settings: Evaluation,
    split: Which,
    extractor: Extractor | None,
    progress: bool,
) -> Callable[[int], list[Measurement]]:
    """num -> sample quality of what draws, or the floors of it where a classifier measures itself."""
    options: dict[str, Any] = {"reference": split, "seed": settings.seed, "progress": progress}
    if isinstance(model, Classifier):
        itself = extractor or ClassifierFeatures(_copy(model), type(model).__name__)
        return lambda num: quality_floor(data, itself, num=num, **options)
    assert isinstance(model, GenerativeModel) and extractor is not None

    def measure(num: int) -> list[Measurement]:
        def draw(seed: int) -> Iterator[torch.Tensor]:
            generator = torch.Generator().manual_seed(seed)
            return model.iter_samples(num, generator=generator, positions=share(num))

        seeds = range(settings.seed, settings.seed + (settings.sampling_seeds if num == settings.num else 1))
        with measuring(model):
            again = (draw(seed) for seed in seeds[1:])
            return evaluate_quality(draw(seeds[0]), data, extractor, again=again, num=num, **options)

    return measure


def _class_accuracy_of(
    model: Conditional,
    data: DataModule,
    settings: Evaluation,
    split: Which,
    extractor: Extractor | None,
    progress: bool,
) -> Callable[[int], list[Measurement]]:
    """num -> how many of that many samples show what their labels say; nothing where no classifier knows these data."""
    if not isinstance(extractor, ClassifierFeatures) or not has_classifier(data, extractor):
        return lambda num: []
    options: dict[str, Any] = {"split": split, "seed": settings.seed, "progress": progress}
    return lambda num: class_accuracy(model, data, extractor, num=num, **options)
