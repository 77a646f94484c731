"""Glow: a multi-scale flow of invertible 1x1 convolutions and couplings (Kingma & Dhariwal 2018).

    z = f_n(... f_1(y)),    a step f: actnorm, then y <- W y at every pixel, then a coupling of two halves (table 1)
    y = logit(lambda + (1 - 2 lambda) x) of pixels x in [0, 1]
    log p(x) = log N(z; 0, I) + sum_i log |det df_i|

https://arxiv.org/abs/1807.03039. Each scale turns 2 x 2 blocks of pixels into channels and takes some steps. Then half
of the channels become latents, Gaussian given the other half, which goes on to the next scale.

Density: exact; for 8-bit images a bound, by dequantisation. One pass.
Sampling: exact, one pass of the inverse; mixtures of logistics are inverted by a few steps of Newton's method.
Differs from the paper: pixels go through a logit; scales are bounded; layer normalisation inside the networks;
couplings may use mixtures of logistics, as in Flow++ (Ho et al. 2019, https://arxiv.org/abs/1902.00275);
Adam with a warm-up, clipped gradients and averaged weights. The checkpoint was trained in two runs, the second with a
rate that falls along a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from zoo.config import ImageShape, Size
from zoo.errors import ConfigError
from zoo.flows.couplings import Affine, ConvNet, MixtureOfLogistics, Transform, halves
from zoo.flows.flow import Flow, Levels, Margin, check_scales, dequantizer_of
from zoo.flows.layers import ActNorm, Bijector, Chain, Flatten, InvertibleLinear, Logit, Split, Squeeze


def _step(num_channels: int, hidden: int, transform: Transform) -> Chain:
    coupling = halves(num_channels, partial(_network, hidden), transform)
    return Chain(ActNorm(num_channels), InvertibleLinear(num_channels), coupling)


def _network(hidden: int, num_inputs: int, num_outputs: int) -> ConvNet:
    return ConvNet(num_inputs, hidden, num_outputs)


def _scales(shape: tuple[int, int, int], sizes: Sequence[tuple[int, int]], transform: Transform) -> Chain:
    """A scale and all later ones, each with its number of steps and hidden channels: [B, *shape] -> [B, D]."""
    (num_steps, hidden), *later = sizes
    channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
    steps = [_step(channels, hidden, transform) for _ in range(num_steps)]
    end: Bijector = Flatten((channels, height, width))
    if later:
        gaussian = halves(channels, partial(_network, hidden), Affine())
        end = Split(gaussian, _scales((channels // 2, height, width), later, transform))
    return Chain(Squeeze(), *steps, end)


class Glow(Flow):
    """A flow over images.

    Args:
        event_shape: (C, H, W); H and W are multiples of 2^n for n scales.
        num_steps: Number of steps at each scale, one entry per scale.
        hidden: Number of hidden channels of the couplings at each scale, one entry per scale.
        num_logistics: Number of logistics in the mixtures that the couplings use; None for affine couplings.
        levels: Number of grey levels of a pixel, or None for real numbers.
        logit: lambda of the logit transform, in (0, 1/2); None for data that are not in [0, 1].
        dequantizer: Number of hidden channels of a learned dequantisation; None for uniform noise.
    """

    adaptive = ("decode",)  # mixtures of logistics are inverted by Newton's method

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        num_steps: Sequence[Size] = (8, 6),
        hidden: Sequence[Size] = (64, 96),
        num_logistics: Size | None = None,
        levels: Levels = 256,
        logit: Margin = 1e-6,
        dequantizer: Size | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not num_steps or len(num_steps) != len(hidden):
            raise ConfigError(
                f"hidden: expected as many numbers as num_steps, found {len(hidden)} and {len(num_steps)}"
            )
        check_scales(event_shape, len(num_steps))
        self.event_shape = tuple(event_shape)
        self.latent_shape = (math.prod(event_shape),)
        self.levels = levels
        transform = Affine() if num_logistics is None else MixtureOfLogistics(num_logistics)
        channels, height, width = event_shape
        scales = _scales((channels, height, width), list(zip(num_steps, hidden, strict=True)), transform)
        self.dequantizer = dequantizer_of(event_shape, dequantizer)
        self.bijector = scales if logit is None else Chain(Logit(logit), scales)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
