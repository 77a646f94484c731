"""FID, KID, inception score, precision and recall of features and logits.

    FID = |mu_s - mu_r|^2 + tr(C_s + C_r - 2 (C_s C_r)^1/2)           Heusel et al. 2017, https://arxiv.org/abs/1706.08500
    KID = MMD^2 with kernel (f.g/F + 1)^3, unbiased                   Binkowski et al. 2018, https://arxiv.org/abs/1801.01401
    IS = exp E_s[KL(p(label | s) || p(label))]                        Salimans et al. 2016, https://arxiv.org/abs/1606.03498
    precision = share of samples within the balls of the reference; recall = share of the reference within the balls of
    the samples; a ball reaches to the 3rd nearest neighbour           Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991

KID and IS are computed by torchmetrics. What the numbers of images mean is said in `zoo.metrics.quality`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from zoo.errors import DataError
from zoo.measurement import share_and_error

SUBSETS, SUBSET_SIZE = 100, 1000  # of KID
SPLITS = 10  # of the inception score
NEIGHBOURS = 3  # of precision and recall
_LOCAL: dict[str, Any] = {"sync_on_compute": False}  # every process has all features; a sum would count them twice


class _Extracted(nn.Module):
    """Passes features on to torchmetrics, so that one pass of the network serves every metric."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


class Moments(NamedTuple):
    """Mean and covariance of features; the covariance is V diag(l) V^T."""

    mean: Tensor  # [F], float64
    eigenvalues: Tensor  # [F], l, in increasing order
    vectors: Tensor  # [F, F], V, one eigenvector per column

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        x = features.double()
        return cls(x.mean(0), *torch.linalg.eigh(x.T.cov()))

    def power(self, exponent: float) -> Tensor:
        """The covariance to a power; for negative powers, of its pseudo-inverse."""
        return _power(self.eigenvalues, self.vectors, exponent)


def _power(eigenvalues: Tensor, vectors: Tensor, exponent: float) -> Tensor:
    kept = eigenvalues > eigenvalues[-1] * 1e-10
    return (vectors[:, kept] * eigenvalues[kept] ** exponent) @ vectors[:, kept].T


def fid(samples: Tensor, reference: Tensor, moments: Moments | None = None) -> tuple[float, float]:
    """The Frechet distance of the Gaussians fitted to two sets of features, and its standard error.

    The trace of the root is the sum of the roots of the eigenvalues of C_r^1/2 C_s C_r^1/2, which are those of C_s C_r.

    The error is that of the delta method. To first order, a sample s changes the FID by 1/N times

        2 (mu_s - mu_r).(s - mu_s) + (s - mu_s)^T (I - T)(s - mu_s) - tr((I - T) C_s)

    where T is the optimal transport map from one Gaussian to the other; likewise for the reference. It covers the draw
    of both sets but not the bias, which is positive and falls as 1/n.

    Args:
        samples: [N, F].
        reference: [M, F].
        moments: Moments of the reference, if they are known.

    Raises:
        DataError: A set has at most F images, so that its covariance is singular.
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
    """Variance of the FID that comes from the draw of x: [N, F], [F], [F, F] -> number."""
    centred = x - x.mean(0)
    influence = 2 * centred @ shift + (centred @ (torch.eye(len(shift)).to(x) - transport) * centred).sum(1)
    return (influence.var() / len(x)).item()


def kid(
    samples: Tensor, reference: Tensor, *, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float]:
    """The mean kernel distance of features over random subsets, and its standard error.

    The subsets overlap, so the error is their standard deviation divided by the root of the number of disjoint subsets
    that the smaller set holds.

    Args:
        samples: [N, F].
        reference: [M, F].
        subsets: Number of subsets.
        subset_size: Number of images in a subset.
        seed: Seed of the choice of subsets.

    Raises:
        DataError: A set is smaller than `subset_size`.
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
    """The mean inception score over random disjoint splits of equal size, and its standard error.

    Args:
        logits: [N, number of classes]; the last N mod `splits` are left out.
        splits: Number of splits.
        seed: Seed of the splits.
    """
    logits = logits[: len(logits) // splits * splits]
    with _seeded(seed):
        metric = InceptionScore(_Extracted(logits.shape[1]), splits=splits, **_LOCAL)
        metric.update(logits.double())
        mean, deviation = metric.compute()
    return mean.item(), deviation.item() / math.sqrt(splits)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global generator, which torchmetrics uses, and silences its warning that it keeps features."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        yield


def radii(points: Tensor, *, k: int = NEIGHBOURS, distances: int = 5_000_000) -> Tensor:
    """The distance from each point to its k-th nearest neighbour: [N, F] -> [N], float64; see `precision_recall`."""
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
    """Precision and recall of features, each with its binomial error.

    Args:
        samples: [N, F].
        reference: [M, F].
        k: A ball reaches to the k-th nearest neighbour of its centre.
        of_reference: `radii` of the reference, if they are known.
        distances: Number of distances held in memory at once, 8 bytes each.

    Raises:
        DataError: A set has at most k images.
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
