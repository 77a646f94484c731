"""Energy-based model of points (LeCun et al. 2006; Du & Mordatch 2019, https://arxiv.org/abs/1903.08689).

    p(x) = N(x; 0, s^2 I) exp(-U(x))/Z,    U a multilayer perceptron
    d(-log p(x)) = dU(x) - E_p[dU]         the expectation from chains of Langevin dynamics that persist

Density: unnormalised; in up to two dimensions, log Z is integrated on a grid, up to the error of the grid.
Sampling: a chain from the Gaussian, one gradient of U a step.
Differs from the paper: steps of Langevin dynamics are accepted or rejected, so that they have the model's distribution
whatever their size, and each follows a proposal from the Gaussian, by which chains reach all modes. U is tilted by a
Gaussian in place of bounds on x and on the spectral norms of layers. Adam with a warm-up and a cosine schedule, clipped
gradients, averaged weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from zoo import objectives
from zoo.config import Between, Size
from zoo.density.gaussian import Gaussian
from zoo.energy.potential import Potential
from zoo.energy.tilted import Tilted, TiltedChain
from zoo.samplers.langevin import Langevin


class EBM(Tilted):
    """An energy of points, a Gaussian times a learned factor, trained by contrastive divergence.

    Args:
        event_shape: Shape of one example, [D].
        hidden: Width of the three hidden layers.
        base_scale: s, the standard deviation of the Gaussian; the data have about 1.
        step_size: Standard deviation of the noise of a step of Langevin dynamics.
        cd_steps: Number of steps of the chains between two steps of training.
        num_chains: Number of persistent chains. With 0, chains start from the examples of the batch at every step.
    """

    samplers = (Langevin,)

    lacks_onnx = True  # the solution of a triangular system

    def __init__(
        self,
        event_shape: Sequence[Size] = (2,),
        hidden: Size = 128,
        base_scale: Annotated[float, Between(1e-3, 1e3)] = 2.0,
        step_size: Annotated[float, Between(1e-6, 1e3)] = 0.1,
        cd_steps: Annotated[int, Between(1, 10_000)] = 10,
        num_chains: Annotated[int, Between(0, 100_000)] = 256,
    ) -> None:
        self.objective = objectives.ContrastiveDivergence(cd_steps, num_chains)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.step_size = step_size
        self.reference = Gaussian(event_shape)
        self.reference.scale_tril.mul_(base_scale)
        self.network = Potential(event_shape, hidden, hidden)

    @property
    def sampler(self) -> Langevin:
        return Langevin(steps=500)

    def potential(self, x: Tensor) -> Tensor:
        return self.network(x)

    def chain(self, temperature: float = 1.0) -> TiltedChain:
        return TiltedChain(self, temperature, self.step_size)
