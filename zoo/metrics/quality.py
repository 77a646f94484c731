"""Quality of samples: FID, KID, inception score, precision and recall, over the features of a frozen network.

    FID = |mu_s - mu_r|^2 + tr(C_s + C_r - 2 (C_s C_r)^1/2)           Heusel et al. 2017, https://arxiv.org/abs/1706.08500
    KID = MMD^2 with kernel (f.g/F + 1)^3, unbiased                   Binkowski et al. 2018, https://arxiv.org/abs/1801.01401
    IS = exp E_s[KL(p(label given s) || p(label))]                    Salimans et al. 2016, https://arxiv.org/abs/1606.03498
    precision = share of samples within the balls of the reference; recall = share of the reference within the balls of
    the samples; a ball reaches to the 3rd nearest neighbour           Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991

KID and IS are computed by torchmetrics. None means anything by itself: FID falls as 1/n with the number of images,
and every number depends on the extractor. So each stands beside its `floor`, the same number of training images in
place of samples, against the same reference; and beside that of a `memoriser`, which draws training images with
replacement: what no model beats by generalising.

What they need of the reference, and the baselines, are kept in files from one call to the next (`zoo.metrics.cache`).
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import zoo.compatibility  # noqa: F401

# isort: split
import torch
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from tqdm import tqdm

from zoo.data.base import DataModule, Which
from zoo.distributed import gather, is_leader, share
from zoo.errors import DataError
from zoo.measurement import Measurement, share_and_error
from zoo.metrics.cache import remembered
from zoo.metrics.examples import measuring
from zoo.metrics.extractors import Extractor, to_bytes
from zoo.progress import INTERVAL, listening

SUBSETS, SUBSET_SIZE = 100, 1000  # of KID
SPLITS = 10  # of the inception score
NEIGHBOURS = 3  # of precision and recall
_LOCAL: dict[str, Any] = {"sync_on_compute": False}  # every process has all features: a sum over them counts them twice


Scores: TypeAlias = dict[str, tuple[float, float]]
"""Value and standard error by name."""


class Features(NamedTuple):
    """What an extractor makes of images, on the CPU."""

    values: Tensor  # [N, F]
    logits: Tensor  # [N, number of classes]


class _Extracted(nn.Module):
    """The extractor for torchmetrics once the features are there: one pass of the network serves every metric."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def extract(images: Iterable[Tensor], extractor: Extractor, num: int, *, label: str, progress: bool = True) -> Features:
    """Features of the first `num` images of an iterable of batches [B, C, H, W], uint8 or float in [0, 1].

    Processes of a group share the images: each gives those at its `share(num)`, and all get all features.

    Images become uint8 first, clamped and rounded, as if they had been written to files.

    Raises:
        DataError: there are fewer images, or a pixel is not finite.
    """
    device = next(iter(extractor.parameters()), torch.empty(0)).device
    parts: list[tuple[Tensor, Tensor]] = []
    found = 0
    wanted, shown = len(share(num)), progress and is_leader()
    with (
        measuring(extractor),
        tqdm(total=wanted, desc=label, unit="img", disable=None if shown else True) as bar,
        listening(lambda _, places: bar.set_postfix_str(places), interval=INTERVAL),  # to what draws the images
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


class Moments(NamedTuple):
    """Mean and covariance of features, the latter by its eigenvalues and vectors: V diag(l) V^T."""

    mean: Tensor  # [F], float64
    eigenvalues: Tensor  # [F], rising
    vectors: Tensor  # [F, F], one a column

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        x = features.double()
        return cls(x.mean(0), *torch.linalg.eigh(x.T.cov()))

    def power(self, exponent: float) -> Tensor:
        """The covariance to a power; a pseudo-inverse where that is negative."""
        return _power(self.eigenvalues, self.vectors, exponent)


def _power(eigenvalues: Tensor, vectors: Tensor, exponent: float) -> Tensor:
    kept = eigenvalues > eigenvalues[-1] * 1e-10
    return (vectors[:, kept] * eigenvalues[kept] ** exponent) @ vectors[:, kept].T


def fid(samples: Tensor, reference: Tensor, moments: Moments | None = None) -> tuple[float, float]:
    """Frechet distance of the Gaussians fitted to features [N, F] and [M, F], and its standard error.

    The trace of the root is the sum of the roots of the eigenvalues of C_r^1/2 C_s C_r^1/2, which are those of C_s C_r.

    The error is that of the delta method: to first order, one sample s moves the FID by 1/N times

        2 (mu_s - mu_r).(s - mu_s) + (s - mu_s)^T (I - T)(s - mu_s) - tr((I - T) C_s)

    where T is the optimal transport map from one Gaussian to the other; and alike for the reference. It covers the draw
    of both sets but not the bias, which is positive and falls as 1/n.

    Args:
        moments: those of the reference, if they are known.

    Raises:
        DataError: a set is not larger than F, so that its covariance is singular.
    """
    for name, features in (("samples", samples), ("reference", reference)):
        if len(features) <= features.shape[1]:
            raise DataError(
                f"FID: expected more images than the {features.shape[1]} features, found {len(features)} in the {name}"
            )
    samples, reference = samples.double(), reference.double()
    moments = moments or Moments.of(reference)
    root, inverse = moments.power(0.5), moments.power(-0.5)
    covariance, shift = samples.T.cov(), samples.mean(0) - moments.mean
    middle = torch.linalg.eigh(root @ covariance @ root)
    roots = middle.eigenvalues.clamp(min=0).sqrt()
    value = shift @ shift + covariance.trace() + moments.eigenvalues.sum() - 2 * roots.sum()
    there = root @ _power(middle.eigenvalues, middle.eigenvectors, -0.5) @ root  # T C_s T = C_r
    back = inverse @ _power(middle.eigenvalues, middle.eigenvectors, 0.5) @ inverse
    variance = _draw_variance(samples, shift, there) + _draw_variance(reference, -shift, back)
    return value.item(), math.sqrt(variance)


def _draw_variance(x: Tensor, shift: Tensor, transport: Tensor) -> float:
    """Variance of the FID by the draw of x: [N, F], [F], [F, F] -> number."""
    centred = x - x.mean(0)
    influence = 2 * centred @ shift + (centred @ (torch.eye(len(shift)).to(x) - transport) * centred).sum(1)
    return (influence.var() / len(x)).item()


def kid(
    samples: Tensor, reference: Tensor, *, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float]:
    """Mean of the kernel distance of features over random subsets, and its standard error.

    The subsets overlap: the error is their standard deviation over the root of the number of disjoint ones that the
    smaller set holds.

    Raises:
        DataError: a set is smaller than `subset_size`.
    """
    if (smaller := min(len(samples), len(reference))) < subset_size:
        raise DataError(f"KID: expected at least {subset_size} images in each set, found {smaller}")
    with _seeded(seed):
        extracted = _Extracted(samples.shape[1])
        metric = KernelInceptionDistance(extracted, subsets=subsets, subset_size=subset_size, **_LOCAL)
        metric.update(reference.double(), real=True)
        metric.update(samples.double(), real=False)
        mean, deviation = metric.compute()
    return mean.item(), deviation.item() / math.sqrt(smaller / subset_size)


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int = 0) -> tuple[float, float]:
    """Mean of the inception score of logits [N, classes] over random disjoint splits, and its standard error.

    Splits have equally many images: the last N mod `splits` are left out.
    """
    logits = logits[: len(logits) // splits * splits]
    with _seeded(seed):
        metric = InceptionScore(_Extracted(logits.shape[1]), splits=splits, **_LOCAL)
        metric.update(logits.double())
        mean, deviation = metric.compute()
    return mean.item(), deviation.item() / math.sqrt(splits)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """For torchmetrics, which permutes by torch's global generator and warns that it keeps features."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        yield


def radii(points: Tensor, *, k: int = NEIGHBOURS, distances: int = 5_000_000) -> Tensor:
    """Distance of the k-th nearest neighbour of each point: [N, F] -> [N], float64; see `precision_recall`."""
    points = points.double()  # distances of near copies cancel in float32
    # k + 1, because each point is its own nearest neighbour
    chunks = points.split(max(1, distances // len(points)))
    return torch.cat([torch.cdist(rows, points).topk(k + 1, largest=False).values[:, -1] for rows in chunks])


def precision_recall(
    samples: Tensor,
    reference: Tensor,
    *,
    k: int = NEIGHBOURS,
    of_reference: Tensor | None = None,
    distances: int = 5_000_000,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Precision and recall of features [N, F] and [M, F], each with its binomial error.

    Args:
        k: a ball reaches to the k-th nearest neighbour of its centre.
        of_reference: `radii` of the reference, if they are known.
        distances: how many are held at once (8 bytes each), of the N M + N N + M M; at least one row.

    Raises:
        DataError: a set has no k-th neighbour.
    """
    if (fewest := min(len(samples), len(reference))) <= k:
        raise DataError(f"precision and recall: expected more than {k} images in each set, found {fewest}")
    samples, reference = samples.double(), reference.double()
    chunk = max(1, distances // max(len(samples), len(reference)))
    of_samples = radii(samples, k=k, distances=distances)
    if of_reference is None:
        of_reference = radii(reference, k=k, distances=distances)
    precise, recalled = [], torch.zeros(len(reference), dtype=torch.bool)
    for rows, radius in zip(samples.split(chunk), of_samples.split(chunk), strict=True):
        apart = torch.cdist(rows, reference)  # [chunk, M]
        precise.append((apart <= of_reference).any(1))
        recalled |= (apart <= radius[:, None]).any(0)
    return share_and_error(torch.cat(precise)), share_and_error(recalled)


class Reference(NamedTuple):
    """Real images, as the numbers of samples need them."""

    features: Features
    radii: Tensor  # [N], see `radii`
    moments: Moments | None  # None where there are no more images than features
    key: dict[str, Any]  # what they depend on


def reference_of(
    data: DataModule, split: Which, extractor: Extractor, num: int, seed: int, progress: bool = True
) -> Reference:
    """`num` images of a split chosen by `seed` (all, where it holds fewer), from the cache where they are there.

    The key names the data set, split, number and seed, the sha256 of the images themselves and of the extractor's
    weights, and what happens to an image on its way to the network.
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
    """FID, KID, inception score, precision and recall of samples, each with its floor and memoriser in `details`.

    The FID is left out where there are no more images than features.

    Args:
        samples: batches [B, *event_shape], uint8 or float in [0, 1]; the first `num` samples count. In a process
            group, those of `iter_samples(num, positions=share(num))`.
        data: gives the reference and, from its training split, the baselines.
        again: samples drawn with other seeds: the FID of each counts for the spread, `details["sampling_seeds"]`.
        num: samples, images of the reference, and training images of the floor; fewer of the latter two where a split
            holds fewer.
        seed: chooses the images of the splits, the subsets of KID and the splits of the inception score.

    Raises:
        DataError: there are too few images, or a pixel is not finite.
    """
    truth = reference_of(data, reference, extractor, num, seed, progress)
    features = extract(samples, extractor, num, label="samples", progress=progress)
    found, settings = scores(features, truth, seed), _settings(features, truth)
    if "fid" in found and (fids := [found["fid"][0], *_fids(again, truth, extractor, num, progress)])[1:]:
        values = torch.tensor(fids, dtype=torch.float64)
        settings["fid"]["sampling_seeds"] = {
            "n": len(values),
            "mean": values.mean().item(),
            "std": values.std().item(),
        }
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
    """The same five numbers of training images in place of samples, under the names `fid_floor`, ...

    Where training images are the reference, test images stand for samples.
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
    """Images of another split than the reference's."""
    return reference_of(data, "test" if truth.key["split"] == "train" else "train", extractor, num, seed, progress)


BASELINES = ("floor", "memoriser")
"""Training images in place of samples: each at most once (test images, where the reference is of training images), or
drawn with replacement."""


def baseline(
    name: str, truth: Reference, data: DataModule, extractor: Extractor, num: int, seed: int, progress: bool = True
) -> Scores:
    """The five numbers of one of `BASELINES` and their errors, from the cache where they are there."""
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
    """FID and inception score (where there are images enough for them), KID, precision and recall, by name."""
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
    """Of each number, what stands in its details."""
    # one alone would have no error; of none, `precision_recall` says what is wanted
    size = max(1, min(SUBSET_SIZE, len(samples.values) // 2, len(truth.features.values) // 2))
    neighbours = {"neighbours": NEIGHBOURS}
    settings = {"kid": {"subset_size": size}, "inception_score": {"splits": SPLITS}}
    return {"fid": {}, **settings, "precision": neighbours, "recall": neighbours}
