"""Which images are unlike good ones, by two Gaussian densities that are fitted to the good ones in seconds.

    a(x) = max_i (x_i - mu_i)' Sigma_i^-1 (x_i - mu_i),    x_i the patch of 5x5 pixels at place i
    b(x) = (x - mu)' Sigma^-1 (x - mu),                    x all pixels
    s(x) = max(z(log a(x)), z(log b(x)))

a and b are twice the logarithm of how much more likely than the image, or its worst patch, the likeliest one is. Unlike
likelihoods, they do not grow with the detail of an image. a sees scratches, b images of another kind. z has mean 0
and standard deviation 1 on good images. Each good image is scored by densities of the others (in five parts), and the
p-value of a score is the share of good images that score as high; above their upper quartile, where they are few, an
exponential tail takes its place (Pickands 1975, https://doi.org/10.1214/aos/1176343003, of shape 0).

Sigma_i is the mean over the places beside i, with a tenth of the mean over all places; Sigma is shrunk towards a
multiple of the identity (Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4). The variance of rounding
to 8 bits is added to both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from zoo.errors import DataError
from zoo.progress import steps

PATCH = 5
FOLDS = 5
LEAST, MOST = 20, 1000
"""Numbers of good images: fewer are refused, and of more a seeded choice is used."""

_SHRINKAGE = 0.1
_ROUNDING = 1 / (12 * 255**2)
_ROWS = 4  # of places that are computed at once, which bounds the memory


@dataclass(frozen=True)
class Novelty:
    """How unlike good images some images are.

    Attributes:
        scores: s, [N], float64; higher for less likely images.
        p_values: Share of good images that score as high, [N], float64.
        threshold: Score above which the share of good images is the rate of false alarms.
        num_good: Number of good images that were used.
    """

    scores: Tensor
    p_values: Tensor
    threshold: float
    num_good: int


def novelty(good: Tensor, new: Tensor, *, false_alarms: float = 0.01, seed: int = 0) -> Novelty:
    """Compares images with good ones.

    Args:
        good: Good images, [M, C, H, W], in [0, 1]; parts in them should lie alike.
        new: Images to judge, [N, C, H, W].
        false_alarms: Rate of false alarms, in (0, 1).
        seed: Seed of the choice and of the division of good images.

    Raises:
        DataError: There are too few good images, or images of several shapes.
    """
    if len(good) < LEAST:
        raise DataError(f"expected at least {LEAST} good images to compare with, found {len(good)}; add some")
    if good.shape[1:] != new.shape[1:]:
        raise DataError(
            f"expected images as large as the good ones, {list(good.shape[1:])}, found {list(new.shape[1:])}; bring "
            "all to one size"
        )
    generator = torch.Generator().manual_seed(seed)
    good = good[torch.randperm(len(good), generator=generator)[:MOST]].double()
    part = torch.arange(len(good)) % FOLDS
    held_out = good.new_empty(len(good), 2)
    for fold in steps(list(range(FOLDS)), "part"):
        held_out[part == fold] = _distances(good[part != fold], good[part == fold])
    mean, std = held_out.mean(0), held_out.std(0).clamp(min=1e-6)
    scores = ((_distances(good, new.double()) - mean) / std).amax(1)
    tail = _Tail.of(((held_out - mean) / std).amax(1))
    return Novelty(scores, tail.p_values(scores), tail.quantile(false_alarms), len(good))


@dataclass(frozen=True)
class _Tail:
    """Scores of good images, and an exponential tail beyond the highest quarter of them."""

    scores: Tensor  # [M], rising
    share: float  # of the scores beyond the start
    start: float
    scale: float

    @classmethod
    def of(cls, scores: Tensor) -> _Tail:
        rising, num = scores.sort().values, -(-len(scores) // 4)
        start = rising[-num - 1].item()
        return cls(rising, num / len(scores), start, max((rising[-num:] - start).mean().item(), 1e-6))

    def p_values(self, scores: Tensor) -> Tensor:
        as_high = len(self.scores) - torch.searchsorted(self.scores, scores)
        beyond = self.share * (-(scores - self.start) / self.scale).exp()
        return torch.where(scores > self.start, beyond, as_high / len(self.scores))

    def quantile(self, p: float) -> float:
        if p >= self.share:
            return self.scores.quantile(1 - p).item()
        return self.start + self.scale * math.log(self.share / p)


def _distances(good: Tensor, new: Tensor) -> Tensor:
    """Logarithms of a and b of new images by densities of the good ones: [N, 2]."""
    return torch.stack([_of_patches(good, new), _of_images(good.flatten(1), new.flatten(1))], 1).clamp(min=1e-12).log()


def _of_images(good: Tensor, new: Tensor) -> Tensor:
    """b: [M, D], [N, D] -> [N]."""
    loc = good.mean(0)
    y, (num, size) = good - loc, good.shape
    _, s, axes = torch.linalg.svd(y / num**0.5, full_matrices=False)
    variance, shrinkage = s.square().sum() / size, ledoit_wolf(y)
    rest = shrinkage * variance + _ROUNDING  # the variance along all other axes
    weights = 1 / ((1 - shrinkage) * s.square() + rest) - 1 / rest
    x = new - loc
    return x.square().sum(1) / rest + (x @ axes.T).square() @ weights


def ledoit_wolf(y: Tensor) -> Tensor:
    """The shrinkage of the covariance of centred examples [M, D] with the least expected squared error, a scalar."""
    num, size = y.shape
    squares = y.square().sum(1)
    spread = (y @ y.T if num < size else y.T @ y).square().sum() / num**2  # tr S^2
    distance = (spread - (squares.mean() ** 2) / size) / size
    error = (squares.square().mean() - spread) / (num * size)
    return torch.minimum(error, distance) / distance.clamp(min=1e-300)


def _of_patches(good: Tensor, new: Tensor) -> Tensor:
    """a: [M, C, H, W], [N, C, H, W] -> [N]."""
    size = min(PATCH, *good.shape[2:])
    of_good, of_new = (x.unfold(2, size, 1).unfold(3, size, 1).movedim(1, -3).flatten(3) for x in (good, new))
    overall = torch.stack([_covariances(of_good[:, i : i + 1]).mean((0, 1)) for i in range(of_good.shape[1])]).mean(0)
    floor = _SHRINKAGE * overall + torch.eye(len(overall)).to(overall) * (_ROUNDING + 1e-4 * overall.diagonal().mean())
    worst = new.new_zeros(len(new))
    for first in range(0, of_good.shape[1], _ROWS):
        last = min(first + _ROWS, of_good.shape[1])
        top, bottom = max(0, first - 1), min(last + 1, of_good.shape[1])
        near = _beside(_covariances(of_good[:, top:bottom]))[first - top : last - top]
        factor = torch.linalg.cholesky((1 - _SHRINKAGE) * near + floor)  # [R, W, d, d]
        y = (of_new[:, first:last] - of_good[:, first:last].mean(0)).permute(1, 2, 3, 0)
        z = torch.linalg.solve_triangular(factor, y, upper=False)
        worst = torch.maximum(worst, z.square().sum(2).amax((0, 1)))
    return worst


def _covariances(patches: Tensor) -> Tensor:
    """Covariance of the patches at each place: [M, R, W, d] -> [R, W, d, d]."""
    y = (patches - patches.mean(0)).permute(1, 2, 3, 0)  # [R, W, d, M]
    return y @ y.transpose(-1, -2) / len(patches)


def _beside(covariances: Tensor) -> Tensor:
    """The mean over each place and those beside it: [R, W, d, d] -> the same."""
    rows, columns, size, _ = covariances.shape
    maps = covariances.reshape(rows, columns, size * size).permute(2, 0, 1)
    return avg_pool2d(maps, 3, 1, 1, count_include_pad=False).permute(1, 2, 0).reshape(covariances.shape)
