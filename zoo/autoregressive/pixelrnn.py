"""PixelRNN as Row LSTM and as Diagonal BiLSTM (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759), binary.

    log p(x) = sum over pixels of log p(x_i | x_1, ..., x_i-1)                                                (eq. 1)
    [o, f, i, g] = sigmoid (for g: tanh) of K_ss * h_before + K_is * x
    c = f c_before + i g,    h = o tanh(c)                                                                    (eq. 3)

An LSTM steps over lines. In a Row LSTM these are rows, and K_ss is a convolution along the row above. In a Diagonal
BiLSTM they are both kinds of diagonals, and K_ss reaches the pixels beside and above. A pixel of a Row LSTM sees a
triangle: in the row above as far right as the first convolution reaches, and one pixel further with each row up.

Skewing moves each row one pixel further right than the row above, which turns the diagonals into columns. States from
the right are moved down by one row, so that no pixel sees a later one. A pixel sees the last pixel of the row above
only if the first convolution reaches that far.

Density: exact, one pass with a step for each row or diagonal.
Sampling: exact, one pixel at a time. The fast version computes each activation once, and the sums over the rows above
once per row.
Differs from the paper: a learned bias at each position; shifted images; dropout; clipped gradients; AdamW with a
warm-up and a cosine schedule; averaged weights.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import faster, fused, lines
from zoo.autoregressive.fast import pixelrnn as fast
from zoo.autoregressive.raster import MaskedConv2d, RasterOrder, check_odd_and_grey, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import PositionBias, Regularized, dropout, regularized_log_prob, take_teachers
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.random import Streams


@faster(fused.lstm)
def _lstm(inputs: Tensor, weight: Tensor, before: int, after: int) -> Tensor:
    """Computes h of an LSTM that steps over lines.

    Args:
        inputs: Inputs of the gates from the pixels, [lines, D, B, places, 4C], with D LSTMs side by side.
        weight: Weights of h on the previous line: at `before` places before, at the place itself, and at `after` places
            after it, [D, (before + 1 + after) C, 4C].
        before: Number of places before, 0 or 1.
        after: Number of places after, 0 or 1.

    Returns:
        h, [lines, D, B, places, C].
    """
    h = c = torch.zeros_like(inputs[0, ..., : inputs.shape[-1] // 4])
    states = []
    for line in inputs.unbind():
        near = _windows(h, before, after)
        sums = torch.baddbmm(line.flatten(1, 2), near.flatten(1, 2), weight)
        h, c = _cell(sums.unflatten(1, h.shape[1:3]), c)
        states.append(h)
    return torch.stack(states)


def _cell(sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c of an LSTM, [..., C], given the sums in its gates, [..., 4C], and the previous c."""
    channels = c.shape[-1]
    gates, g = sums.split([3 * channels, channels], -1)
    o, f, i = gates.sigmoid().chunk(3, -1)
    c = torch.addcmul(f * c, i, g.tanh())
    return o * c.tanh(), c


def _windows(h: Tensor, before: int, after: int) -> Tensor:
    """Joins h, [..., places, C], of each place and its neighbours, zero beyond the ends: [..., places, windows C]."""
    moved = (F.pad(h, (0, 0, places, -places)) if places else h for places in range(before, -after - 1, -1))
    return torch.cat(list(moved), -1)


def _skew(x: Tensor) -> Tensor:
    """Moves row r right by r places: [..., H, W, C] -> [..., H, W + H - 1, C], with zeros elsewhere."""
    *_, height, width, _ = x.shape
    flat = F.pad(x, (0, 0, 0, height)).flatten(-3, -2)
    return flat[..., :-height, :].unflatten(-2, (height, width + height - 1))


def _unskew(x: Tensor) -> Tensor:
    """The inverse of `_skew`."""
    *_, height, length, _ = x.shape
    flat = F.pad(x.flatten(-3, -2), (0, 0, 0, height))
    return flat.unflatten(-2, (height, length + 1))[..., : length + 1 - height, :]


class Layer(nn.Module):
    """A residual layer of LSTMs: maps [B, 2C, H, W] -> maps of the same shape."""

    def __init__(self, channels: int, taps: int, directions: int, windows: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(2 * channels, directions * 4 * channels, (1, taps))  # K_is; masked to the left
        self.state = nn.Parameter(torch.empty(directions, windows * channels, 4 * channels))  # K_ss
        nn.init.uniform_(self.state, -((windows * channels) ** -0.5), (windows * channels) ** -0.5)
        self.out = nn.Conv2d(channels, 2 * channels, 1)

    @abstractmethod
    def states(self, gates: Tensor) -> Tensor:
        """h, [B, H, W, C], given the inputs of the gates from the pixels, [B, H, W, 4C in each direction]."""

    def forward(self, x: Tensor, rate: float, streams: Streams | None) -> Tensor:
        taps = self.input.kernel_size[1]
        h = self.states(self.input(F.pad(x, (taps - 1, 0))).permute(0, 2, 3, 1))
        return x + self.out(dropout(h.permute(0, 3, 1, 2), rate, streams))


class RowLSTM(Layer):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, taps=2, directions=1, windows=3)

    def states(self, gates: Tensor) -> Tensor:
        return _lstm(gates.transpose(0, 1)[:, None], self.state, 1, 1)[:, 0].transpose(0, 1)


class DiagonalBiLSTM(Layer):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, taps=1, directions=2, windows=2)

    def states(self, gates: Tensor) -> Tensor:
        from_left, from_right = gates.chunk(2, -1)
        skewed = _skew(torch.stack([from_left, from_right.flip(2)]))  # [2, B, H, W + H - 1, 4C]
        h = _lstm(skewed.movedim(3, 0), self.state, 1, 0)  # the place before is the pixel above
        from_left, from_right = _unskew(h.movedim(0, 3)).unbind()
        return from_left + F.pad(from_right.flip(2), (0, 0, 0, 0, 1, -1))


class PixelRNN(RasterOrder):
    """Residual layers of LSTMs that step over rows or over diagonals.

    Args:
        event_shape: Shape of one example, (1, H, W); values in {0, 1}.
        layer: Kind of layer, `row-lstm` or `diagonal-bilstm`.
        channels: h in the paper; maps between the layers have twice as many channels.
        num_layers: Number of residual layers.
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
        layer: Literal["row-lstm", "diagonal-bilstm"] = "row-lstm",
        channels: Size = 16,
        num_layers: Annotated[int, Between(1, 1000)] = 7,
        first_kernel: Annotated[int, Between(3, 99)] = 7,
        hidden: Size = 32,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_odd_and_grey("PixelRNN", event_shape[0], first_kernel)
        _, height, width = self.event_shape = tuple(event_shape)
        self.dropout, self.max_shift = dropout, max_shift
        kind = {"row-lstm": RowLSTM, "diagonal-bilstm": DiagonalBiLSTM}[layer]
        self.first = MaskedConv2d(1, 2 * channels, first_kernel, "A")
        self.position = PositionBias(2 * channels, height, width, max_shift)
        self.layers = nn.ModuleList(kind(channels) for _ in range(num_layers))
        self.hidden = nn.Conv2d(2 * channels, hidden, 1)
        self.output = nn.Conv2d(hidden, 1, 1)

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        maps = (self.first(x) + self.position(shifts)).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            maps = layer(maps, self.dropout, streams)
        return self.output(self.hidden(maps.relu()).relu()).flatten(1)

    @faster(lines.log_prob)
    def log_prob(self, x: Tensor) -> Tensor:
        return log_likelihood(self.logits(x), x).sum(-1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor) -> Tensor:
        return pixel_by_pixel(self.logits, uniforms)
