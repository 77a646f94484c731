"""Residual layers between a masked convolution and the logits: what PixelCNN and PixelRNN have in common.

van den Oord et al. 2016, https://arxiv.org/abs/1601.06759, table 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.lines import Line, Lines
from zoo.errors import ConfigError
from zoo.nn.masked_conv import MaskedConv2d
from zoo.nn.position import PositionBias
from zoo.random import Streams


class Stack(Lines):
    """A masked convolution of type A, layers that keep its size, and two convolutions of single pixels."""

    def assemble(
        self,
        event_shape: Sequence[int],
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
        return self.decide(maps)


class StackLine(Line):
    """A row of a `Stack`.

    Attributes:
        sums: what each layer gets from the rows before, and biases, pixel by pixel, [W, L, B, ...].
    """

    sums: Tensor

    def __init__(self, model: Stack) -> None:
        self.left, self.first = model.first.left()[:, 0].T.contiguous(), model.first.above().contiguous()
        self.bias_of_first = model.position.bias.permute(1, 2, 0) + cast(Tensor, model.first.bias)  # [H, W, C]

    @abstractmethod
    def above(self) -> Tensor:
        """What goes to `sums`, after a row: [L, B, W, ...]."""

    def begin(self, above: Tensor, row: int) -> None:
        self.sums.copy_(self.above().permute(2, 0, 1, 3))  # while `start` is that of the row before
        torch.add(F.conv2d(above, self.first)[:, :, 0].mT, self.bias_of_first[row], out=self.start)


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A layer at a time: [L, B, W, in], [L, in, out] and [L, 1, out] -> [L, B, W, out]."""
    return torch.baddbmm(bias, x.flatten(1, 2), weight).unflatten(1, x.shape[1:3])
