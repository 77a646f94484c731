"""Does a conditional model draw what its labels say? A classifier is asked."""

from __future__ import annotations

import torch

from zoo.capabilities import Conditional
from zoo.data.base import DataModule, Which
from zoo.distributed import share
from zoo.given import rows_of
from zoo.measurement import Measurement, share_and_error
from zoo.metrics.examples import measuring
from zoo.metrics.extractors import ClassifierFeatures, Extractor
from zoo.metrics.quality import extract
from zoo.random import Streams, seed_from
from zoo.store.registry import registry


def has_classifier(data: DataModule, extractor: Extractor) -> bool:
    """Whether the extractor is a pretrained classifier of these very data."""
    entry = registry().get(extractor.name)
    return isinstance(extractor, ClassifierFeatures) and entry is not None and entry.data == data.name


def class_accuracy(
    model: Conditional,
    data: DataModule,
    extractor: ClassifierFeatures,
    *,
    num: int = 10_000,
    split: Which = "test",
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Share of samples in which the classifier finds the label that they were drawn for, in %, with its binomial error.

    The labels are 0, 1, ..., 0, 1, ... in turn; `details["classes"]` has the share of each. The mistakes are those of
    the model and of the classifier together: see the latter's own accuracy.

    Args:
        data, split: what stands in the measurement; no example is looked at.
        num: samples.
        seed: of the draws.
    """
    labels = torch.arange(num) % model.num_classes
    noise = seed_from(torch.Generator().manual_seed(seed))
    with measuring(model):
        samples = (
            model.draw(Streams(noise, rows), **rows_of({"labels": labels}, rows, model.device))
            for rows in share(num).split(batch_size)
        )
        logits = extract(
            samples, extractor, num, label=f"labelled samples ({extractor.name})", progress=progress
        ).logits
    right = logits.argmax(1) == labels
    classes = {str(label): 100 * share_and_error(right[labels == label])[0] for label in labels.unique().tolist()}
    value, error = (100 * number for number in share_and_error(right))
    details = {**extractor.details(), "classes": classes}
    return [Measurement("class_accuracy", value, error, "%", "estimate", num, seed, split, data.name, details)]
