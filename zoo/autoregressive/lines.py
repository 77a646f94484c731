"""Drawing row by row and pixel by pixel, each activation once: what PixelRNN and the PixelCNNs have in common.

What is small takes as long to allocate, slice or join as to compute. So lines write where they read, into memory whose
slices are made once, and outside of autograd only. Biases are weights of an input that is always one (`with_bias`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from zoo.autoregressive.raster import Augmented
from zoo.nn.affine import with_bias
from zoo.progress import steps

PART = 25  # images at once, on the CPU and without gradients: what is between their layers stays in its cache


class Line(ABC):
    """Rows of images, one after another from the top, each pixel by pixel from the left.

    Attributes:
        left: what the maps before the first layer get from the pixels to the left, [taps, C].
        start: these maps, of the row that is drawn, [B, W, C].
    """

    left: Tensor
    start: Tensor

    @abstractmethod
    def begin(self, above: Tensor, row: int) -> None:
        """The next row: sets `start` but for what comes from the left.

        Args:
            above: pixels of as many rows as there are taps, with as many zeros beside, [B, 1, taps, taps + W + taps].
            row: its number.
        """

    @abstractmethod
    def step(self, column: int) -> Tensor:
        """The next pixel, whose `start` is complete.

        Returns:
            One, and relu of the map after the last layer: [B, 1 + C], until the next step.
        """


class Lines(Augmented):
    """Layers between maps of the pixels before and two convolutions of single pixels, the last ones.

    Attributes:
        hidden, output: these convolutions.
    """

    hidden: nn.Conv2d
    output: nn.Conv2d

    @abstractmethod
    def begin(self, batch: int) -> Line:
        """A line of that many images, above their first row."""

    def decide(self, maps: Tensor) -> Tensor:
        """Logits [B, D], given the maps after the last layer."""
        return self.output(self.hidden(maps.relu()).relu()).flatten(1)

    def log_prob(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.is_cuda:
            return super().log_prob(x)
        return torch.cat([super(Lines, self).log_prob(part) for part in x.split(PART)])

    def scan(self, uniforms: Tensor) -> Tensor:
        _, height, width = self.event_shape
        line = self.begin(len(uniforms))
        taps, firsts = len(line.left), line.start.unbind(1)
        x = uniforms.new_zeros(len(uniforms), 1, taps + height, taps + width + taps)  # with zeros around
        pixels = uniforms.new_zeros(len(uniforms), taps + width)  # of a row, with zeros to the left
        places = [place.split(taps, 1) for place in pixels.unfold(1, taps + 1, 1).unbind(1)]  # before it, and it
        hidden, output = with_bias(self.hidden), self.output.weight[:, :, 0, 0].T.contiguous()
        inner, logit = (uniforms.new_empty(len(uniforms), layer.out_channels) for layer in (self.hidden, self.output))
        limits = uniforms.new_empty(width, *logit.shape)
        thresholds = uniforms.clamp(0, 1).logit() - cast(Tensor, self.output.bias)
        thresholds = thresholds.view(-1, height, width).permute(1, 2, 0)[..., None]  # [H, W, B, 1]
        columns = list(zip(range(width), places, firsts, limits, strict=True))
        for row in steps(range(height), "row"):
            line.begin(x[:, :, row : row + taps], row)
            limits.copy_(thresholds[row])
            for column, (before, pixel), first, limit in columns:
                first.addmm_(before, line.left)
                torch.mm(torch.mm(line.step(column), hidden, out=inner).relu_(), output, out=logit)
                torch.gt(logit, limit, out=pixel)
            x[:, 0, taps + row, taps : taps + width] = pixels[:, taps:]
        return x[:, 0, taps:, taps : taps + width].flatten(1)
