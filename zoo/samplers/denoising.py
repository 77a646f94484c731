"""The base of all samplers of denoisers: a grid of noise levels, and a walk along it in the sampler's steps.

    sigma_i = (sigma_max^(1/rho) + i/(N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i < N;    sigma_N = 0

(Karras et al. 2022, https://arxiv.org/abs/2206.00364, eq. 5.) All samplers work in sigma, whatever schedule a model was
trained with: states are data plus sigma times standard normal noise. States and noise levels are float32.
"""

import math
from abc import abstractmethod
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from zoo.config import Between, Size, bind
from zoo.errors import ConfigError
from zoo.progress import steps
from zoo.random import Source, Streams, randn
from zoo.samplers.base import Sampler

REPEATS = 5
"""Number of times that `fill` takes each step."""

Sigma = Annotated[float, Between(1e-9, 1e9)]


def noise_levels(first: float, last: float, num: int, rho: float) -> list[float]:
    """`num` noise levels from `first` to `last`, in equal steps of sigma^(1/rho)."""
    power = 1 / rho
    return (torch.linspace(first**power, last**power, num, dtype=torch.float64) ** rho).tolist()


class Denoised(NamedTuple):
    """A denoised state, and the noise level at which the model denoised it."""

    value: Tensor  # [B, *event_shape]
    sigma: float


class Walk:
    """The context of a batch on its way along the grid: the guided model, the noise, and the last evaluation.

    Attributes:
        model: The denoiser.
        streams: Noise, one stream per example.
        before: The previous state after denoising; None at the first step and when a step is repeated.
        known: States and a bool mask, both [B, *event_shape]; the walk keeps to these states where the mask is True.
            None if nothing is known.
    """

    def __init__(self, model: Any, streams: Source, guidance: float, given: dict[str, Any]) -> None:
        self.streams = streams
        self.before: Denoised | None = None
        self.known: tuple[Tensor, Tensor] | None = None
        self.model = model
        self._guidance = guidance
        self._given = given

    def denoise(self, y: Tensor, sigma: float) -> Tensor:
        """E[state | y] with guidance w, D(y) + w (D(y | label) - D(y)): [B, *event_shape] -> the same shape."""
        levels = y.new_full((len(y),), sigma)
        if self._guidance == 1 or not self._given:
            return self.model.denoise(y, levels, **self._given)
        free = self.model.denoise(y, levels)
        return free if self._guidance == 0 else free.lerp(self.model.denoise(y, levels, **self._given), self._guidance)

    def noise(self, y: Tensor) -> Tensor:
        """Fresh standard normal noise of the shape of a state."""
        return randn(tuple(y.shape), self.streams, y.device)

    def held(self, y: Tensor, sigma: float) -> Tensor:
        """Replaces known values of a state by the data with noise level sigma: [B, *event_shape] -> the same shape."""
        if self.known is None:
            return y
        state, mask = self.known
        return torch.where(mask, state + sigma * self.noise(y), y)


@dataclass(frozen=True)
class DenoisingSampler(Sampler):
    """Goes from noise to data in `steps` steps; each sampler defines `step`.

    Args:
        steps: Number of steps N.
        sigma_min: Last noise level before 0; the model's by default.
        sigma_max: First noise level; the model's by default.
        rho: Spacing of the noise levels: 1 for equal steps in sigma; larger values take more of the steps at low noise.
        guidance: Strength w of the label for a conditional model: 0 ignores it, 1 gives the model's conditional
            distribution, and larger values exaggerate the label. All values but 0 and 1 cost a second evaluation of the
            network per step.

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
        """Computes the state at noise level `to` from the state at `sigma` and its denoised version.

        Args:
            y: State, [B, *event_shape].
            denoised: walk.denoise(y, sigma), [B, *event_shape].
            sigma, to: Noise levels, to < sigma; `to` is 0 in the last step.
            walk: Context that provides further evaluations, noise, and the previous evaluation.

        Returns:
            The next state, [B, *event_shape].
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
        return [*self.levels(first, last), 0.0]

    def levels(self, first: float, last: float) -> list[float]:
        """The noise level of each step, from `first`: N numbers."""
        return noise_levels(first, last, self.steps, self.rho)

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        z = randn((len(streams), *model.event_shape), streams, model.device)
        return self.from_noise(model, z, streams, **given)

    def from_noise(self, model: Any, z: Tensor, streams: Source = None, **given: Any) -> Tensor:
        """The examples that begin at standard normal noise, both [B, *event_shape]; `streams` gives further noise."""
        return self._along(self.grid(model), z, Walk(model, streams, self.guidance, given))

    def edit(self, model: Any, x: Tensor, strength: float, streams: Streams, **given: Any) -> Tensor:
        """Adds noise to examples and takes the last part of the steps from there.

        SDEdit (Meng et al. 2022, https://arxiv.org/abs/2108.01073, algorithm 1): a rough drawing becomes an example of
        the model that resembles it. The more noise is added, the weaker the resemblance.

        Args:
            model: A denoiser.
            x: Examples, [B, *event_shape].
            strength: Share of the steps to take, from 0 to 1: 0 leaves x as it is, 1 hides it under the most noise.
            streams: Noise, one stream per example.
            given: Conditions of the examples, such as labels.

        Returns:
            [B, *event_shape].
        """
        grid = self.grid(model)[self.steps - round(strength * self.steps) :]
        walk = Walk(model, streams, self.guidance, given)
        y = model.to_state(x)
        return self._along(grid, y / grid[0] + walk.noise(y), walk) if len(grid) > 1 else x

    def fill(self, model: Any, x: Tensor, known: Tensor, streams: Streams, **given: Any) -> Tensor:
        """Draws unknown values: at each noise level, the known values are replaced by the data with that much noise.

        Each step is taken `REPEATS` times, with noise added in between, so that the drawn values come to agree with the
        known ones (RePaint, Lugmayr et al. 2022, https://arxiv.org/abs/2201.09865, algorithm 1). The result
        approximates a draw given the known values.

        Args:
            model: A denoiser.
            x: Examples, [B, *event_shape]; unknown values may be anything.
            known: bool [B, *event_shape], True where a value is known.
            streams: Noise, one stream per example.
            given: Conditions of the examples, such as labels.

        Returns:
            [B, *event_shape].
        """
        grid, walk = self.grid(model), Walk(model, streams, self.guidance, given)
        walk.known = (model.to_state(x), known)
        return torch.where(known, x, self._along(grid, walk.noise(x), walk, REPEATS))

    def _along(self, grid: list[float], y: Tensor, walk: Walk, repeats: int = 1) -> Tensor:
        """Examples at the end of a grid, from states at its beginning, in units of grid[0]: [B, *event_shape]."""
        y = grid[0] * y
        for sigma, to in steps(list(pairwise(grid)), "step"):
            for turn in range(repeats if to else 1):
                if turn:
                    y, walk.before = y + math.sqrt(sigma**2 - to**2) * walk.noise(y), None
                y = walk.held(y, sigma)
                denoised = walk.denoise(y, sigma)
                y = self.step(y, denoised, sigma, to, walk)
                walk.before = Denoised(denoised, sigma)
        return walk.model.from_state(y)
