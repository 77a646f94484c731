"""A denoiser made of a network and the choices around it: the base of all diffusion models of the zoo."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from zoo.capabilities import Completable, Decoder, Denoiser, Encoder, EvidenceLowerBound
from zoo.diffusion.likelihood import noise_of, variational_bound
from zoo.diffusion.networks import network
from zoo.diffusion.preconditioning import Preconditioning
from zoo.diffusion.schedules import NoiseDistribution
from zoo.module import ZooModule
from zoo.nn.point import Point
from zoo.nn.precision import at_least_single
from zoo.random import Source, Streams, rand
from zoo.samplers.ancestral import Ancestral
from zoo.samplers.base import Sampler
from zoo.samplers.dpm import DPMSolver
from zoo.samplers.heun import Heun


class NetworkDenoiser(Denoiser):
    """D(y; sigma) = c_skip y + c_out F(c_in y; c_noise); a model chooses these functions and the noise levels sigma.

    States of images are 2 x - 1, in [-1, 1]; those of points are the points.

    Args:
        preconditioning: The four functions and the weight of the loss.
        noise: The distribution of sigma in training.
        event_shape: (C, H, W) for images in [0, 1], (D,) for points.
        channels: Widths of the levels of a U-Net for images, or of the layers of an MLP for points.
    """

    @abstractmethod  # the constructors of models take plain arguments
    def __init__(
        self,
        preconditioning: Preconditioning,
        noise: NoiseDistribution,
        event_shape: Sequence[int],
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.preconditioning = preconditioning
        self.noise = noise
        self.event_shape = tuple(event_shape)
        self.latent_shape: tuple[int, ...] = (math.prod(event_shape),)  # of the noise at the beginning
        self.levels = 256 if self.is_image else None
        self.network = network(event_shape, channels, max(channels))

    def denoise(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        c = self.preconditioning(sigma)
        skip, out, scale = (value.view(-1, *[1] * (y.ndim - 1)) for value in (c.skip, c.out, c.input))
        cleaned = self.network((scale * y).to(self.dtype), c.noise.to(self.dtype), labels)
        return skip * y + out * cleaned.to(y.dtype)  # only the network is rounded

    def training_sigma(self, streams: Streams) -> Tensor:
        u = rand((len(streams), 1), streams, self.device)[:, 0]
        return self.noise(u.clamp(min=2.0**-25))  # u may be 0, but never 1

    def weight(self, sigma: Tensor) -> Tensor:
        return self.preconditioning.weight(sigma)

    def to_state(self, x: Tensor) -> Tensor:
        return 2 * x - 1 if self.is_image else x

    def from_state(self, y: Tensor) -> Tensor:
        return ((y + 1) / 2).clamp(0, 1) if self.is_image else y

    @property
    def is_image(self) -> bool:
        """Whether examples are images in [0, 1], not points."""
        return len(self.event_shape) == 3


class DiffusionModel(NetworkDenoiser, EvidenceLowerBound, Encoder, Decoder, Completable):
    """A network that learns E[state | noisy state], and so has a density and, by the probability-flow ODE, codes.

    The code of an example is the noise, flat, from which the ODE leads to it; Heun's method solves it in `code_steps`
    steps. `complete` draws from an approximation of the model's conditional distribution, in 50 steps of `Ancestral`
    with repeats; see `DenoisingSampler.fill`.

    Attributes:
        sigma_bound: The lowest noise level of the variational bound.
        code_steps: Number of steps of `encode` and `decode`.
    """

    facts: ClassVar = {"completes": "approximately", "latents": "high-dimensional"}
    sigma_bound: float
    code_steps = 25

    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes a trained denoiser. A network without labels takes what another one computes without a label."""
        unused = super().take_weights(start)
        if self.network.condition.classes is None and isinstance(start, NetworkDenoiser):
            classes = start.network.condition.classes
            if classes is not None:
                with torch.no_grad():
                    self.network.condition.second.bias.add_(classes.weight[-1])
                unused.remove("network.condition.classes.weight")
        return unused

    def elbo(self, x: Tensor, *, generator: Source = None, **given: Tensor) -> Tensor:
        x = x.to(torch.promote_types(at_least_single(x).dtype, self.dtype))
        if x.shape[0] == 0:
            return x.new_zeros(0)
        return variational_bound(self, x, self.sigma_bound, generator=generator, **given)

    def prior(self) -> Distribution:
        """N(0, I)."""
        loc = torch.zeros(self.latent_shape, device=self.device, dtype=torch.promote_types(self.dtype, torch.float32))
        return Independent(Normal(loc, torch.ones_like(loc), validate_args=False), 1)

    def encode(self, x: Tensor, **given: Tensor) -> Distribution:
        """The code of x, as a distribution with all its mass at one point."""
        return Point(noise_of(self, at_least_single(x), self.code_steps, **given).flatten(1))

    def decode(self, z: Tensor, **given: Tensor) -> Tensor:
        noise = at_least_single(z).view(-1, *self.event_shape)
        return Heun(self.code_steps).from_noise(self, noise, None, **given)

    def fill(self, x: Tensor, known: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        return Ancestral(steps=50).fill(self, x, known, streams, **given)

    @property
    def sampler(self) -> Sampler:
        return DPMSolver(steps=10 if self.is_image else 20)


def some_hidden(labels: Tensor, share: float, num_classes: int, streams: Streams) -> Tensor:
    """Replaces a random share of labels, [B], by `num_classes`, which stands for no label."""
    is_hidden = rand((len(labels), 1), streams, labels.device)[:, 0] < share
    return labels.where(~is_hidden, num_classes)
