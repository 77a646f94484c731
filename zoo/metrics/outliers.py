"""Outlier detection by likelihood: how well log p(x) tells the images that a model was trained on from foreign ones.

    AUROC = P(log p(x) > log p(x')) + P(log p(x) = log p(x'))/2,    x: test image of the model's data, x': foreign image

1/2 is chance. Below it, the model finds foreign images more likely than its own, as densities of photographs of clothes
do with digits (Nalisnick et al. 2019, https://arxiv.org/abs/1810.09136). Where a model has no density, its tightest
bound stands in.

The error is that of DeLong et al. 1988 (https://doi.org/10.2307/2531595).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from zoo.capabilities import ZooModule
from zoo.data.base import DataModule, Which
from zoo.data.mnist import MNIST, FashionMNIST
from zoo.measurement import Measurement
from zoo.metrics.likelihood import log_likelihood

NUM = 2000
"""Images of each set."""

K, DRAWS = 50, 2
"""Importance samples and draws of an image: fewer than for a likelihood, since images are compared with each other."""


def auroc(inliers: Tensor, outliers: Tensor) -> tuple[float, float]:
    """Area under the ROC curve of scores [N] and [M], large where an image looks familiar, and its standard error."""

    def above(scores: Tensor, others: Tensor) -> Tensor:
        """The share of `others` below each score; equal ones count half."""
        order = others.sort().values
        sides = [torch.searchsorted(order, scores, right=right).double() for right in (False, True)]
        return (sides[0] + sides[1]) / (2 * len(others))

    one, other = above(inliers, outliers), above(outliers, inliers)
    variance = sum(part.var().item() / len(part) for part in (one, other) if len(part) > 1)
    return one.mean().item(), math.sqrt(variance)


def foreign_to(data: DataModule) -> tuple[DataModule, DataModule] | None:
    """A data set of the family of MNIST as it is scored, and its foreign counterpart; None where there is none.

    Binary pixels are drawn afresh from the grey values of both, by the same rule: a fixed binarisation of one alone
    would give it away.
    """
    binary: Literal["dynamic"] | None = "dynamic" if data.levels == 2 else None
    if data.name in ("mnist", "binarized-mnist", "dynamic-mnist"):
        return MNIST(binarize=binary, root=str(data.root)), FashionMNIST(binarize=binary, root=str(data.root))
    if data.name in ("fashion-mnist", "dynamic-fashion-mnist"):
        return FashionMNIST(binarize=binary, root=str(data.root)), MNIST(binarize=binary, root=str(data.root))
    return None


def outlier_detection(
    model: ZooModule,
    data: DataModule,
    split: Which = "test",
    *,
    num: int = NUM,
    k: int = K,
    draws: int = DRAWS,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """The AUROC of a split of the model's data against the same split of the foreign set: one number, or none.

    None where the model has neither a density nor a bound, or the data no counterpart. See `log_likelihood`.
    """
    if (pair := foreign_to(data)) is None:
        return []
    scores, settings = [], {}
    for part in pair:
        index = part.subset(split, min(num, len(part.split(split))), seed)
        found = log_likelihood(
            model, part, split, index=index, k=k, draws=draws, seed=seed, batch_size=batch_size, progress=progress
        )
        if found is None:
            return []
        scores.append(found.nats)
        settings = {"score": found.name, "score_kind": found.kind, **found.settings}
    value, error = auroc(*scores)
    details = {"against": pair[1].name, "num_against": len(scores[1]), **settings}
    return [Measurement("auroc", value, error, "", "estimate", len(scores[0]), seed, split, pair[0].name, details)]
