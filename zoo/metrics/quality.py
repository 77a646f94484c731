"""Quality of samples: FID, KID, inception score, precision and recall, over the features of a frozen network.

    FID = |mu_s - mu_r|^2 + tr(C_s + C_r - 2 (C_s C_r)^1/2)           Heusel et al. 2017, https://arxiv.org/abs/1706.08500
    KID = MMD^2 with kernel (f.g/F + 1)^3, unbiased                   Binkowski et al. 2018, https://arxiv.org/abs/1801.01401
    IS = exp E_s[KL(p(label given s) || p(label))]                    Salimans et al. 2016, https://arxiv.org/abs/1606.03498
    precision = share of samples within the balls of the reference; recall = share of the reference within the balls of
    the samples; a ball reaches to the 3rd nearest neighbour           Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991

The first three are computed by torchmetrics. None means anything by itself: FID falls as 1/n with the number of images,
and every number depends on the extractor. So each stands beside its `floor`, the same number of training images in
place of samples, against the same reference.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from tqdm import tqdm

from zoo.data.base import DataModule, Which
from zoo.distributed import gather, is_leader, share
from zoo.errors import DataError
from zoo.metrics.examples import measuring
from zoo.metrics.extractors import Extractor, to_bytes
from zoo.metrics.measurement import Measurement

SUBSETS, SUBSET_SIZE = 100, 1000  # of KID
SPLITS = 10  # of the inception score
NEIGHBOURS = 3  # of precision and recall
_LOCAL: dict[str, Any] = {"sync_on_compute": False}  # every process has all features: a sum over them counts them twice


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
    with measuring(extractor), tqdm(total=wanted, desc=label, unit="img", disable=None if shown else True) as bar:
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


def fid(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """Frechet distance of the Gaussians fitted to features [N, F] and [M, F], and its standard error.

    The error is that of the delta method: to first order, one sample s moves the FID by 1/N times

        2 (mu_s - mu_r).(s - mu_s) + (s - mu_s)^T (I - T)(s - mu_s) - tr((I - T) C_s)

    where T is the optimal transport map from one Gaussian to the other; and alike for the reference. It covers the draw
    of both sets but not the bias, which is positive and falls as 1/n.

    Raises:
        DataError: a set is not larger than F, so that its covariance is singular.
    """
    for name, features in (("samples", samples), ("reference", reference)):
        if len(features) <= features.shape[1]:
            raise DataError(
                f"FID: expected more images than the {features.shape[1]} features, found {len(features)} in the {name}"
            )
    metric = FrechetInceptionDistance(_Extracted(samples.shape[1]), **_LOCAL)
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    variance = _fid_variance(samples.double(), reference.double()) + _fid_variance(reference.double(), samples.double())
    return metric.compute().item(), math.sqrt(variance)


def _fid_variance(x: Tensor, y: Tensor) -> float:
    """Variance of the FID by the draw of x: [N, F], [M, F] -> number."""
    shift, centred = x.mean(0) - y.mean(0), x - x.mean(0)
    root = _power(y.T.cov(), 0.5)
    transport = root @ _power(root @ x.T.cov() @ root, -0.5) @ root  # T C_x T = C_y
    identity = torch.eye(len(transport), dtype=x.dtype)
    influence = 2 * centred @ shift + (centred @ (identity - transport) * centred).sum(1)
    return (influence.var() / len(x)).item()


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Power of a positive semi-definite matrix; a pseudo-inverse where the exponent is negative."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    kept = eigenvalues > eigenvalues[-1] * 1e-10
    return (vectors[:, kept] * eigenvalues[kept] ** exponent) @ vectors[:, kept].T


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
    """Mean of the inception score of logits [N, classes] over random disjoint splits, and its standard error."""
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


def precision_recall(
    samples: Tensor, reference: Tensor, *, k: int = NEIGHBOURS, distances: int = 5_000_000
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Precision and recall of features [N, F] and [M, F], each with its binomial error.

    Args:
        k: a ball reaches to the k-th nearest neighbour of its centre.
        distances: how many are held at once (8 bytes each), of the N M + N N + M M; at least one row.

    Raises:
        DataError: a set has no k-th neighbour.
    """
    if (fewest := min(len(samples), len(reference))) <= k:
        raise DataError(f"precision and recall: expected more than {k} images in each set, found {fewest}")
    samples, reference = samples.double(), reference.double()  # distances of near copies cancel in float32
    chunk = max(1, distances // max(len(samples), len(reference)))

    def radii(points: Tensor) -> Tensor:  # k + 1, because each point is its own nearest neighbour
        nearest = [torch.cdist(rows, points).topk(k + 1, largest=False).values for rows in points.split(chunk)]
        return torch.cat(nearest)[:, -1]

    of_samples, of_reference = radii(samples), radii(reference)
    precise, recalled = [], torch.zeros(len(reference), dtype=torch.bool)
    for rows, radius in zip(samples.split(chunk), of_samples.split(chunk), strict=True):
        apart = torch.cdist(rows, reference)  # [chunk, M]
        precise.append((apart <= of_reference).any(1))
        recalled |= (apart <= radius[:, None]).any(0)

    def share(inside: Tensor) -> tuple[float, float]:
        mean = inside.double().mean().item()
        return mean, math.sqrt(mean * (1 - mean) / len(inside))

    return share(torch.cat(precise)), share(recalled)


def evaluate_quality(
    samples: Iterable[Tensor],
    data: DataModule,
    extractor: Extractor,
    *,
    num: int = 10_000,
    reference: Which = "test",
    seed: int = 0,
    progress: bool = True,
) -> list[Measurement]:
    """FID, KID, inception score, precision and recall of samples, each with its floor in `details`.

    The FID is left out where there are no more images than features.

    Args:
        samples: batches [B, *event_shape], uint8 or float in [0, 1]; the first `num` samples count. In a process
            group, those of `iter_samples(num, positions=share(num))`.
        data: gives the reference and, from its training split, the floor.
        num: samples, images of the reference, and training images of the floor; fewer of the latter two where a split
            holds fewer.
        seed: chooses the images of the splits, the subsets of KID and the splits of the inception score.

    Raises:
        DataError: there are too few images, or a pixel is not finite.
    """
    truth = _real(data, reference, extractor, num, seed, progress)
    found = _scores(extract(samples, extractor, num, label="samples", progress=progress), truth, seed)
    train = _real(data, "train", extractor, num, seed, progress)
    floor = {score.name: score.value for score in _scores(train, truth, seed)}
    details = extractor.details() | {"num_reference": len(truth.values)}
    return [
        Measurement(
            score.name,
            score.value,
            score.error,
            "",
            "estimate",
            num,
            seed,
            reference,
            data.name,
            details | score.settings | {"floor": floor.get(score.name)},
        )
        for score in found
    ]


def quality_floor(
    data: DataModule,
    extractor: Extractor,
    *,
    num: int = 10_000,
    reference: Which = "test",
    seed: int = 0,
    progress: bool = True,
) -> list[Measurement]:
    """The same five numbers of training images in place of samples, under the names `fid_floor`, ..."""
    truth = _real(data, reference, extractor, num, seed, progress)
    train = _real(data, "train", extractor, num, seed, progress)
    details = extractor.details() | {"num_reference": len(truth.values)}
    return [
        Measurement(
            f"{score.name}_floor",
            score.value,
            score.error,
            "",
            "estimate",
            len(train.values),
            seed,
            reference,
            data.name,
            details | score.settings,
        )
        for score in _scores(train, truth, seed)
    ]


class _Score(NamedTuple):
    name: str
    value: float
    error: float
    settings: dict[str, Any]


def _real(data: DataModule, split: Which, extractor: Extractor, num: int, seed: int, progress: bool) -> Features:
    num = min(num, len(data.split(split)))
    batches = data.batches(split, index=data.subset(split, num, seed)[share(num)])
    return extract((batch.x for batch in batches), extractor, num, label=f"{data.name} {split}", progress=progress)


def _scores(samples: Features, truth: Features, seed: int) -> list[_Score]:
    size = min(SUBSET_SIZE, len(samples.values) // 2, len(truth.values) // 2)  # one subset alone would have no error
    precision, recall = precision_recall(samples.values, truth.values)
    has_fid = min(len(samples.values), len(truth.values)) > samples.values.shape[1]  # else its covariances are singular
    return [
        *([_Score("fid", *fid(samples.values, truth.values), {})] if has_fid else []),
        _Score("kid", *kid(samples.values, truth.values, subset_size=size, seed=seed), {"subset_size": size}),
        _Score("inception_score", *inception_score(samples.logits, seed=seed), {"splits": SPLITS}),
        _Score("precision", *precision, {"neighbours": NEIGHBOURS}),
        _Score("recall", *recall, {"neighbours": NEIGHBOURS}),
    ]
