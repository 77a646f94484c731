"""Draws images row by row and pixel by pixel, computing each activation once, for PixelRNN and both binary PixelCNNs.

For small tensors, allocating, slicing and joining memory takes as long as the arithmetic. A line therefore writes into
memory that is allocated and sliced once, outside of autograd. Biases are the weights of an input that is always one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.given import Labels, check_labels
from zoo.progress import steps

if TYPE_CHECKING:
    from zoo.autoregressive.gated_pixelcnn import ConditionalGatedPixelCNN, GatedPixelCNN
    from zoo.autoregressive.pixelcnn import PixelCNN
    from zoo.autoregressive.pixelrnn import PixelRNN

    Model: TypeAlias = GatedPixelCNN | PixelCNN | PixelRNN

PART = 25  # images at once, so that their activations stay in the cache of a CPU


def log_prob(model: Model, x: Tensor, labels: Labels = None) -> Tensor | None:
    """Fast version of `log_prob` for the CPU without gradients: a few images at a time."""
    if torch.is_grad_enabled() or x.is_cuda or len(x) <= PART:
        return None
    parts = x.split(PART)
    if labels is None:
        return torch.cat([model.log_prob(part) for part in parts])
    of_parts = check_labels(model, labels, len(x)).split(PART)
    labelled = cast("ConditionalGatedPixelCNN", model)
    return torch.cat([labelled.log_prob(part, labels=own) for part, own in zip(parts, of_parts, strict=True)])


class Line(ABC):
    """A line of a batch of images, which is computed row by row from the top, and pixel by pixel from the left.

    Attributes:
        left: Weights with which the pixels to the left enter the maps before the first layer, [taps, C].
        start: The maps before the first layer, in the current row, [B, W, C].
    """

    left: Tensor
    start: Tensor

    @abstractmethod
    def begin(self, above: Tensor, row: int) -> None:
        """Begins the next row: sets `start`, except for the contribution of pixels to the left.

        Args:
            above: Pixels of the last rows, one row per tap, with one zero per tap at each side,
                [B, 1, taps, taps + W + taps].
            row: Number of the row.
        """

    @abstractmethod
    def step(self, column: int) -> Tensor:
        """Computes the next pixel, whose `start` is complete.

        Returns:
            A one, then relu of the map after the last layer, [B, 1 + C]; valid until the next step.
        """


def draw(model: Model, line: Line, uniforms: Tensor) -> Tensor:
    """Draws each pixel in turn: `from_uniforms` for a model that ends with the layers `hidden` and `output`."""
    batch, _, height, width = uniforms.shape
    taps, firsts = len(line.left), line.start.unbind(1)
    x = uniforms.new_zeros(batch, 1, taps + height, taps + width + taps)  # with zeros around
    pixels = uniforms.new_zeros(batch, taps + width)  # of a row, with zeros to the left
    places = [place.split(taps, 1) for place in pixels.unfold(1, taps + 1, 1).unbind(1)]  # pixels before, the pixel
    hidden, output = with_bias(model.hidden), model.output.weight[:, :, 0, 0].T.contiguous()
    inner, logit = (uniforms.new_empty(batch, layer.out_channels) for layer in (model.hidden, model.output))
    limits = uniforms.new_empty(width, *logit.shape)
    thresholds = uniforms.clamp(0, 1).logit() - cast(Tensor, model.output.bias)
    thresholds = thresholds[:, 0].permute(1, 2, 0)[..., None]  # [H, W, B, 1]
    columns = list(zip(range(width), places, firsts, limits, strict=True))
    for row in steps(range(height), "row"):
        line.begin(x[:, :, row : row + taps], row)
        limits.copy_(thresholds[row])
        for column, (before, pixel), first, limit in columns:
            first.addmm_(before, line.left)
            torch.mm(torch.mm(line.step(column), hidden, out=inner).relu_(), output, out=logit)
            torch.gt(logit, limit, out=pixel)
        x[:, 0, taps + row, taps : taps + width] = pixels[:, taps:]
    return x[:, :, taps:, taps : taps + width]


class MaskedLine(Line):
    """A row of a model that begins with a masked convolution.

    Attributes:
        sums: Contribution of the rows above to each layer, plus its bias, for each pixel, [W, L, B, ...].
    """

    sums: Tensor

    def __init__(self, model: PixelCNN | PixelRNN) -> None:
        self.left, self.first = model.first.left()[:, 0].T.contiguous(), model.first.above().contiguous()
        self.bias_of_first = model.position.bias.permute(1, 2, 0) + cast(Tensor, model.first.bias)  # [H, W, C]

    @abstractmethod
    def above(self) -> Tensor:
        """Computes `sums` for the next row after a row is drawn: [L, B, W, ...]."""

    def begin(self, above: Tensor, row: int) -> None:
        self.sums.copy_(self.above().permute(2, 0, 1, 3))  # before `start` of the previous row is overwritten
        torch.add(F.conv2d(above, self.first)[:, :, 0].mT, self.bias_of_first[row], out=self.start)


def with_bias(layer: nn.Conv2d) -> Tensor:
    """A copy of a 1x1 convolution as a matrix, [1 + in, out], for inputs whose first entry is one."""
    return torch.cat([cast(Tensor, layer.bias)[None], layer.weight[:, :, 0, 0].T])


def product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A matrix product in each layer: [L, B, W, in], [L, in, out] and [L, 1, out] -> [L, B, W, out]."""
    return torch.baddbmm(bias, x.flatten(1, 2), weight).unflatten(1, x.shape[1:3])
