"""Gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328), for binary pixels.

    log p(x) = sum over pixels of log p(x_rc | the rows above r, the pixels of row r to the left of c)         (eq. 1)
    v' = v + tanh(W_f * v) sigmoid(W_g * v)     vertical stack: sees all rows above, without a blind spot
    h' = h + W_o [tanh(U_f * h + V_f * v) sigmoid(U_g * h + V_g * v)]     horizontal stack     (eq. 2, figure 2)

`ConditionalGatedPixelCNN` models p(x | y) for classes y: each gate becomes tanh(a + A_y) sigmoid(b + B_y), with vectors
that the class selects (eq. 4).

Density: exact, one pass.
Sampling: exact, one pixel at a time. The fast version computes the vertical stack once per row and the horizontal
stack once per pixel.
Differs from the paper: binary pixels; a residual connection in the vertical stack too; no skip connections; a learned
bias at each position; shifted images; clipped gradients; warm-ups and cosine schedules; averaged weights. The
checkpoint comes from several runs: the first with 14 layers, dropout and AdamW, the others with Muon, without dropout
and with teachers, the last with 22 layers. The conditional checkpoint continues from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import faster, lines
from zoo.autoregressive.fast import gated_pixelcnn as fast
from zoo.autoregressive.raster import RasterOrder, check_odd_and_grey, forced, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import PositionBias, Regularized, dropout, regularized_log_prob, take_teachers
from zoo.capabilities import Conditional
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.given import Labels, check_labels
from zoo.module import ZooModule
from zoo.random import Streams, rand


class GatedLayer(nn.Module):
    """One layer of both stacks. v in row r depends on the rows above r; h at (r, c) also on the pixels left of c."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(channels, 2 * channels, (self.reach + 1, kernel), padding=(0, self.reach))
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, self.reach + 1), bias=False)
        self.between = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(
        self, v: Tensor, h: Tensor, rate: float, streams: Streams | None, classes: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        for_v = self.vertical(F.pad(v, (0, 0, self.reach, 0)))
        if classes is not None:
            for_v = for_v + classes[:, 0, :, None, None]
        for_h = self.between(for_v) + self.horizontal(F.pad(h, (self.reach, 0)))
        if classes is not None:
            for_h = for_h + classes[:, 1, :, None, None]
        to_v, to_h = _gate(for_v), _gate(for_h)
        if streams is not None and rate:  # without dropout, a copy would cost time
            to_v, to_h = dropout(torch.cat([to_v, to_h], 1), rate, streams).chunk(2, 1)
        return v + to_v, h + self.out(to_h)


def _gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) for the two halves a and b of the channels."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class GatedPixelCNN(RasterOrder):
    """Two stacks of gated, masked convolutions.

    Args:
        event_shape: Shape of one example, (1, H, W); values in {0, 1}.
        channels: Width of both stacks.
        num_layers: Number of gated layers.
        kernel: Size of the convolutions, odd.
        first_kernel: Size of the first convolution, odd.
        hidden: Number of units of the layer before the logits.
        dropout: Fraction of a layer's outputs that dropout zeroes in training.
        max_shift: Largest shift along each axis, in pixels; training shifts each image with probability 1/2.
    """

    teachers: tuple[Regularized, ...] = ()
    training_log_prob = regularized_log_prob
    learn_from = take_teachers

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        channels: Size = 32,
        num_layers: Annotated[int, Between(1, 1000)] = 8,
        kernel: Annotated[int, Between(1, 99)] = 3,
        first_kernel: Annotated[int, Between(3, 99)] = 5,
        hidden: Size = 64,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_odd_and_grey("GatedPixelCNN", event_shape[0], kernel, first_kernel)
        _, height, width = self.event_shape = tuple(event_shape)
        self.reach, self.dropout, self.max_shift = first_kernel // 2, dropout, max_shift
        self.above = nn.Conv2d(1, channels, (self.reach, first_kernel), padding=(0, self.reach))
        self.left = nn.Conv2d(1, channels, (1, self.reach))
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.layers = nn.ModuleList(GatedLayer(channels, kernel) for _ in range(num_layers))
        self.hidden = nn.Conv2d(channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def logits(
        self,
        x: Tensor,
        shifts: Tensor | None = None,
        streams: Streams | None = None,
        classes: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """See `Regularized`; `classes` are the vectors A and B of each layer's gates, [B, 2, 2 channels]."""
        above, left = self.position(shifts).chunk(2, 1)
        v = self.above(F.pad(x, (0, 0, self.reach, -1))) + above  # the last row is above nothing
        h = self.left(F.pad(x, (self.reach, -1))) + left
        v, h = (maps.contiguous(memory_format=torch.channels_last) for maps in (v, h))
        for number, layer in enumerate(self.layers):
            v, h = layer(v, h, self.dropout, streams, None if classes is None else classes[number])
        return self.output(self.hidden(h.relu()).relu()).flatten(1)

    @faster(lines.log_prob)
    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.logits(x), x).sum(-1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        return pixel_by_pixel(self.logits, uniforms)


class ConditionalGatedPixelCNN(Conditional, GatedPixelCNN):
    """A gated PixelCNN whose gates are given the class.

    `sample` without labels draws a class first, each with the same probability. `complete` and `expected` without
    labels treat the class as unknown: it is inferred from the known pixels, or from those drawn before.

    Args:
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        event_shape, channels, num_layers, kernel, first_kernel, hidden, dropout, max_shift: See `GatedPixelCNN`.
    """

    learn_from = ZooModule.learn_from  # teachers would have to be given the class

    def __init__(
        self,
        num_classes: Size = 10,
        event_shape: ImageShape = (1, 28, 28),
        channels: Size = 32,
        num_layers: Annotated[int, Between(1, 1000)] = 8,
        kernel: Annotated[int, Between(1, 99)] = 3,
        first_kernel: Annotated[int, Between(3, 99)] = 5,
        hidden: Size = 64,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__(event_shape, channels, num_layers, kernel, first_kernel, hidden, dropout, max_shift)
        self.save_hyperparameters()
        self.num_classes = num_classes
        self.classes = nn.Embedding(num_classes, num_layers * 2 * 2 * channels)
        nn.init.zeros_(self.classes.weight)

    def vectors(self, labels: Labels, num: int) -> tuple[Tensor, ...]:
        """The vectors A_y and B_y of both stacks' gates, one tensor [num, 2, 2 channels] for each layer."""
        labels = check_labels(self, labels, num).to(self.device)
        return self.classes(labels).unflatten(1, (len(self.layers), 2, -1)).unbind(1)

    def logits(  # type: ignore[override]
        self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None, labels: Labels = None
    ) -> Tensor:
        return super().logits(x, shifts, streams, self.vectors(labels, x.shape[0]))

    @faster(lines.log_prob)
    def log_prob(self, x: Tensor, labels: Labels = None) -> Tensor:
        return log_likelihood(self.logits(x, labels=labels), x).sum(-1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor, labels: Labels = None) -> Tensor:
        return pixel_by_pixel(partial(self.logits, labels=labels), uniforms)

    def draw(self, streams: Streams, labels: Labels = None) -> Tensor:
        return self._draw(rand((len(streams), *self.event_shape), streams, self.device), labels=labels)

    def fill(self, x: Tensor, known: Tensor, streams: Streams, labels: Labels = None) -> Tensor:
        if labels is None:
            log_weights = (self._by_class(x)[1] * known.flatten(1)).sum(-1)  # log p(known pixels | y), [K, B]
            limits = rand((len(streams), 1), streams, self.device)
            labels = (limits > log_weights.softmax(0).cumsum(0).T).sum(1).clamp(max=self.num_classes - 1)
        return self._draw(forced(rand(tuple(x.shape), streams, self.device), x, known), labels=labels)

    def expected(self, x: Tensor, order: Tensor | None = None, labels: Labels = None) -> Tensor:
        if labels is not None:
            return self.logits(x, labels=labels).sigmoid().view_as(x)
        logits, log_likelihoods = self._by_class(x)
        before = log_likelihoods.cumsum(-1) - log_likelihoods  # log p(the pixels before | y), [K, B, D]
        return (before.softmax(0) * logits.sigmoid()).sum(0).view_as(x)

    def _by_class(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and log-likelihoods of each pixel for each class: [B, 1, H, W] -> [K, B, D] and the same."""
        classes = torch.arange(self.num_classes, device=x.device)[:, None].expand(-1, len(x))
        logits = torch.stack([self.logits(x, labels=labels) for labels in classes])
        return logits, torch.stack([log_likelihood(each, x) for each in logits])
