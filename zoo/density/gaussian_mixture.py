"""Mixture of Gaussians, fitted by expectation maximisation (Bishop 2006, Pattern Recognition, section 9.2.2).

    p(x) = sum_k pi_k N(x; mu_k, Sigma_k)                                                                 (eq. 9.7)
    E step: r_nk = p(k | x_n)                                                                            (eq. 9.23)
    M step: mu_k = sum_n r_nk x_n / N_k,  Sigma_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)^T / N_k,  pi_k = N_k/N,
            N_k = sum_n r_nk                                                                    (eqs. 9.24 to 9.27)

Density: exact, O(K D^2) per example.
Sampling: exact; draws a component, then a point from it.
Differs from the paper: a small number is added to the variances, so that no component shrinks to a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from zoo.capabilities import ClosedForm, TractableDensity
from zoo.config import Between, Size
from zoo.errors import ZooError
from zoo.nn.precision import widest
from zoo.random import Source, Streams, rand, randn


class GaussianMixture(ClosedForm, TractableDensity):
    """A mixture of Gaussians with full covariances. The first epoch initialises it; later epochs are steps of EM.

    The components start near randomly drawn examples, with the covariance of all data.

    Args:
        event_shape: Shape of one example, of real numbers.
        num_components: Number of components K.
        jitter: Number added to the variances in each M step, in squared units of x.
    """

    iterative = True
    regularizer = "jitter"
    log_weights: Tensor
    loc: Tensor
    scale_tril: Tensor
    fitted: Tensor

    lacks_onnx = True  # the solution of a triangular system

    def __init__(
        self,
        event_shape: Sequence[Size] = (2,),
        num_components: Size = 8,
        jitter: Annotated[float, Between(0, 1e6)] = 1e-6,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.num_components = num_components
        self.jitter = jitter
        size = math.prod(event_shape)
        self.register_buffer("log_weights", torch.full((num_components,), -math.log(num_components)))
        self.register_buffer("loc", torch.zeros(num_components, size))
        self.register_buffer("scale_tril", torch.eye(size).repeat(num_components, 1, 1))  # L_k L_k^T = Sigma_k
        self.register_buffer("fitted", torch.tensor(False))

    def _log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k): [B, D] -> [B, K]."""
        centred = (x[:, None] - self.loc).permute(1, 2, 0)  # [K, D, B]
        z = torch.linalg.solve_triangular(self.scale_tril, centred, upper=False)
        log_det = self.scale_tril.diagonal(dim1=1, dim2=2).log().sum(1)
        log_norm = log_det + 0.5 * x.shape[1] * math.log(2 * math.pi)
        return self.log_weights.log_softmax(0) - 0.5 * z.square().sum(1).T - log_norm

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_joint(x.flatten(1)).logsumexp(1)

    def draw(self, streams: Streams) -> Tensor:
        cumulative = self.log_weights.softmax(0).cumsum(0)
        component = (rand((len(streams), 1), streams, self.device) >= cumulative).sum(1)
        component = component.clamp(max=self.num_components - 1)
        epsilon = randn((len(streams), self.loc.shape[1]), streams, self.device).to(self.loc)
        x = self.loc[component] + (self.scale_tril[component] @ epsilon[:, :, None])[:, :, 0]
        return x.view(-1, *self.event_shape)

    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        y = widest(x.flatten(1))
        if self.fitted:
            responsibility = widest(self._log_joint(x.flatten(1)).softmax(1))
            outer = torch.einsum("nk,ni,nj->kij", responsibility, y, y)
            return {"counts": responsibility.sum(0), "sums": responsibility.T @ y, "outers": outer}
        # weights so unequal that few examples, or one, dominate each component
        weights = (1 - widest(rand((len(y), self.num_components), generator, x.device))) ** -8
        moments = {"count": y.new_tensor(len(y)), "sum": y.sum(0), "outer": y.T @ y}
        return {"weights": weights.sum(0), "weighted": weights.T @ y, **moments}

    def finish(self, statistics: dict[str, Tensor]) -> None:
        if "weights" in statistics:
            loc = statistics["weighted"] / statistics["weights"][:, None]
            mean = statistics["sum"] / statistics["count"]
            covariance = (statistics["outer"] / statistics["count"] - mean.outer(mean)).expand(len(loc), -1, -1)
        else:
            counts = statistics["counts"] + 1e-10  # not zero for a component that no example belongs to
            loc = statistics["sums"] / counts[:, None]
            covariance = statistics["outers"] / counts[:, None, None] - loc[:, :, None] * loc[:, None]
            self.log_weights.copy_((counts / counts.sum()).log())
        eye = torch.eye(loc.shape[1], dtype=loc.dtype, device=loc.device)
        factor, failed = torch.linalg.cholesky_ex(covariance + self.jitter * eye)
        if failed.any():
            raise ZooError(
                f"GaussianMixture: expected components with covariances that have inverses, found {int(failed.sum())} "
                f"without; take fewer components than {self.num_components} or a larger jitter than {self.jitter}"
            )
        self.loc.copy_(loc)
        self.scale_tril.copy_(factor)
        self.fitted.fill_(True)
