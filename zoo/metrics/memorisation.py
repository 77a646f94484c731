"""Are samples memorised? Their nearest training images, and how near these are against those of unseen images.

    copied = P(d(sample) < d(test image)) + P(equal)/2,    d(x) = distance of x to the nearest training image

The statistic of Mann and Whitney, as Meehan et al. 2020 (https://arxiv.org/abs/2004.05675, section 3) use it for all
of the data: 1/2 for draws from the distribution of the data, 1 for copies; below 1/2, samples lie further from the
training images than unseen images do. Its null standard deviation is sqrt((n + m + 1)/(12 n m)).
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

_ROWS = 200  # of a matrix of distances at once


@dataclass(frozen=True)
class Neighbours:
    """The training images nearest to some samples.

    Attributes:
        index: their positions in the training split, nearest first, [N, k].
        distances: how far they are, [N, k].
        copied: see the module; between 0 and 1.
        score: (copied - 1/2) over its standard deviation, if samples were draws from the data's distribution.
        num_test: test images that were compared with.
    """

    index: Tensor
    distances: Tensor
    copied: float
    score: float
    num_test: int


def neighbours(samples: Tensor, data: DataModule, k: int = 5, *, extractor: Extractor | None = None) -> Neighbours:
    """The k training images nearest to each sample, by Euclidean distance of pixels, or of features of an extractor.

    Args:
        samples: images [N, C, H, W] in [0, 1], which are compared with as many test images, or all.

    Raises:
        ConfigError: k is not between 1 and the number of training images.
        DataError: the samples are no images of the shape of the data, or there are none.
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
    """Raises what `neighbours` does for samples [N, C, H, W] of a shape, before they are drawn."""
    if tuple(shape[1:]) != tuple(data.event_shape) or shape[0] == 0:
        expected = ", ".join(map(str, ("N", *data.event_shape)))
        raise DataError(f"neighbours: expected samples of shape [{expected}], found {list(shape)}")
    if not 1 <= k <= len(data.split("train")):
        raise ConfigError(f"k: expected 1 to {len(data.split('train'))}, the training images, found {k}")
    _embedding(extractor)(torch.zeros(1, *shape[1:]))  # one of other images refuses these


def nearest(queries: Tensor, references: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Euclidean distances and positions of the k nearest of `references` [M, F] to `queries` [N, F]: [N, k], [N, k]."""
    found = [torch.cdist(rows, references).topk(k, largest=False) for rows in queries.split(_ROWS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def closer(first: Tensor, second: Tensor) -> tuple[float, float]:
    """P(a < b) + P(a = b)/2 for a of `first` [n] and b of `second` [m], and its score against one half."""
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
