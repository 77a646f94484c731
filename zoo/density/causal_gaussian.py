"""Multivariate Gaussian with a sparse precision: each pixel is regressed on those near it and before it (Jain 1981,
Advances in mathematical models for image processing, section III: the nonsymmetric half-plane autoregression).

    y_d = mu_d + sum_{e in W(d)} a_de (y_e - mu_e) + sigma_d z_d,    z_d standard normal
    a_d = Sigma_WW^-1 Sigma_Wd,    sigma_d^2 = Sigma_dd - a_d Sigma_Wd,    Sigma the covariance of the data

W(d) holds all channels of the pixels up to `window` rows above d and up to `window` columns to either side, and of the
pixels up to `window` columns to the left in its own row, as well as the earlier channels of the pixel itself. Of all
Gaussians whose precision has a Cholesky factor with this pattern, this one has the largest likelihood.
https://doi.org/10.1109/PROC.1981.12021

Density: exact, O(D^2) per example, by one matrix product.
Sampling: exact, O(D^2) per example.
Completion: from any mask; see `zoo.density.gaussian`.
Differs from the paper: every pixel has its own coefficients, because images are not stationary.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from zoo.config import Between, ImageShape
from zoo.density.gaussian import GaussianDensity, Jitter
from zoo.flows.flow import Levels, Margin


class CausalGaussian(GaussianDensity):
    """A Gaussian of images in which each pixel depends directly on nearby pixels, and through them on all others.

    Args:
        event_shape: (C, H, W).
        window: Number of rows above, and of columns to either side, that a pixel depends on directly.
        levels, logit, jitter: As in `zoo.density.gaussian.Gaussian`.
    """

    coefficients: Tensor
    log_scales: Tensor
    support: Tensor

    lacks_onnx = True  # the solution of a triangular system

    def __init__(
        self,
        event_shape: ImageShape = (3, 32, 32),
        window: Annotated[int, Between(1, 1000)] = 6,
        levels: Levels = None,
        logit: Margin = None,
        jitter: Jitter = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.window = window
        self.levels = levels
        self.logit = logit
        self.jitter = jitter
        self.size = math.prod(event_shape)
        self.latent_shape = (self.size,)
        channels, height, width = event_shape
        above, left = _within(height, window), _within(width, window)
        pairs = above * (width + 2 * left) + height * left  # of pixels, with the second in the window of the first
        num = channels**2 * pairs + height * width * channels * (channels - 1) // 2
        self.register_buffer("loc", torch.zeros(self.size))
        self.register_buffer("coefficients", torch.zeros(num))  # a, row by row
        self.register_buffer("log_scales", torch.zeros(self.size))  # log sigma
        self.register_buffer("support", torch.empty(2, 0, dtype=torch.int64), persistent=False)

    def _support(self) -> Tensor:
        """Rows and columns of the coefficients in the matrix of all pixels by all pixels: [2, num], row by row."""
        if not self.support.shape[1]:
            _, _height, width = self.event_shape
            c, i, j = torch.cartesian_prod(*map(torch.arange, self.event_shape)).to(self.loc.device).T
            place = i * width + j
            rows = []
            for d in range(self.size):
                near = (i >= i[d] - self.window) & (i <= i[d]) & ((j - j[d]).abs() <= self.window)
                is_before = (place < place[d]) | ((place == place[d]) & (c < c[d]))
                (e,) = (near & is_before).nonzero(as_tuple=True)
                rows.append(torch.stack([torch.full_like(e, d), e]))
            self.support = torch.cat(rows, 1)
        return self.support

    def _regressions(self) -> Tensor:
        matrix = self.coefficients.new_zeros(self.size, self.size)
        matrix[tuple(self._support())] = self.coefficients
        return matrix

    def whiten(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return (y - y @ self._regressions().T) * (-self.log_scales).exp(), -self.log_scales.sum()

    def colour(self, z: Tensor) -> Tensor:
        channels = self.event_shape[0]  # the matrix is triangular in the order of pixels, then of channels
        order = torch.arange(self.size, device=z.device).view(channels, -1).T.flatten()
        factor = torch.eye(self.size).to(self.coefficients) - self._regressions()[order][:, order]
        noise = (z * self.log_scales.exp())[:, order]
        y = torch.linalg.solve_triangular(factor, noise.T, upper=False, unitriangular=True).T
        return torch.empty_like(y).index_copy_(1, order, y)

    def fit_covariance(self, covariance: Tensor) -> bool:
        variances = covariance.diagonal().clone()
        row, column = self._support()
        coefficients = []
        for d, e in enumerate(column.split(row.bincount(minlength=self.size).tolist())):
            factor, failed = torch.linalg.cholesky_ex(covariance[e[:, None], e])
            if failed:
                return False
            a = torch.cholesky_solve(covariance[e, d, None], factor)[:, 0]
            coefficients.append(a)
            variances[d] -= a @ covariance[e, d]
        self.coefficients.copy_(torch.cat(coefficients))
        self.log_scales.copy_(variances.log() / 2)
        return bool((variances > 0).all())


def _within(size: int, window: int) -> int:
    """sum_{i < size} min(i, window): number of pairs of places on a line, one at most `window` before the other."""
    short = min(size, window + 1)
    return short * (short - 1) // 2 + (size - short) * window
