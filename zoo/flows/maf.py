"""Masked autoregressive flow: each value is mapped given those before it (Papamakarios et al. 2017).

    z_d = x_d e^s_d + t_d,    (s_d, t_d) = network(x_1, ..., x_d-1),    ladj = sum_d s_d                       (eq. 5)

https://arxiv.org/abs/1705.07057. The network of a layer is a MADE (Germain et al. 2015, https://arxiv.org/abs/1502.03509):
masks hide from each output the inputs that do not come before it. The order is reversed from layer to layer.

Density: exact; for 8-bit images a bound, by dequantisation. One pass.
Sampling: exact, value by value through each layer; each unit of a network is computed only once, as for a density.
Differs from the paper: actnorm (Kingma & Dhariwal 2018) in place of batch normalisation; 2 tanh(s/2) in place of s;
AdamW with a warm-up and a rate that falls along a cosine, clipped gradients, averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from zoo.config import Size
from zoo.errors import ConfigError
from zoo.flows.couplings import Affine
from zoo.flows.flow import Flow, Levels, Margin, dequantizer_of
from zoo.flows.layers import ActNorm, Bijector, Chain, Flatten, Flip, Logit
from zoo.nn.masked import MaskedLinear

MAX_DEGREES = 2**18
"""Largest number of degrees of a layer. Loading computes them before it has checked the file."""


class MaskedAutoregressive(Bijector):
    """One layer: an affine map of each value, with parameters from a MADE.

    A unit of degree m sees the first m values. Hidden units are sorted by degree, and the s_d and t_d of value d see
    units of degrees below d.

    Args:
        size: Dimension D.
        hidden: Width of the hidden layers.
        num_hidden: Number of hidden layers.
        context: Number of other values that all hidden units of the first layer see.

    Raises:
        ConfigError: `size` and `hidden` together are above `MAX_DEGREES`.
    """

    def __init__(self, size: int, hidden: int, num_hidden: int, context: int = 0) -> None:
        super().__init__()
        self.size = size
        if size + hidden > MAX_DEGREES:
            found = f"{size} and {hidden}"
            raise ConfigError(f"expected up to {MAX_DEGREES} values and hidden units, found {found}; use fewer")
        self.degrees = 1 + np.arange(hidden) * max(1, size - 1) // hidden  # of hidden units, sorted
        inputs = np.arange(1, size + 1)
        steps = [inputs, *[self.degrees] * num_hidden]
        layers = [MaskedLinear(before, after) for before, after in pairwise(steps)]
        self.hidden = nn.ModuleList(layers)
        self.last = MaskedLinear(self.degrees, np.tile(inputs, 2) - 1)
        self.context = nn.Linear(context, hidden, bias=False) if context else None
        self.transform = Affine()
        with torch.no_grad():
            self.last.weight.mul_(0.01)
            self.last.bias.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transform(x, self._predict(x, context))
        return z, log_slope.sum(1)

    def _predict(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The parameters of the map of each value, [B, 2, D]."""
        first, *others = self.hidden
        h = self._with(context, first(x.to(self.last.weight.dtype)))
        for layer in others:
            h = layer(h.relu())
        return self.last(h.relu()).to(x.dtype).unflatten(1, (2, self.size))

    def solve(self, z: Tensor) -> Tensor:
        """The same as `inverse`, with gradients, by one pass for each value: pass d makes x_d exact."""
        x = torch.zeros_like(z)
        for _ in range(self.size):
            x = self.transform.inverse(z, self._predict(x, None))
        return x

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Computes x value by value; a hidden unit is ready once the values that it sees are known."""
        num, size = len(z), self.size
        first, *later = [layer.matrix().to(z.dtype) for layer in (*self.hidden, self.last)]
        biases = [layer.bias.to(z.dtype)[:, None].expand(-1, num) for layer in (*self.hidden, self.last)]
        biases[0] = self._with(context, biases[0].T).T
        # units are rows, sorted by degree, with s_d beside t_d: those that still change are a slice
        later[-1] = later[-1].unflatten(0, (2, size)).transpose(0, 1).flatten(0, 1)
        biases[-1] = biases[-1].unflatten(0, (2, size)).transpose(0, 1).flatten(0, 1)
        sums = [bias.contiguous().clone() for bias in biases]  # what each layer has added up so far
        parameters = sums[-1].view(size, 1, 2, num)
        ends = [0, *np.bincount(self.degrees, minlength=size + 1).cumsum(0).tolist()]
        columns = first.T.contiguous()[:, :, None]  # the effects of each value on the first layer
        z, x = z.T.contiguous(), torch.empty_like(z.T, memory_format=torch.contiguous_format)
        for d in range(size):
            x[d] = self.transform.inverse(z[d : d + 1], parameters[d])[0]
            start, end = ends[d + 1], ends[d + 2]  # the units of degree d + 1 are ready, and those before
            sums[0][start:].addcmul_(columns[d, start:], x[d])
            if start < end:
                for number, weight in enumerate(later):
                    rest = 2 * (d + 1) if number + 1 == len(later) else start
                    sums[number + 1][rest:].addmm_(weight[rest:, start:end], sums[number][start:end].relu())
        return x.T.contiguous()

    def _with(self, context: Tensor | None, h: Tensor) -> Tensor:
        """The first hidden layer with what it sees of the context."""
        return h if self.context is None else h + self.context(context).to(h.dtype)


class MAF(Flow):
    """A flow of autoregressive layers.

    Args:
        event_shape: Shape of one example; its values are taken row by row.
        num_layers: Number of autoregressive layers.
        hidden: Width of the networks' hidden layers.
        num_hidden: Number of hidden layers of each network.
        levels: Number of grey levels of a pixel, or None for real numbers.
        logit: lambda of the logit transform, in (0, 1/2); None for data that are not in [0, 1].
        dequantizer: Number of hidden channels of a learned dequantisation; None for uniform noise.
    """

    adaptive = ("decode",)  # value by value, as the masks of the layers allow

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        num_layers: Size = 5,
        hidden: Size = 288,
        num_hidden: Size = 2,
        levels: Levels = 256,
        logit: Margin = 1e-6,
        dequantizer: Size | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        size = math.prod(event_shape)
        self.latent_shape = (size,)
        self.levels = levels
        self.dequantizer = dequantizer_of(event_shape, dequantizer)
        layers: list[Bijector] = [Flatten(event_shape), *([] if logit is None else [Logit(logit)])]
        for _ in range(num_layers):
            layers += [ActNorm(size), MaskedAutoregressive(size, hidden, num_hidden), Flip()]
        self.bijector = Chain(*layers)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bijector(x)

    def from_latent(self, z: Tensor) -> Tensor:
        return self.bijector.inverse(z)
