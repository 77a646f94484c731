"""Whether a conditional model draws what its labels say, as a classifier sees it."""

from __future__ import annotations

import torch

from zoo.capabilities import Conditional
from zoo.data.base import DataModule, Which
from zoo.distributed import share
from zoo.measurement import Measurement, share_and_error
from zoo.metrics.examples import measuring
from zoo.metrics.extractors import ClassifierFeatures
from zoo.metrics.quality import extract, sampler_details
from zoo.samplers.base import Sampler


def class_accuracy(
    model: Conditional,
    data: DataModule,
    extractor: ClassifierFeatures,
    *,
    num: int = 10_000,
    sampler: Sampler | None = None,
    split: Which = "test",
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """Measures the share of samples in which a classifier finds the label they were drawn for, in %.

    The labels are 0, 1, ..., C - 1, 0, 1, ... in turn; `details["classes"]` holds the share of each. Mistakes are those
    of the model and of the classifier together; compare with the accuracy of the classifier on real images.

    Args:
        model: The model.
        data, split: What the measurement names; no example is read.
        extractor: The classifier.
        num: Number of samples.
        sampler: How to draw, if the model has samplers.
        seed: Seed of the samples.
        batch_size: Number of samples drawn at once.
        progress: Whether to show a progress bar.
    """
    labels = torch.arange(num) % model.num_classes
    with measuring(model):
        samples = model.iter_samples(
            num,
            generator=torch.Generator().manual_seed(seed),
            labels=labels,
            sampler=sampler,
            batch_size=batch_size,
            positions=share(num),
        )
        logits = extract(
            samples, extractor, num, label=f"labelled samples ({extractor.name})", progress=progress
        ).logits
    right = logits.argmax(1) == labels
    classes = {str(label): 100 * share_and_error(right[labels == label])[0] for label in labels.unique().tolist()}
    value, error = (100 * number for number in share_and_error(right))
    details = {**extractor.details(), **sampler_details(model, sampler), "classes": classes}
    return [Measurement("class_accuracy", value, error, "%", "estimate", num, seed, split, data.name, details)]
