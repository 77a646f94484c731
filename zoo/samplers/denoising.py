"""What the samplers of denoisers share: a grid of noise levels, and a walk along it that takes a sampler's steps.

    sigma_i = (sigma_max^(1/rho) + i/(N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i < N;    sigma_N = 0

(Karras et al. 2022, https://arxiv.org/abs/2206.00364, eq. 5.) All samplers work in sigma, whatever schedule a model
learned with: states are data plus sigma times standard normal noise. States and noise levels are float32.
"""

from abc import abstractmethod
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from zoo.config import Between, Size, bind
from zoo.errors import ConfigError
from zoo.progress import steps
from zoo.random import Streams, randn
from zoo.samplers.base import Sampler

Sigma = Annotated[float, Between(1e-9, 1e9)]


def noise_levels(first: float, last: float, num: int, rho: float) -> list[float]:
    """`num` noise levels from `first` to `last`, in equal steps of sigma^(1/rho)."""
    power = 1 / rho
    return (torch.linspace(first**power, last**power, num, dtype=torch.float64) ** rho).tolist()


class Denoised(NamedTuple):
    """What the model made of a state at a noise level."""

    value: Tensor  # [B, *event_shape]
    sigma: float


class Walk:
    """A batch on its way along the grid: the model under guidance, the noise, and the last evaluation.

    Attributes:
        streams: Noise, one stream per example.
        before: What the model made of the state before this one; None at the first.
    """

    def __init__(self, model: Any, streams: Streams, guidance: float, given: dict[str, Any]) -> None:
        self.streams = streams
        self.before: Denoised | None = None
        self._model = model
        self._guidance = guidance
        self._given = given

    def denoise(self, y: Tensor, sigma: float) -> Tensor:
        """E[state | y], guided by the label w times: D(y) + w (D(y | label) - D(y)): [B, *event_shape] -> the same."""
        levels = y.new_full((len(y),), sigma)
        if self._guidance == 1 or not self._given:
            return self._model.denoise(y, levels, **self._given)
        free = self._model.denoise(y, levels)
        return free if self._guidance == 0 else free.lerp(self._model.denoise(y, levels, **self._given), self._guidance)

    def noise(self, y: Tensor) -> Tensor:
        """Fresh standard normal noise of the shape of a state."""
        return randn(tuple(y.shape), self.streams, y.device)


@dataclass(frozen=True)
class DenoisingSampler(Sampler):
    """Goes from noise to data in `steps` steps; a sampler says what one step is.

    Args:
        steps: Number of steps N.
        sigma_min: Last noise level before 0; the model's by default.
        sigma_max: First noise level; the model's by default.
        rho: 1 for equal steps in sigma; the larger, the more steps at low noise.
        guidance: Strength w of the label for a conditional model: 0 ignores it, 1 is the model's conditional
            distribution, more exaggerates the label and costs a second evaluation of the network.

    Raises:
        ConfigError: An argument is out of its range.
    """

    steps: Size = 20
    sigma_min: Sigma | None = None
    sigma_max: Sigma | None = None
    rho: Annotated[float, Between(1, 100)] = 7.0
    guidance: Annotated[float, Between(0, 100)] = 1.0

    def __post_init__(self) -> None:
        bind(type(self), asdict(self), type(self).__name__)

    @abstractmethod
    def step(self, y: Tensor, denoised: Tensor, sigma: float, to: float, walk: Walk) -> Tensor:
        """The state at noise level `to`, given the one at `sigma` and what the model makes of it.

        Args:
            y: State, [B, *event_shape].
            denoised: walk.denoise(y, sigma), [B, *event_shape].
            sigma, to: Noise levels, to < sigma; `to` is 0 in the last step.
            walk: More evaluations, noise, and the evaluation before.
        """

    @property
    def evaluations(self) -> int:
        """Number of network evaluations for each example of a conditional model."""
        return self.steps * (1 if self.guidance in (0, 1) else 2)

    def grid(self, model: Any) -> list[float]:
        """The noise levels, falling from sigma_max to 0: N + 1 numbers."""
        last, first = self.sigma_min or model.sigma_min, self.sigma_max or model.sigma_max
        if last > first:
            raise ConfigError(f"{type(self).__name__}: expected sigma_min below sigma_max, found {last} and {first}")
        return [*noise_levels(first, last, self.steps, self.rho), 0.0]

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        grid, walk = self.grid(model), Walk(model, streams, self.guidance, given)
        y = grid[0] * randn((len(streams), *model.event_shape), streams, model.device)
        for sigma, to in steps(list(pairwise(grid)), "step"):
            denoised = walk.denoise(y, sigma)
            y = self.step(y, denoised, sigma, to, walk)
            walk.before = Denoised(denoised, sigma)
        return model.from_state(y)
