"""Outlier detection by likelihood: how well log p(x) separates the data of a model from foreign images.

    AUROC = P(log p(x) > log p(x')) + P(log p(x) = log p(x'))/2,    x: test image of the model's data, x': foreign image

1/2 is chance. Below 1/2, the model finds foreign images more likely than its own, as models of photographs of clothes
do with digits (Nalisnick et al. 2019, https://arxiv.org/abs/1810.09136). If a model has no density, its tightest bound
takes its place.

The error is that of DeLong et al. 1988 (https://doi.org/10.2307/2531595).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.capabilities import ZooModule
from zoo.data.base import DataModule, Which
from zoo.data.mnist import MNIST, FashionMNIST
from zoo.measurement import Measurement
from zoo.metrics.likelihood import log_likelihood

NUM = 2000
"""Number of images of each set."""

EFFORT = {"k": 50, "draws": 2, "normalized": False}
"""Fields of `Effort`: images are only compared with each other, for which fewer samples do, and no log Z."""

FOREIGN: dict[str, tuple[type[MNIST] | type[FashionMNIST], ...]] = {
    "mnist": (MNIST, FashionMNIST),
    "binarized-mnist": (MNIST, FashionMNIST),
    "dynamic-mnist": (MNIST, FashionMNIST),
    "fashion-mnist": (FashionMNIST, MNIST),
    "dynamic-fashion-mnist": (FashionMNIST, MNIST),
}
"""Names of data sets, and the classes of the images that are scored: own ones and foreign ones."""


def auroc(inliers: Tensor, outliers: Tensor) -> tuple[float, float]:
    """The area under the ROC curve, and its standard error, of scores [N] and [M] that are large for inliers."""

    def above(scores: Tensor, others: Tensor) -> Tensor:
        """The share of `others` below each score; equal scores count half."""
        order = others.sort().values
        sides = [torch.searchsorted(order, scores, right=right).double() for right in (False, True)]
        return (sides[0] + sides[1]) / (2 * len(others))

    one, other = above(inliers, outliers), above(outliers, inliers)
    variance = sum(part.var().item() / len(part) for part in (one, other) if len(part) > 1)
    return one.mean().item(), math.sqrt(variance)


def foreign_to(data: DataModule) -> tuple[DataModule, DataModule] | None:
    """The two data sets that are scored, own images first; None if the data set has no foreign counterpart.

    Binary pixels of both sets are drawn anew from the grey values, since a fixed binarisation of one set alone would
    tell the sets apart.
    """
    if data.name not in FOREIGN:
        return None
    binary: Literal["dynamic"] | None = "dynamic" if data.levels == 2 else None
    own, foreign = (kind(binarize=binary, root=str(data.root)) for kind in FOREIGN[data.name])
    return own, foreign


def outlier_detection(
    model: ZooModule,
    data: DataModule,
    split: Which = "test",
    *,
    num: int = NUM,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
    **effort: int,
) -> list[Measurement]:
    """Measures the AUROC of a split of the model's data against the same split of the foreign set.

    Args:
        model: The model.
        data: Its data set.
        split: Split of both data sets.
        num: Number of images of each set; all if there are fewer.
        seed: Seed of the choice of images, and of the estimates of their likelihoods.
        batch_size, progress: As in `nll`.
        effort: Further fields of `Effort`; by default, those of `EFFORT`.

    Returns:
        One number; none if the model has neither a density nor a bound, or the data set has no foreign counterpart.
    """
    if (pair := foreign_to(data)) is None:
        return []
    scores: list[Tensor] = []
    settings: dict[str, Any] = {}
    for part in pair:
        index = part.subset(split, min(num, len(part.split(split))), seed)
        found = log_likelihood(
            model, part, split, index=index, batch_size=batch_size, progress=progress, seed=seed, **EFFORT | effort
        )
        if found is None:
            return []
        scores.append(found.nats)
        settings = {"score": found.name, "score_kind": found.estimate.kind, **found.estimate.settings}
    value, error = auroc(*scores)
    details = {"against": pair[1].name, "num_against": len(scores[1]), **settings}
    return [Measurement("auroc", value, error, "", "estimate", len(scores[0]), seed, split, pair[0].name, details)]
