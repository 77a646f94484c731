"""Residual layers between a masked convolution and the logits: what PixelCNN and PixelRNN have in common.

van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, table 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import Augmented
from zoo.errors import ConfigError
from zoo.nn.masked_conv import MaskedConv2d
from zoo.nn.position import PositionBias
from zoo.progress import steps
from zoo.random import Streams


class Line(Protocol):
    """Rows of images, drawn one after another from the top, with what it takes from the rows before."""

    def scan(self, thresholds: Tensor, start: Tensor) -> Tensor:
        """Pixels of the next row.

        Args:
            thresholds: which a logit has to exceed, [B, W].
            start: of the first convolution and the biases of the positions, without what is left, [B, 2C, W].

        Returns:
            [B, W], until the next call.
        """


class Stack(Augmented):
    """A masked convolution of type A, layers that keep its size, and two convolutions of single pixels."""

    def assemble(
        self,
        event_shape: list[int],
        layers: Iterable[nn.Module],
        *,
        channels: int,
        first_kernel: int,
        hidden: int,
        dropout: float,
        max_shift: int,
    ) -> None:
        """The modules.

        Args:
            event_shape: (1, H, W); values in {0, 1}.
            layers: each takes maps [B, channels, H, W], a rate of dropout and its noise, and gives maps of that shape.
            channels: of the maps.
            first_kernel: size of the first convolution, odd.
            hidden: units of the layer before the logits.
            dropout, max_shift: see `Augmented`.
        """
        if event_shape[0] != 1 or first_kernel % 2 == 0:
            raise ConfigError(
                f"{type(self).__name__}: expected one channel and a first_kernel of odd size, found {event_shape[0]} "
                f"and {first_kernel}"
            )
        self.event_shape = tuple(event_shape)
        _, height, width = event_shape
        self.dropout, self.max_shift = dropout, max_shift
        self.first = MaskedConv2d(1, channels, first_kernel, "A")
        self.position = PositionBias(channels, height, width, max_shift)
        self.layers = nn.ModuleList(layers)
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        maps = (self.first(x) + self.position(shifts)).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            maps = layer(maps, self.dropout, streams)
        return self.output(self.hidden(maps.relu()).relu()).flatten(1)

    @abstractmethod
    def begin(self, batch: int) -> Line:
        """The first row of that many images."""

    def scan(self, uniforms: Tensor) -> Tensor:
        _, height, width = self.event_shape
        reach = self.first.reach
        thresholds = uniforms.clamp(0, 1).logit().view(-1, height, width)
        x = uniforms.new_zeros(len(uniforms), 1, reach + height, width + 2 * reach)  # with zeros around
        line = self.begin(len(uniforms))
        for row in steps(range(height), "row"):
            start = F.conv2d(x[:, :, row : row + reach], self.first.above(), self.first.bias)[:, :, 0]
            pixels = line.scan(thresholds[:, row], start + self.position.bias[:, row])
            x[:, 0, reach + row, reach : reach + width] = pixels
        return x[:, 0, reach:, reach : reach + width].flatten(1)
