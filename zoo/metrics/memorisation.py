"""Whether samples are copies: the training images nearest to them, and whether these are nearer than to unseen images.

    copied = P(d(sample) < d(test image)) + P(equal)/2,    d(x) = distance from x to the nearest training image

This is the statistic of Mann and Whitney, which Meehan et al. 2020 use (https://arxiv.org/abs/2004.05675, section 3).
It is 1/2 for draws from the distribution of the data, and 1 for copies. Below 1/2, samples are farther from training
images than unseen images are. Its standard deviation under the null hypothesis is sqrt((n + m + 1)/(12 n m)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data.base import DataModule
from zoo.errors import ConfigError, DataError
from zoo.metrics.examples import measuring
from zoo.metrics.extractors import Extractor

_ROWS = 200  # number of rows of a matrix of distances that are held at once


@dataclass(frozen=True)
class Neighbours:
    """The training images nearest to some samples.

    Attributes:
        index: Their positions in the training split, nearest first, [N, k].
        distances: Their distances, [N, k].
        copied: The statistic `copied`, in [0, 1].
        score: (copied - 1/2) divided by its standard deviation under the null hypothesis.
        num_test: Number of test images in the comparison.
    """

    index: Tensor
    distances: Tensor
    copied: float
    score: float
    num_test: int


def neighbours(samples: Tensor, data: DataModule, k: int = 5, *, extractor: Extractor | None = None) -> Neighbours:
    """Finds the k training images nearest to each sample.

    Args:
        samples: Images [N, C, H, W] in [0, 1]. They are compared with N test images, or with all if there are fewer.
        data: The data set.
        k: Number of neighbours.
        extractor: Distances are Euclidean distances of its features; by default, of pixels.

    Raises:
        ConfigError: k is not between 1 and the number of training images.
        DataError: The samples have another shape than the data, or there are none.
    """
    check_neighbours(samples.shape, data, k, extractor)
    embed = _embedding(extractor)
    references = torch.cat([embed(batch.x) for batch in data.batches("train")])
    distances, index = nearest(embed(samples.cpu()), references, k)
    chosen = data.subset("test", min(len(samples), len(data.split("test"))), seed=0)
    unseen = torch.cat([embed(batch.x) for batch in data.batches("test", index=chosen)])
    of_unseen = nearest(unseen, references, 1)[0][:, 0]
    copied, score = closer(distances[:, 0], of_unseen)
    return Neighbours(index, distances, copied, score, len(unseen))


def check_neighbours(shape: Sequence[int], data: DataModule, k: int, extractor: Extractor | None) -> None:
    """Raises the errors of `neighbours` for samples of a shape [N, C, H, W] before they are drawn."""
    if tuple(shape[1:]) != tuple(data.event_shape) or shape[0] == 0:
        expected = ", ".join(map(str, ("N", *data.event_shape)))
        raise DataError(f"neighbours: expected samples of shape [{expected}], found {list(shape)}")
    if not 1 <= k <= len(data.split("train")):
        raise ConfigError(f"k: expected 1 to {len(data.split('train'))}, the training images, found {k}")
    _embedding(extractor)(torch.zeros(1, *shape[1:]))  # an extractor of other shapes raises here


def nearest(queries: Tensor, references: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances [N, k] and positions [N, k] of the k points in `references` [M, F] nearest to `queries` [N, F]."""
    found = [torch.cdist(rows, references).topk(k, largest=False) for rows in queries.split(_ROWS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def closer(first: Tensor, second: Tensor) -> tuple[float, float]:
    """P(a < b) + P(a = b)/2 for a in `first` [n] and b in `second` [m], and its score; see `Neighbours`."""
    n, m = len(first), len(second)
    share = ((first[:, None] < second).double() + (first[:, None] == second).double() / 2).mean().item()
    return share, (share - 0.5) / math.sqrt((n + m + 1) / (12 * n * m))


def _embedding(extractor: Extractor | None) -> Callable[[Tensor], Tensor]:
    if extractor is None:
        return lambda x: x.flatten(1)

    device = next(iter(extractor.parameters()), torch.empty(0)).device

    def features(x: Tensor) -> Tensor:
        with measuring(extractor):
            return torch.cat([extractor(part.to(device)).float().cpu() for part in x.split(extractor.batch_size)])

    return features
