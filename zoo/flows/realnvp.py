"""RealNVP: affine couplings, in which half of the values scale and shift the other half (Dinh et al. 2017).

    z_1 = x_1,    z_2 = x_2 e^s(x_1) + t(x_1),    ladj = sum s(x_1)                                       (eqs. 4 to 6)
    log p(x) = log N(z; 0, I) + the sum of the ladj of all couplings

https://arxiv.org/abs/1605.08803. Vectors are split into halves, which swap after each coupling. For images, each scale
couples the two colours of a checkerboard of pixels, turns 2 x 2 blocks of pixels into channels, and couples halves of
the channels. Then half of the channels become latents, Gaussian given the other half, which goes on to the next scale.

Density: exact; for 8-bit images a bound, by dequantisation. One pass.
Sampling: exact, one pass of the inverse.
Differs from the paper: actnorm (Kingma & Dhariwal 2018) in place of batch normalisation; networks of one hidden
convolution and layer normalisation in place of residual ones; log-scales are 2 tanh(s/2); for digits, a learned
dequantisation (Flow++, Ho et al. 2019); Adam or Muon with a warm-up and a rate that falls along a cosine; clipped
gradients; averaged weights. The checkpoint of digits was trained in two runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from torch import Tensor

from zoo.config import Size
from zoo.errors import ConfigError
from zoo.flows.couplings import MLP, Affine, CheckerboardCoupling, ConvNet, halves
from zoo.flows.flow import Flow, Levels, Margin, check_scales, dequantizer_of
from zoo.flows.layers import ActNorm, Bijector, Chain, Flatten, Flip, Logit, Split, Squeeze


def _network(hidden: int, num_inputs: int, num_outputs: int) -> MLP:
    return MLP(num_inputs, hidden, num_outputs)


def _convnet(hidden: int, num_inputs: int, num_outputs: int) -> ConvNet:
    return ConvNet(num_inputs, hidden, num_outputs)


def _vector_layers(size: int, num_couplings: int, hidden: int) -> Iterator[Bijector]:
    for _ in range(num_couplings):
        yield ActNorm(size)
        yield halves(size, partial(_network, hidden), Affine())
        yield Flip()


def _scales(shape: tuple[int, int, int], num_scales: int, num_couplings: int, hidden: int) -> Chain:
    """A scale and all later ones, each with twice as many hidden channels as the last: [B, *shape] -> [B, D]."""
    layers: list[Bijector] = []
    channels, height, width = shape
    for number in range(num_couplings):
        network = ConvNet(channels, hidden, 2 * channels)
        layers += [ActNorm(channels), CheckerboardCoupling(shape, number % 2 == 0, network, Affine())]
    layers.append(Squeeze())
    channels, height, width = 4 * channels, height // 2, width // 2
    for _ in range(num_couplings):
        layers += [ActNorm(channels), halves(channels, partial(_convnet, hidden), Affine()), Flip()]
    if num_scales == 1:
        return Chain(*layers, Flatten((channels, height, width)))
    rest = _scales((channels // 2, height, width), num_scales - 1, num_couplings, 2 * hidden)
    return Chain(*layers, Split(halves(channels, partial(_convnet, hidden), Affine()), rest))


class RealNVP(Flow):
    """A flow of affine couplings over vectors or images.

    Args:
        event_shape: (D,) with D > 1, or (C, H, W) with H and W multiples of 2^num_scales.
        num_couplings: Number of couplings; for images, as many by checkerboard and as many by channels at each scale.
        hidden: Width of the networks' hidden layers; for images, the number of channels at the first scale, which
            doubles with each further scale.
        num_scales: Number of scales of an image.
        levels: Number of grey levels of a pixel, or None for real numbers.
        logit: lambda of the logit transform, in (0, 1/2); None for data that are not in [0, 1].
        dequantizer: Number of hidden channels of a learned dequantisation; None for uniform noise.
    """

    def __init__(
        self,
        event_shape: Sequence[Size] = (2,),
        num_couplings: Size = 8,
        hidden: Size = 64,
        num_scales: Size = 2,
        levels: Levels = None,
        logit: Margin = None,
        dequantizer: Size | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.latent_shape = (math.prod(event_shape),)
        self.levels = levels
        self.dequantizer = dequantizer_of(event_shape, dequantizer)
        if len(self.event_shape) == 1 and self.event_shape[0] > 1:
            self.bijector = Chain(*_vector_layers(self.event_shape[0], num_couplings, hidden))
        elif len(self.event_shape) == 3:
            check_scales(event_shape, num_scales)
            channels, height, width = event_shape
            self.bijector = _scales((channels, height, width), num_scales, num_couplings, hidden)
        else:
            raise ConfigError(f"event_shape: expected [D] with D > 1, or [C, H, W], found {list(event_shape)}")
        if logit is not None:
            self.bijector = Chain(Logit(logit), self.bijector)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
