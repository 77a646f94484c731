"""Quality of samples: FID, KID, inception score, precision and recall, over the features of a frozen network.

The formulas are in `zoo.metrics.distances`. No such number means anything by itself: FID falls as 1/n with the number
of images, and all of them depend on the extractor. So each stands beside two baselines: its `floor`, which puts as many
training images in place of the samples, and a `memoriser`, which draws training images with replacement.

Statistics of the reference and the baselines are cached in files; see `zoo.cache`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import zoo.compatibility  # noqa: F401

# isort: split
import torch
from torch import Tensor
from tqdm import tqdm

from zoo.cache import remembered
from zoo.capabilities import GenerativeModel, Sampled
from zoo.data.base import DataModule, Which
from zoo.distributed import gather, is_leader, share
from zoo.errors import DataError
from zoo.measurement import Measurement
from zoo.metrics.distances import (
    NEIGHBOURS,
    SPLITS,
    SUBSET_SIZE,
    SUBSETS,
    Moments,
    fid,
    inception_score,
    kid,
    precision_recall,
    radii,
)
from zoo.metrics.examples import measuring
from zoo.metrics.extractors import Extractor, to_bytes
from zoo.progress import INTERVAL, listening
from zoo.samplers.base import Sampler

Scores: TypeAlias = dict[str, tuple[float, float]]
"""Values and standard errors by name."""


class Features(NamedTuple):
    """The output of an extractor, on the CPU."""

    values: Tensor  # [N, F]
    logits: Tensor  # [N, number of classes]


def extract(images: Iterable[Tensor], extractor: Extractor, num: int, *, label: str, progress: bool = True) -> Features:
    """Computes the features of the first `num` images.

    Images are clamped and rounded to uint8 first, as if they had been written to files. Processes of a group share
    the images: each gives those at its `share(num)`, and all get all features.

    Args:
        images: Batches [B, C, H, W], uint8 or float in [0, 1].
        extractor: The network.
        num: Number of images, in all processes together.
        label: Title of the progress bar.
        progress: Whether to show a progress bar.

    Raises:
        DataError: There are fewer images, or a pixel is not finite.
    """
    device = next(iter(extractor.parameters()), torch.empty(0)).device
    parts: list[tuple[Tensor, Tensor]] = []
    found = 0
    wanted, shown = len(share(num)), progress and is_leader()
    with (
        measuring(extractor),
        tqdm(total=wanted, desc=label, unit="img", disable=None if shown else True) as bar,
        listening(lambda _, places: bar.set_postfix_str(places), interval=INTERVAL),  # to the model that draws
    ):
        for batch in images:
            for chunk in to_bytes(batch[: wanted - found]).split(extractor.batch_size):
                values, logits = extractor.features_and_logits(chunk.to(device))
                parts.append((values.float().cpu(), logits.float().cpu()))
                found += len(chunk)
                bar.update(len(chunk))
            if found == wanted:
                break
    if found < wanted or num == 0:
        raise DataError(f"{label}: expected {max(wanted, 1)} images, found {found}")
    values, logits = (gather(torch.cat(tensors), num) for tensors in zip(*parts, strict=True))
    return Features(values, logits)


class Reference(NamedTuple):
    """Statistics of real images."""

    features: Features
    radii: Tensor  # [N], see `radii`
    moments: Moments | None  # None if there are at most as many images as features
    key: dict[str, Any]  # everything that they depend on


def reference_of(
    data: DataModule, split: Which, extractor: Extractor, num: int, seed: int, progress: bool = True
) -> Reference:
    """Statistics of `num` images of a split, chosen by `seed`, or of all if there are fewer; cached if possible.

    The key of the cache holds the data set, the split, the number and the seed, the sha256 of the images and of the
    extractor's weights, and the preprocessing.
    """
    num = min(num, len(data.split(split)))
    return _reference(data, split, extractor, data.subset(split, num, seed), f"seed{seed}", progress)


def _reference(
    data: DataModule, split: Which, extractor: Extractor, index: Tensor, title: str, progress: bool
) -> Reference:
    digest, num = hashlib.sha256(), len(index)
    for batch in data.batches(split, index=index):
        digest.update(to_bytes(batch.x).numpy().tobytes())
    key = {
        "data": data.name,
        "split": split,
        "num": num,
        "images_sha256": digest.hexdigest(),
        "chosen by": title,
        "preprocessing": "clamped, rounded to uint8",
        "neighbours": NEIGHBOURS,
        **extractor.details(),
    }

    def compute() -> dict[str, Tensor]:
        images = (batch.x for batch in data.batches(split, index=index[share(num)]))
        features = extract(images, extractor, num, label=f"{data.name} {split}", progress=progress)
        statistics = features._asdict()
        if num > NEIGHBOURS:
            statistics["radii"] = radii(features.values)
        if num > extractor.num_features:
            statistics |= Moments.of(features.values)._asdict()
        return statistics

    found = remembered(f"{data.name}-{split}-{num}-{title}-{extractor.name}", key, compute)
    moments = Moments(*(found[name] for name in Moments._fields)) if "mean" in found else None
    features = Features(found["values"], found["logits"])
    return Reference(features, found.get("radii", torch.empty(0)), moments, key)


def evaluate_quality(
    samples: Iterable[Tensor],
    data: DataModule,
    extractor: Extractor,
    *,
    again: Iterable[Iterable[Tensor]] = (),
    num: int = 10_000,
    reference: Which = "test",
    seed: int = 0,
    progress: bool = True,
) -> list[Measurement]:
    """Measures FID, KID, inception score, precision and recall; `details` holds the floor and memoriser of each.

    The FID is left out if there are at most as many images as features.

    Args:
        samples: Batches [B, *event_shape], uint8 or float in [0, 1]; the first `num` samples count. In a process
            group, those of `iter_samples(num, positions=share(num))`.
        data: The data set. It gives the reference and, from its training split, the baselines.
        extractor: The network.
        again: Samples drawn with other seeds. The FID is then the mean over all seeds; their number, their standard
            deviation and the FID of the first are in `details["sampling_seeds"]`.
        num: Number of samples, of reference images and of training images in the floor. The latter two are fewer if a
            split holds fewer.
        reference: Split of the reference.
        seed: Chooses the images of the splits, the subsets of KID and the splits of the inception score.
        progress: Whether to show progress bars.

    Raises:
        DataError: There are too few images, or a pixel is not finite.
    """
    truth = reference_of(data, reference, extractor, num, seed, progress)
    features = extract(samples, extractor, num, label="samples", progress=progress)
    found, settings = scores(features, truth, seed), _settings(features, truth)
    if "fid" in found and (fids := [found["fid"][0], *_fids(again, truth, extractor, num, progress)])[1:]:
        values = torch.tensor(fids, dtype=torch.float64)
        settings["fid"]["sampling_seeds"] = {"n": len(values), "first": fids[0], "std": values.std().item()}
        found["fid"] = values.mean().item(), found["fid"][1]
    beside = {name: baseline(name, truth, data, extractor, num, seed, progress) for name in BASELINES}
    common = extractor.details() | {"num_reference": len(truth.features.values)}
    measurements = []
    for name, (value, error) in found.items():
        details = common | settings[name] | {title: line[name][0] for title, line in beside.items() if name in line}
        measurements.append(Measurement(name, value, error, "", "estimate", num, seed, reference, data.name, details))
    return measurements


def _fids(
    sets: Iterable[Iterable[Tensor]], truth: Reference, extractor: Extractor, num: int, progress: bool
) -> Iterator[float]:
    for samples in sets:
        features = extract(samples, extractor, num, label="samples of another seed", progress=progress)
        yield fid(features.values, truth.features.values, truth.moments)[0]


def quality_floor(
    data: DataModule,
    extractor: Extractor,
    *,
    num: int = 10_000,
    reference: Which = "test",
    seed: int = 0,
    progress: bool = True,
) -> list[Measurement]:
    """Measures the numbers of `evaluate_quality` with training images in place of samples: `fid_floor` and so on.

    If the reference is the training split, test images take the place of samples. Arguments are those of
    `evaluate_quality`.
    """
    truth = reference_of(data, reference, extractor, num, seed, progress)
    other = _other_images(data, truth, extractor, num, seed, progress).features
    common, settings = extractor.details() | {"num_reference": len(truth.features.values)}, _settings(other, truth)
    measurements = []
    for name, (value, error) in baseline("floor", truth, data, extractor, num, seed, progress).items():
        details, n = common | settings[name], len(other.values)
        measurements.append(
            Measurement(f"{name}_floor", value, error, "", "estimate", n, seed, reference, data.name, details)
        )
    return measurements


def _other_images(
    data: DataModule, truth: Reference, extractor: Extractor, num: int, seed: int, progress: bool
) -> Reference:
    """Images of a split that is not the reference."""
    return reference_of(data, "test" if truth.key["split"] == "train" else "train", extractor, num, seed, progress)


BASELINES = ("floor", "memoriser")
"""Training images in place of samples: each at most once (test images if the reference is the training split), or drawn
with replacement."""


def baseline(
    name: str, truth: Reference, data: DataModule, extractor: Extractor, num: int, seed: int, progress: bool = True
) -> Scores:
    """The numbers of one of `BASELINES` and their errors, from the cache if possible."""
    total = len(data.split("train"))
    if name == "floor":
        images = _other_images(data, truth, extractor, num, seed, progress)
    else:
        index = torch.randint(total, (num,), generator=torch.Generator().manual_seed(seed))
        images = _reference(data, "train", extractor, index, f"memoriser{seed}", progress)
    settings = _settings(images.features, truth)
    key = {"baseline": images.key, "reference": truth.key, "seed": seed, "subsets": SUBSETS, **settings}

    def compute() -> dict[str, Tensor]:
        found = scores(images.features, truth, seed)
        return {title: torch.tensor(pair, dtype=torch.float64) for title, pair in found.items()}

    kept = remembered(f"{name}-{data.name}-{num}-seed{seed}-{extractor.name}", key, compute)
    return {title: (kept[title][0].item(), kept[title][1].item()) for title in settings if title in kept}


def scores(samples: Features, truth: Reference, seed: int) -> Scores:
    """FID and inception score (if there are enough images), KID, precision and recall, by name."""
    reference = truth.features.values
    found: Scores = {}
    if truth.moments is not None and len(samples.values) > samples.values.shape[1]:  # else covariances are singular
        found["fid"] = fid(samples.values, reference, truth.moments)
    found["kid"] = kid(samples.values, reference, seed=seed, **_settings(samples, truth)["kid"])
    if len(samples.logits) >= 2 * SPLITS:  # a split of one image has score 1, whatever the image
        found["inception_score"] = inception_score(samples.logits, seed=seed)
    found["precision"], found["recall"] = precision_recall(samples.values, reference, of_reference=truth.radii)
    return found


def _settings(samples: Features, truth: Reference) -> dict[str, dict[str, Any]]:
    """The settings of each number, for its details."""
    # at least 2 subsets, since one has no error; if there are no images, `precision_recall` says what it expects
    size = max(1, min(SUBSET_SIZE, len(samples.values) // 2, len(truth.features.values) // 2))
    neighbours = {"neighbours": NEIGHBOURS}
    settings = {"kid": {"subset_size": size}, "inception_score": {"splits": SPLITS}}
    return {"fid": {}, **settings, "precision": neighbours, "recall": neighbours}


def sampler_details(model: GenerativeModel, sampler: Sampler | None) -> dict[str, Any]:
    """The name and arguments of the sampler that draws, for the details of a number; empty if there is no choice."""
    return {"sampler": (sampler or model.sampler).to_dict()} if isinstance(model, Sampled) else {}
