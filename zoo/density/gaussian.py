"""Multivariate Gaussian, fitted in closed form by maximum likelihood (Bishop 2006, Pattern Recognition, section 2.3.4).

    log p(y) = -1/2 |L^-1 (y - mu)|^2 - log det L - D/2 log 2 pi,    L L^T = Sigma
    mu = E[y],    Sigma = E[(y - mu)(y - mu)^T]
    y = x,    or    y = logit(lambda + (1 - 2 lambda) x) for images in [0, 1]    (Papamakarios et al. 2017, appendix D)

Density: exact, O(D^2) a point.
Sampling: exact, O(D^2).
Completion: from any mask, O(D^3) for each, once for all images that have the same: y_U minimises |z(y) - e|^2, with
standard normal noise e, which gives it the mean and covariance of y_U given y_K. Exact for continuous data. Known grey
levels are dequantised as in training, uniformly within each, where the density would weigh the places in it; what
follows is exact, given the y_K so drawn.
Differs from the paper: nothing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.capabilities import ClosedForm, Completable, Dequantized
from zoo.config import Between, Size
from zoo.errors import ZooError
from zoo.random import Source, Streams, randn

Levels = Annotated[int, Between(2, 2**16)] | None
Logit = Annotated[float, Between(1e-12, 0.499)] | None
Jitter = Annotated[float, Between(0, 1e6)]


class GaussianDensity(ClosedForm, Dequantized, Completable):
    """A Gaussian on the data or on their logits, whatever the form of its covariance.

    Attributes:
        size: D.
        logit, jitter: as in `Gaussian`.
    """

    loc: Tensor
    size: int
    logit: float | None
    jitter: float
    _kept: tuple[Any, Any] = (None, None)

    @abstractmethod
    def whiten(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Standard normal z of y - mu, both [B, D], and log |det dz/dy|, a scalar."""

    @abstractmethod
    def colour(self, z: Tensor) -> Tensor:
        """The y - mu of z, both [B, D]."""

    @abstractmethod
    def fit_covariance(self, covariance: Tensor) -> bool:
        """Sets the parameters from the covariance of the data [D, D], float64; whether that can be done."""

    def _transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y [B, D] and log |det dy/dx| [B]."""
        x = x.flatten(1)
        if self.logit is None:
            return x, x.new_zeros(len(x))
        # a and 1 - a, each by itself: a difference from 1 would keep few digits near white
        log_a, log_b = ((self.logit + (1 - 2 * self.logit) * part).log() for part in (x, 1 - x))
        return log_a - log_b, (math.log(1 - 2 * self.logit) - log_a - log_b).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        y, ladj = self._transform(x)
        z, log_det = self.whiten(y - self.loc)
        return -0.5 * z.square().sum(1) + log_det - 0.5 * self.size * math.log(2 * math.pi) + ladj

    def draw(self, streams: Streams) -> Tensor:
        z = randn((len(streams), self.size), streams, self.device).to(self.loc)
        return self._examples(self.loc + self.colour(z))

    def _examples(self, y: Tensor) -> Tensor:
        """What y [B, D] stands for: [B, *event_shape]."""
        x = y
        if self.logit is not None:
            x = (x.sigmoid() - self.logit) / (1 - 2 * self.logit)
        return self.quantize(x).view(-1, *self.event_shape)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        y = self._transform(self.dequantize(x.to(self.loc), generator=streams))[0] - self.loc
        noise = randn((len(x), self.size), streams, self.device).double()
        masks, group = known.flatten(1).unique(dim=0, return_inverse=True)
        for number, mask in enumerate(masks):
            some = group == number
            part = y[some] * mask
            rest = noise[some] - self.whiten(part)[0]
            unknown, factor = self._conditional(mask)
            part[:, ~mask] = torch.cholesky_solve(unknown @ rest.T, factor).T.to(y)
            y[some] = part
        return self._examples(self.loc + y)

    def _conditional(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What y_U adds to z, a row each, and the Cholesky factor of the precision of y_U given y_K: both float64.

        The last result is kept, since most calls ask for one mask again and again.
        """
        key = mask.cpu().numpy().tobytes(), tuple(buffer._version for buffer in self.buffers()), self.device
        if self._kept[0] != key:
            unknown = self.whiten(torch.eye(self.size).to(self.loc)[~mask])[0].double()
            self._kept = key, (unknown, torch.linalg.cholesky(unknown @ unknown.T))
        return self._kept[1]

    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        y = self._transform(self.dequantize(x, generator=generator))[0].double()
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


class Gaussian(GaussianDensity):
    """A Gaussian with full covariance, on the data or on their logits.

    Args:
        event_shape: shape of one example.
        levels: grey levels of images to dequantise, or None where the data are continuous.
        logit: lambda of the logit transform of images, in (0, 1/2), or None for a Gaussian on the data themselves.
        jitter: added to the variances in the fit, in squared units of y.
    """

    scale_tril: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        levels: Levels = None,
        logit: Logit = None,
        jitter: Jitter = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.levels = levels
        self.logit = logit
        self.jitter = jitter
        size = math.prod(event_shape)
        self.size = size
        row, column = torch.tril_indices(size, size)
        self.register_buffer("loc", torch.zeros(size))
        self.register_buffer("scale_tril", (row == column).float())  # L by rows, without its upper half of zeros

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
