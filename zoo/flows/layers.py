"""The invertible layers of flows, with the logarithms of their Jacobian determinants.

    z = f(x),    ladj = log |det dz/dx|

A layer is a module: calling it maps data towards latents; `inverse` maps back. A flow is a `Chain` of layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.distributed import gather, size
from zoo.flows.roots import invert
from zoo.nn.precision import widest


class Bijector(nn.Module, ABC):
    """An invertible map whose Jacobian determinant is known."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x to z; also returns ladj: [B, ...] -> ([B, ...], [B])."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Maps z back to x, such that `forward(x)[0]` is z: [B, ...] -> [B, ...]."""


class Chain(Bijector):
    """Layers one after the other; the first one sees the data.

    Args:
        layers: Layers; a Chain among them counts as one.
    """

    def __init__(self, *layers: Bijector) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, ladj = layer(x)
            total = total + ladj
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            z = cast(Bijector, layer).inverse(z)
        return z


def stages(bijector: Bijector, z: Tensor) -> Iterator[tuple[Bijector | None, Tensor]]:
    """Yields (None, z), then each layer with what its inverse makes of z; the last z is in the space of the data.

    A layer that only reverses the order of values is no stage: all stages have the order of the data. They are vectors,
    [B, D].
    """
    layers = list(_layers(bijector))
    num_flips = sum(isinstance(layer, Flip) for layer in layers)
    yield None, z.flip(1) if num_flips % 2 else z
    for layer in reversed(layers):
        z = layer.inverse(z)
        if isinstance(layer, Flip):
            num_flips -= 1
        else:
            yield layer, z.flip(1) if num_flips % 2 else z


def _layers(bijector: Bijector) -> Iterator[Bijector]:
    """The layers of a chain, and of the chains in it."""
    if not isinstance(bijector, Chain):
        yield bijector
        return
    for layer in bijector.layers:
        yield from _layers(cast(Bijector, layer))


# -------------------------------------------------------------------------------------------------- shapes and ranges


class Flatten(Bijector):
    """Flattens examples to vectors: [B, *shape] -> [B, D].

    Args:
        shape: Shape of one example.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor) -> Tensor:
        return z.view(-1, *self.shape)


class Squeeze(Bijector):
    """Turns 2 x 2 blocks of pixels into channels: [B, C, H, W] -> [B, 4 C, H/2, W/2] (Dinh et al. 2017, figure 3)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        num, channels, height, width = x.shape
        blocks = x.reshape(num, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return blocks.reshape(num, 4 * channels, height // 2, width // 2), x.new_zeros(num)

    def inverse(self, z: Tensor) -> Tensor:
        num, channels, height, width = z.shape
        blocks = z.reshape(num, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(num, channels // 4, 2 * height, 2 * width)


class Flip(Bijector):
    """Reverses the order of dimension 1."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor) -> Tensor:
        return z.flip(1)


class EvenFirst(Bijector):
    """Moves the entries of even index before those of odd index: [B, D] -> [B, D]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([x[:, ::2], x[:, 1::2]], 1), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor) -> Tensor:
        x = torch.empty_like(z)
        num = (z.shape[1] + 1) // 2
        x[:, ::2], x[:, 1::2] = z[:, :num], z[:, num:]
        return x


class Logit(Bijector):
    """logit(lambda + (1 - 2 lambda) x) of pixels in [0, 1] (Papamakarios et al. 2017, appendix D).

    Where the logit does not exist, the density is zero: ladj is -inf, and z is arbitrary.

    Args:
        margin: lambda, in (0, 1/2).
    """

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # a and 1 - a are computed separately: subtracting a from 1 would leave few digits near white
        log_a, log_b = ((self.margin + (1 - 2 * self.margin) * part).log() for part in (x, 1 - x))
        ladj = (math.log(1 - 2 * self.margin) - log_a - log_b).flatten(1).sum(1)
        is_outside = ~(ladj.isfinite() | x.flatten(1).sum(1).isnan())
        z = (log_a - log_b).masked_fill(is_outside.view(-1, *[1] * (x.dim() - 1)), 0)
        return z, ladj.masked_fill(is_outside, -math.inf)

    def inverse(self, z: Tensor) -> Tensor:
        return (z.sigmoid() - self.margin) / (1 - 2 * self.margin)


class LogisticToNormal(Bijector):
    """z = Phi^-1(sigmoid(x)), which is standard normal if x is standard logistic: [B, D] -> [B, D].

    Phi is the distribution function of N(0, 1).
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_tail = F.logsigmoid(-x.abs())  # of the smaller side
        with torch.no_grad():
            z = invert(self._log_normal, log_tail, -(-2 * log_tail).sqrt(), torch.zeros_like(x))
            value, slope = self._log_normal(z)
        z = -x.sign() * (z + (log_tail - value) / slope)  # the last step of Newton's method brings the gradient
        log_density = F.logsigmoid(x) + F.logsigmoid(-x)
        return z, (log_density + z.square() / 2 + math.log(2 * math.pi) / 2).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        return torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)

    @staticmethod
    def _log_normal(z: Tensor) -> tuple[Tensor, Tensor]:
        """log Phi(z) and its derivative."""
        value = torch.special.log_ndtr(z)
        return value, (-z.square() / 2 - math.log(2 * math.pi) / 2 - value).exp()


class Split(Bijector):
    """Turns half of the channels into latents; the other half goes through more layers (Dinh et al. 2017, section 3.6).

    The first half becomes standard normal by an affine map whose shift and scale are computed from the other half. This
    is the same as a Gaussian prior with learned mean and scale (Kingma & Dhariwal 2018, released code).

    Args:
        coupling: Maps [B, C, H, W] and leaves the first C/2 channels as they are.
        rest: Maps the first C/2 channels to vectors.
    """

    def __init__(self, coupling: Bijector, rest: Bijector) -> None:
        super().__init__()
        self.coupling = coupling
        self.rest = rest

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, ladj = self.coupling(x)
        kept, done = x.chunk(2, 1)
        z, rest_ladj = self.rest(kept)
        return torch.cat([z, done.flatten(1)], 1), ladj + rest_ladj

    def inverse(self, z: Tensor) -> Tensor:
        z, done = z.chunk(2, 1)
        kept = self.rest.inverse(z)
        return self.coupling.inverse(torch.cat([kept, done.view_as(kept)], 1))


# ---------------------------------------------------------------------------------------------------------- linear maps


class ActNorm(Bijector):
    """Shifts and scales each channel, z = (x - loc) e^-log_scale (Kingma & Dhariwal 2018, section 3.1).

    The first batch of training sets loc and log_scale, so that each channel of z has mean 0 and variance 1 over the
    examples of all processes. From then on, they are trained like other parameters. The buffer `initialized` records
    this, also in checkpoints.

    Args:
        num_channels: Size of dimension 1.
    """

    initialized: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(num_channels))
        self.log_scale = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("initialized", torch.tensor(False))
        self._is_over = False  # a Python value, so that no call waits for a device

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self._is_over:
            if not self.initialized:
                self._initialize(x.detach())
            self._is_over = True
        loc, log_scale = self._shaped(x)
        ladj = -self.log_scale.sum() * (x[0, 0].numel() if x.shape[0] else 0)
        return (x - loc) * (-log_scale).exp(), ladj.expand(x.shape[0])

    def inverse(self, z: Tensor) -> Tensor:
        loc, log_scale = self._shaped(z)
        return z * log_scale.exp() + loc

    def _shaped(self, x: Tensor) -> list[Tensor]:
        return [value.view(-1, *[1] * (x.dim() - 2)) for value in (self.loc, self.log_scale)]

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        if x.shape[0] == 0:
            return
        values = widest(x.transpose(0, 1).flatten(1))  # [C, examples times pixels]
        loc = gather(values.mean(1)[None], size()).mean(0)  # processes have equally many examples
        variance = gather((values - loc[:, None]).square().mean(1)[None], size()).mean(0)
        self.loc.copy_(loc)
        self.log_scale.copy_(variance.clamp(min=1e-12).log() / 2)
        self.initialized.fill_(True)


class InvertibleLinear(Bijector):
    """z = W x along dimension 1: for images, an invertible 1x1 convolution (Kingma & Dhariwal 2018, section 3.2).

    W = P L (U + diag(s)) with a fixed permutation P, unit lower triangular L and strictly upper triangular U, so that
    log |det W| = sum log |s|. The signs of s are fixed. W starts as a random rotation.

    Args:
        num_channels: Size of dimension 1.
    """

    order: Tensor
    signs: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        permutation, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(num_channels, num_channels))[0])
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(upper.diagonal().abs().log())
        self.register_buffer("signs", upper.diagonal().sign())
        self.register_buffer("order", permutation.argmax(1))  # P L = L[order]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ladj = self.log_scale.sum() * (x[0, 0].numel() if x.shape[0] else 0)
        return self._product(self._weight(), x), ladj.expand(x.shape[0])

    def inverse(self, z: Tensor) -> Tensor:
        return self._product(torch.linalg.inv(self._weight()), z)

    def _weight(self) -> Tensor:
        with torch.autocast(self.lower.device.type, enabled=False):
            lower = self.lower.tril(-1) + torch.eye(len(self.lower)).to(self.lower)
            return (lower @ (self.upper.triu(1) + (self.signs * self.log_scale.exp()).diag()))[self.order]

    @staticmethod
    def _product(weight: Tensor, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # in half precision it would have no inverse
            return (weight @ x.flatten(2)).view_as(x) if x.dim() > 2 else x @ weight.T
