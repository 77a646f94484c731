"""Multivariate Gaussian, fitted in closed form by maximum likelihood (Bishop 2006, Pattern Recognition, section 2.3.4).

    log p(y) = log N(z; 0, I) - log det L,    z = L^-1 (y - mu),    L L^T = Sigma
    mu = E[y],    Sigma = E[(y - mu)(y - mu)^T]
    y = x,    or    y = logit(lambda + (1 - 2 lambda) x) for images in [0, 1]    (Papamakarios et al. 2017, appendix D)

It is the simplest normalising flow: its map from data to latents is affine, and its best parameters have a formula.

Density: exact, O(D^2) per example.
Sampling: exact, O(D^2) per example.
Completion: from any mask, after O(D^3) operations for each new mask. The unknown y_U is chosen to minimise |z(y) - e|^2
with standard normal noise e, which gives it the mean and the covariance of y_U given the known y_K. This is exact for
continuous data. Known grey levels are dequantised as in training, uniformly within their cells, although the density
is not uniform there; given these y_K, the rest is exact.
Differs from the paper: nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.capabilities import ClosedForm, Completable
from zoo.config import Between, Size
from zoo.errors import ConfigError, ZooError
from zoo.flows.flow import Flow, Levels, Margin
from zoo.flows.layers import Logit
from zoo.nn.precision import widest
from zoo.random import Source, Streams, randn

MOST_VALUES = 8192
"""Largest number of values of which a full covariance is fitted: 3 GiB of memory, and an hour of one CPU core."""

Jitter = Annotated[float, Between(0, 1e6)]


class GaussianDensity(ClosedForm, Flow, Completable):
    """Base of Gaussians on the data or on their logits, with any form of covariance.

    Attributes:
        size: Dimension D of the data.
        logit: lambda of the logit transform, or None; see `Gaussian`.
        jitter: Number added to the variances in the fit; see `Gaussian`.
    """

    regularizer = "jitter"
    loc: Tensor
    size: int
    logit: float | None
    jitter: float
    _kept: tuple[Any, Any] = (None, None)

    @abstractmethod
    def whiten(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Maps y - mu to standard normal z, both [B, D]; also returns log |det dz/dy|, a scalar."""

    @abstractmethod
    def colour(self, z: Tensor) -> Tensor:
        """The inverse of `whiten`: maps z to y - mu, both [B, D]."""

    @abstractmethod
    def fit_covariance(self, covariance: Tensor) -> bool:
        """Fits the parameters to the covariance of the data, [D, D], float64; returns False if it has no inverse."""

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = self._transform(x)
        z, log_det = self.whiten(y - self.loc)
        return z, log_det + ladj

    def from_latent(self, z: Tensor) -> Tensor:
        return self._inverse(self.loc + self.colour(z))

    def _transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y [B, D] and log |det dy/dx| [B]."""
        x = x.flatten(1)
        return (x, x.new_zeros(x.shape[0])) if self.logit is None else Logit(self.logit)(x)

    def _inverse(self, y: Tensor) -> Tensor:
        """The inverse of `_transform`: y, [B, D] -> x, [B, *event_shape]."""
        x = y if self.logit is None else Logit(self.logit).inverse(y)
        return x.view(-1, *self.event_shape)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        y = self._transform(self.dequantize(x.to(self.loc), generator=streams))[0] - self.loc
        noise = widest(randn((len(x), self.size), streams, self.device))
        masks, group = known.flatten(1).unique(dim=0, return_inverse=True)
        for number, mask in enumerate(masks):
            some = group == number
            part = y[some] * mask
            rest = noise[some] - self.whiten(part)[0]
            unknown, factor = self._conditional(mask)
            part[:, ~mask] = torch.cholesky_solve(unknown @ rest.T, factor).T.to(y)
            y[some] = part
        return self.quantize(self._inverse(self.loc + y))

    def _conditional(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The effect of y_U on z, [U, D], and the Cholesky factor of the precision of y_U given y_K, [U, U]; float64.

        The last result is kept, because most calls ask for the same mask again and again.
        """
        key = mask.cpu().numpy().tobytes(), tuple(buffer._version for buffer in self.buffers()), self.device
        if self._kept[0] != key:
            unknown = widest(self.whiten(torch.eye(self.size).to(self.loc)[~mask])[0])
            self._kept = key, (unknown, torch.linalg.cholesky(unknown @ unknown.T))
        return self._kept[1]

    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        y = widest(self._transform(self.dequantize(x, generator=generator))[0])
        return {"count": y.new_tensor(len(y)), "sum": y.sum(0), "outer": y.T @ y}

    def finish(self, statistics: dict[str, Tensor]) -> None:
        mean = statistics["sum"] / statistics["count"]
        covariance = statistics["outer"] / statistics["count"] - mean.outer(mean)
        covariance.diagonal().add_(self.jitter)
        if not self.fit_covariance(covariance):
            name, count = type(self).__name__, int(statistics["count"])
            raise ZooError(
                f"{name}: expected examples that vary in all {self.size} dimensions, found {count} with a covariance "
                f"that has no inverse; fit it to more examples, or to a model with jitter (now {self.jitter})"
            )
        self.loc.copy_(mean)


def check_covariance(event_shape: Sequence[int]) -> None:
    """Raises ConfigError if a full covariance of examples of this shape is too large."""
    if (size := math.prod(event_shape)) > MOST_VALUES:
        channels = event_shape[0] if len(event_shape) == 3 else 1
        side = math.isqrt(MOST_VALUES // channels)
        raise ConfigError(
            f"event_shape: expected at most {MOST_VALUES} values for a full covariance, found {size}; the largest "
            f"square images have {side}x{side} pixels, and CausalGaussian takes larger ones"
        )


class Gaussian(GaussianDensity):
    """A Gaussian with full covariance, on the data or on their logits.

    Args:
        event_shape: Shape of one example.
        levels: Number of grey levels of a pixel, or None for real numbers.
        logit: lambda of the logit transform, in (0, 1/2); None for a Gaussian on the data themselves.
        jitter: Number added to the variances in the fit, in squared units of y.
    """

    scale_tril: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        levels: Levels = None,
        logit: Margin = None,
        jitter: Jitter = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.levels = levels
        self.logit = logit
        self.jitter = jitter
        size = math.prod(event_shape)
        check_covariance(event_shape)
        self.size = size
        self.latent_shape = (size,)
        row, column = torch.tril_indices(size, size)
        self.register_buffer("loc", torch.zeros(size))
        self.register_buffer("scale_tril", (row == column).to(self.loc))  # the rows of L up to the diagonal

    def _cholesky(self) -> Tensor:
        factor = self.scale_tril.new_zeros(self.size, self.size)
        row, column = torch.tril_indices(self.size, self.size, device=factor.device)
        factor[row, column] = self.scale_tril
        return factor

    def whiten(self, y: Tensor) -> tuple[Tensor, Tensor]:
        factor = self._cholesky()
        return torch.linalg.solve_triangular(factor, y.T, upper=False).T, -factor.diagonal().log().sum()

    def colour(self, z: Tensor) -> Tensor:
        return z @ self._cholesky().T

    def fit_covariance(self, covariance: Tensor) -> bool:
        factor, failed = torch.linalg.cholesky_ex(covariance)
        row, column = torch.tril_indices(self.size, self.size, device=factor.device)
        self.scale_tril.copy_(factor[row, column])
        return not failed
