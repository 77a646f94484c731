"""Coupling layers: one part of the values determines how each of the others is mapped (Dinh et al. 2015, 2017).

    z_1 = x_1,    z_2 = g(x_2; network(x_1)),    ladj = sum log g'(x_2)

g is an increasing map of single numbers, of the same kind in all couplings of a flow: see `Transform`.
https://arxiv.org/abs/1410.8516, https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from zoo.flows.layers import Bijector
from zoo.flows.roots import invert

# --------------------------------------------------------------------------------------------------- maps of one number


class Transform(Protocol):
    """An increasing map of single numbers, each with parameters of its own."""

    num_parameters: int

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x to z; also returns log dz/dx: [B, ...], [B, num_parameters, ...] -> ([B, ...], [B, ...])."""

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        """Maps z back to x: [B, ...], [B, num_parameters, ...] -> [B, ...]."""


def bounded(log_scale: Tensor, limit: float = 2.0) -> Tensor:
    """Keeps a log-scale within (-limit, limit), smoothly, so that rounding errors cannot grow without bound."""
    return limit * torch.tanh(log_scale / limit)


class Additive:
    """z = x + t (Dinh et al. 2015, eq. 9)."""

    num_parameters = 1

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return x + parameters[:, 0], torch.zeros_like(x)

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        return z - parameters[:, 0]


class Affine:
    """z = x e^s + t with s in (-2, 2) (Dinh et al. 2017, eq. 7)."""

    num_parameters = 2

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(1)
        log_scale = bounded(raw)
        return x * log_scale.exp() + shift, log_scale

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        shift, raw = parameters.unbind(1)
        return (z - shift) * (-bounded(raw)).exp()


class MixtureOfLogistics:
    """z = y e^a + b, y = logit(sum_k pi_k sigmoid((x - mu_k) e^-s_k)) + x/100.

    From Flow++ (Ho et al. 2019, https://arxiv.org/abs/1902.00275, eqs. 13 and 14). The term x/100 is not in the paper:
    it keeps the slope away from zero between components, where single precision could not recover x from z. The inverse
    has no closed form; see `zoo.flows.roots`.

    Args:
        num_components: Number of components K.
    """

    LIMIT = 3.0  # of s
    SLOPE = 0.01

    def __init__(self, num_components: int) -> None:
        self.num_components = num_components
        self.num_parameters = 3 * num_components + 2

    def __call__(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        *mixture, after = self._parts(parameters)
        y, slope = self._mapped(x, *mixture)
        z, log_factor = Affine()(y, after)
        return z, slope.log() + log_factor

    def inverse(self, z: Tensor, parameters: Tensor) -> Tensor:
        log_weights, loc, log_scale, after = self._parts(parameters)
        y = Affine().inverse(z, after)
        quantiles = loc + log_scale.exp() * y[:, None]  # of the components; the mixture's lies between them
        low, high = quantiles.amin(1).clamp(max=0), quantiles.amax(1).clamp(min=0)  # x/100 moves it towards 0
        return invert(lambda x: self._mapped(x, log_weights, loc, log_scale), y, low, high)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        num = self.num_components
        logits, loc, log_scale, after = parameters.split([num, num, num, 2], 1)
        start = torch.linspace(-2, 2, num).to(loc).view(-1, *[1] * (loc.dim() - 2))  # components begin apart
        return logits.log_softmax(1), loc + start, bounded(log_scale, self.LIMIT), after

    def _mapped(self, x: Tensor, log_weights: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """y and dy/dx."""
        u = (x[:, None] - loc) * (-log_scale).exp()
        log_below = u.clamp(max=0) - (1 + (-u.abs()).exp()).log()  # log sigmoid(u), ten times faster than torch's own
        log_above = log_below - u
        log_cdf, log_rest, log_density = (
            (log_weights + part).logsumexp(1) for part in (log_below, log_above, log_below + log_above - log_scale)
        )
        slope = (log_density - log_cdf - log_rest).exp()
        return log_cdf - log_rest + self.SLOPE * x, slope + self.SLOPE


# ------------------------------------------------------------------------------------------------------------- networks


class MLP(nn.Sequential):
    """A smooth network with hidden layers of equal width. Its outputs start at zero, so that a coupling starts simple.

    Args:
        num_inputs: Width of the input.
        hidden: Width of the hidden layers.
        num_outputs: Width of the output.
        num_layers: Number of hidden layers.
    """

    def __init__(self, num_inputs: int, hidden: int, num_outputs: int, num_layers: int = 2) -> None:
        widths = [num_inputs, *[hidden] * num_layers]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
        super().__init__(*layers, nn.Linear(hidden, num_outputs))
        _zero(self[-1])


class ConvNet(nn.Module):
    """3x3, 1x1 and 3x3 convolutions (Kingma & Dhariwal 2018, appendix B), each pixel normalised in between.

    Args:
        num_inputs: Number of input channels.
        hidden: Number of hidden channels.
        num_outputs: Number of output channels, which start at zero.
    """

    def __init__(self, num_inputs: int, hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_inputs, hidden, 3, padding=1)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Conv2d(hidden, hidden, 1)
        self.second_norm = nn.LayerNorm(hidden)
        self.last = nn.Conv2d(hidden, num_outputs, 3, padding=1)
        _zero(self.last)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in ((self.first, self.first_norm), (self.second, self.second_norm)):
            x = norm(convolution(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu()  # over the channels of a pixel
        return self.last(x)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


# ------------------------------------------------------------------------------------------------------------ couplings


def _by_parameter(outputs: Tensor, transform: Transform) -> Tensor:
    """Splits the outputs of a network, [B, P * C, ...], by parameter of the transform: [B, P, C, ...]."""
    num = transform.num_parameters
    return outputs.contiguous().unflatten(1, (num, outputs.shape[1] // num))


class Coupling(Bijector):
    """Keeps the first channels (or entries of a vector), which determine how the others are mapped.

    Args:
        num_kept: Number of channels to keep.
        network: Network from the kept channels to the transform's parameters: [B, num_kept, ...] -> [B, P * rest, ...].
        transform: The map of single numbers, with P parameters.
    """

    def __init__(self, num_kept: int, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.num_kept = num_kept
        self.network = network
        self.transform = transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, rest = x[:, : self.num_kept], x[:, self.num_kept :]
        rest, log_slope = self.transform(rest, self._predict(kept))
        return torch.cat([kept, rest], 1), log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        kept, rest = z[:, : self.num_kept], z[:, self.num_kept :]
        return torch.cat([kept, self.transform.inverse(rest, self._predict(kept))], 1)

    def _predict(self, kept: Tensor) -> Tensor:
        return _by_parameter(self.network(kept).to(kept.dtype), self.transform)


class CheckerboardCoupling(Bijector):
    """Keeps pixels of one colour of a checkerboard; they determine how the others are mapped (Dinh et al. 2017, 3.4).

    Args:
        shape: (C, H, W) of one example.
        keeps_even: Whether to keep the pixels whose row and column have an even sum, or else the other pixels.
        network: Network from the kept pixels to the parameters of all pixels: [B, C, H, W] -> [B, P * C, H, W].
        transform: The map of single numbers, with P parameters.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], keeps_even: bool, network: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.network = network
        self.transform = transform
        is_even = (torch.arange(shape[1])[:, None] + torch.arange(shape[2])) % 2 == 0
        self.register_buffer("mask", is_even if keeps_even else ~is_even, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transform(x, self._predict(x))
        return torch.where(self.mask, x, z), log_slope.where(~self.mask, 0).flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        return torch.where(self.mask, z, self.transform.inverse(z, self._predict(z)))

    def _predict(self, x: Tensor) -> Tensor:
        return _by_parameter(self.network(x.where(self.mask, 0)).to(x.dtype), self.transform)


Network = Callable[[int, int], nn.Module]
"""Makes the network of a coupling, given the numbers of its inputs and outputs."""


def halves(num_channels: int, network: Network, transform: Transform) -> Coupling:
    """A coupling of two halves of the channels; the half that is kept gets the extra channel of an odd number."""
    num_kept = num_channels - num_channels // 2
    outputs = transform.num_parameters * (num_channels - num_kept)
    return Coupling(num_kept, network(num_kept, outputs), transform)
