"""PixelRNN as Row LSTM and as Diagonal BiLSTM (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759), binary.

    log p(x) = sum over pixels of log p(x_i given x_1, ..., x_i-1)                                            (eq. 1)
    [o, f, i, g] = sigmoid or, for g, tanh of K_ss * h_before + K_is * x
    c = f c_before + i g,    h = o tanh(c)                                                                    (eq. 3)

An LSTM steps over lines: over rows, K_ss a convolution along the row above (Row LSTM), or over both kinds of diagonals,
K_ss reaching the pixels beside and above (Diagonal BiLSTM). A pixel of a Row LSTM sees a triangle: in the row above as
far right as the first convolution reaches, and one pixel further with each row up.

Skewing, each row one pixel further right than that above, makes the diagonals columns. What comes from the right is
moved down by a row, so that no pixel sees a later one (and the last pixel of the row above is seen only as far left as
the first convolution reaches).

Density: exact, one pass: a step per row or diagonal.
Sampling: exact; each activation is computed once, the sums over the rows above once a row.
Differs from the paper: a learned bias at each position; images shifted in training, with the shift as an input (Jun et
al. 2020); dropout; Adam with averaged weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.stack import Line, Stack
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.nn.dropout import dropout
from zoo.random import Streams


def _cell(sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c of an LSTM, [..., C], from the sums in its gates, [..., 4C]."""
    channels = c.shape[-1]
    gates, g = sums.split([3 * channels, channels], -1)
    o, f, i = gates.sigmoid().chunk(3, -1)
    c = torch.addcmul(f * c, i, g.tanh())
    return o * c.tanh(), c


def _lstm(inputs: Tensor, weight: Tensor, before: int, after: int) -> Tensor:
    """h of an LSTM that steps over lines.

    Args:
        inputs: what each gate gets from the pixels, [lines, D, B, places, 4C], with D LSTMs side by side.
        weight: from h on the line before, at `before` places before, at the place itself, and at `after` places after
            it, [D, (before + 1 + after) C, 4C].

    Returns:
        [lines, D, B, places, C].
    """
    h = c = torch.zeros_like(inputs[0, ..., : inputs.shape[-1] // 4])
    states = []
    for line in inputs.unbind():
        near = _windows(h, before, after)
        sums = torch.baddbmm(line.flatten(1, 2), near.flatten(1, 2), weight)
        h, c = _cell(sums.unflatten(1, h.shape[1:3]), c)
        states.append(h)
    return torch.stack(states)


def _windows(h: Tensor, before: int, after: int) -> Tensor:
    """h [..., places, C] of each place and its neighbours, zeros beyond the ends: [..., places, windows C]."""
    moved = (F.pad(h, (0, 0, places, -places)) if places else h for places in range(before, -after - 1, -1))
    return torch.cat(list(moved), -1)


def _skew(x: Tensor) -> Tensor:
    """Row r moved right by r places: [..., H, W, C] -> [..., H, W + H - 1, C], zeros where nothing is."""
    *_, height, width, _ = x.shape
    flat = F.pad(x, (0, 0, 0, height)).flatten(-3, -2)
    return flat[..., :-height, :].unflatten(-2, (height, width + height - 1))


def _unskew(x: Tensor) -> Tensor:
    """The inverse of `_skew`."""
    *_, height, length, _ = x.shape
    flat = F.pad(x.flatten(-3, -2), (0, 0, 0, height))
    return flat.unflatten(-2, (height, length + 1))[..., : length + 1 - height, :]


class _Layer(nn.Module):
    """A residual layer of LSTMs: maps [B, 2C, H, W] -> the same."""

    def __init__(self, channels: int, taps: int, directions: int, windows: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(2 * channels, directions * 4 * channels, (1, taps))  # K_is; its mask hides what is right
        self.state = nn.Parameter(torch.empty(directions, windows * channels, 4 * channels))  # K_ss
        nn.init.uniform_(self.state, -((windows * channels) ** -0.5), (windows * channels) ** -0.5)
        self.out = nn.Conv2d(channels, 2 * channels, 1)

    @abstractmethod
    def states(self, gates: Tensor) -> Tensor:
        """What the gates get from the pixels -> h: [B, H, W, 4C in each direction] -> [B, H, W, C]."""

    def forward(self, x: Tensor, rate: float, streams: Streams | None) -> Tensor:
        taps = self.input.kernel_size[1]
        h = self.states(self.input(F.pad(x, (taps - 1, 0))).permute(0, 2, 3, 1))
        return x + self.out(dropout(h.permute(0, 3, 1, 2), rate, streams))


class _RowLSTM(_Layer):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, taps=2, directions=1, windows=3)

    def states(self, gates: Tensor) -> Tensor:
        return _lstm(gates.transpose(0, 1)[:, None], self.state, 1, 1)[:, 0].transpose(0, 1)


class _DiagonalBiLSTM(_Layer):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, taps=1, directions=2, windows=2)

    def states(self, gates: Tensor) -> Tensor:
        from_left, from_right = gates.chunk(2, -1)
        skewed = _skew(torch.stack([from_left, from_right.flip(2)]))  # [2, B, H, W + H - 1, 4C]
        h = _lstm(skewed.movedim(3, 0), self.state, 1, 0)  # the place before is the pixel above
        from_left, from_right = _unskew(h.movedim(0, 3)).unbind()
        return from_left + F.pad(from_right.flip(2), (0, 0, 0, 0, 1, -1))


class PixelRNN(Stack):
    """Residual layers of LSTMs that step over rows or over diagonals.

    Args:
        event_shape: (1, H, W); values in {0, 1}.
        layer: `row-lstm` or `diagonal-bilstm`.
        channels: h of the paper; maps between the layers have twice as many.
        num_layers: residual layers.
        first_kernel: size of the first convolution, odd.
        hidden: units of the layer before the logits.
        dropout: fraction of a layer's outputs that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

    def __init__(
        self,
        event_shape: ImageShape = [1, 28, 28],  # noqa: B006
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
        kind, self.line = {"row-lstm": (_RowLSTM, _Row), "diagonal-bilstm": (_DiagonalBiLSTM, _BothWays)}[layer]
        self.assemble(
            event_shape,
            (kind(channels) for _ in range(num_layers)),
            channels=2 * channels,
            first_kernel=first_kernel,
            hidden=hidden,
            dropout=dropout,
            max_shift=max_shift,
        )

    def begin(self, batch: int) -> Line:
        return self.line(self, batch)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """A layer at a time: [L, B, W, in] and [L, in, out] -> [L, B, W, out]."""
    return torch.bmm(x.flatten(1, 2), weight).unflatten(1, x.shape[1:3])


class _Cell:
    """An LSTM cell in fixed memory, as `_cell`: what is small takes as long to allocate or slice as to compute.

    Attributes:
        total: the sums in the gates, [..., 4C], written to before each call.
    """

    def __init__(self, total: Tensor) -> None:
        self.total = total
        self.o, self.f, self.i, self.g = total.chunk(4, -1)
        self.sigmoids, self.squashed = total[..., : 3 * self.g.shape[-1]], torch.empty_like(self.g)

    def __call__(self, before: Tensor, c: Tensor, h: Tensor) -> None:
        """Writes c and h, given the cells before (which may be c): [..., C] each."""
        self.sigmoids.sigmoid_()
        self.g.tanh_()
        torch.mul(self.f, before, out=c).addcmul_(self.i, self.g)
        torch.mul(self.o, torch.tanh(c, out=self.squashed), out=h)


class _Line(ABC):
    """A row of a model, a pixel at a time, with all layers side by side where that can be.

    All is written where it is read, into memory whose slices are made once. Layer i works with maps that are short of
    what the outputs of the layers before it get from biases and the rows before: `less`, which is added to the sums in
    the gates, once a row.

    Attributes:
        maps: inputs of the layers and of the logits, so shortened: [1 + W, L + 1, B, 2C], the first of zeros.
        h, c: states and cells, [1 + W, L, B, C], the first of zeros. Until they are written, of the row before.
        less: [L + 1, B, W, 2C].
        beside: weights from what is left of a pixel, [L, 2C or C, 4C].
    """

    beside: Tensor

    def __init__(self, model: PixelRNN, batch: int) -> None:
        layers = cast(list[_Layer], list(model.layers))
        depth, channels, width = len(layers), layers[0].out.in_channels, model.event_shape[2]
        self.left = model.first.left()[:, 0].T.contiguous()  # [taps, 2C]
        self.inputs = torch.stack([layer.input.weight[:, :, 0].permute(2, 1, 0) for layer in layers])  # K_is, by taps
        self.own = self.inputs[:, -1, :, : 4 * channels].contiguous()  # K_is at the pixel, [L, 2C, 4C]
        self.out = torch.stack([layer.out.weight[:, :, 0, 0].T for layer in layers])  # [L, C, 2C]
        self.bias = torch.stack([cast(Tensor, layer.input.bias) for layer in layers])[:, None, None]
        self.out_bias = torch.stack([cast(Tensor, layer.out.bias) for layer in layers])[:, None, None]
        self.state = torch.stack([layer.state for layer in layers], 1)  # [directions, L, windows C, 4C]
        self.inner, self.output = (
            (cast(Tensor, layer.bias), layer.weight[:, :, 0, 0].T) for layer in (model.hidden, model.output)
        )
        self.pixels = self.left.new_zeros(batch, len(self.left) + width)
        self.maps = self.left.new_zeros(1 + width, depth + 1, batch, 2 * channels)
        self.h, self.c = self.left.new_zeros(2, 1 + width, depth, batch, channels)
        self.less = self.left.new_zeros(depth + 1, batch, width, 2 * channels)
        self.totals = self.left.new_empty(depth, batch, 4 * channels)

    def remember(self, seen: list[tuple[Tensor, Tensor]]) -> None:
        """Makes the slices, given what `beside` multiplies and the cells before, of each column, [L, B, ...]."""
        self.layers = [
            (_Cell(total), *weights) for total, *weights in zip(self.totals, self.own, self.out, strict=True)
        ]
        reach, after = len(self.left), slice(1, None)
        self.columns = [
            (
                self.pixels[:, column : column + reach],
                left,
                list(zip(maps, maps[1:], cells, c, h, strict=False)),
                self.pixels[:, column + reach, None],
            )
            for column, ((left, cells), *rest) in enumerate(
                zip(seen, self.maps[after], self.c[after], self.h[after], strict=True)
            )
            for maps, c, h in [[x.unbind() for x in rest]]
        ]

    @abstractmethod
    def above(self) -> tuple[Tensor, Tensor]:
        """What the gates, and what the outputs of the layers, get from the rows before, and biases.

        Returns:
            [L, B or 1, W, 4C] and [L, B or 1, W or 1, 2C].
        """

    def scan(self, thresholds: Tensor, start: Tensor) -> Tensor:
        """See `Line`."""
        sums, outputs = self.above()
        self.less[1:] = outputs.cumsum(0)
        sums = (sums + _product(self.less[:-1], self.own)).permute(2, 0, 1, 3).contiguous()
        rows = zip(
            self.columns,
            start.permute(2, 0, 1).contiguous(),
            sums,
            self.less[-1].unbind(1),
            thresholds.T[..., None],
            strict=True,
        )
        for (pixels, left, layers, pixel), first, above, less, threshold in rows:
            torch.addmm(first, pixels, self.left, out=layers[0][0])
            torch.baddbmm(above, left, self.beside, out=self.totals)
            for (x, following, before, c, h), (cell, own, out) in zip(layers, self.layers, strict=True):
                torch.addmm(cell.total, x, own, out=cell.total)
                cell(before, c, h)
                torch.addmm(x, h, out, out=following)
            inner = torch.addmm(self.inner[0], (following + less).relu_(), self.inner[1]).relu_()
            torch.gt(torch.addmm(self.output[0], inner, self.output[1]), threshold, out=pixel)
        return self.pixels[:, len(self.left) :]


def _row(x: Tensor) -> Tensor:
    """[W, L, B, C] -> [L, B, W, C]."""
    return x.permute(1, 2, 0, 3)


class _Row(_Line):
    """Of a Row LSTM: the row before is the step before, and the input of the pixel left is in the convolution."""

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model, batch)
        self.beside = self.inputs[:, 0]
        self.remember([(self.maps[i, :-1], self.c[i + 1]) for i in range(len(self.maps) - 1)])

    def above(self) -> tuple[Tensor, Tensor]:
        sums = self.bias + _product(_windows(_row(self.h[1:]), 1, 1), self.state[0])
        sums[:, :, 1:] += _product((self.out_bias.cumsum(0) - self.out_bias), self.beside)  # `less` of the pixel left
        return sums, self.out_bias


class _BothWays(_Line):
    """Of a Diagonal BiLSTM: from the left step by step, and from the right the whole row before at once."""

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model, batch)
        channels = self.h.shape[-1]
        (self.from_above, self.beside), (self.right_above, self.right_beside) = (
            weight.split(channels, 1) for weight in self.state
        )
        self.right_input = self.inputs[:, 0, :, 4 * channels :]
        self.bias, self.right_bias = self.bias.chunk(2, -1)
        self.remember([(self.h[i], self.c[i]) for i in range(len(self.h) - 1)])
        self.cell, self.right_c = _Cell(torch.empty_like(self.totals)), torch.empty_like(self.c[0])
        self.right = torch.zeros_like(self.h)  # h from the right in the row before, and zeros last
        self.steps = list(zip(self.right, self.right[1:], strict=False))[::-1]
        self.rows = 0

    def above(self) -> tuple[Tensor, Tensor]:
        if self.rows:
            self._from_right()
        self.rows += 1
        right = self.out_bias + _product(_row(self.right[:-1]), self.out)
        return self.bias + _product(_row(self.h[1:]), self.from_above), right

    def _from_right(self) -> None:
        """h from the right in the row before, given that in the row above it."""
        maps, above = _row(self.maps[1:])[:-1] + self.less[:-1], _row(self.right[:-1])
        gates = self.right_bias + _product(maps, self.right_input) + _product(above, self.right_above)
        self.right_c.zero_()
        for sums, (h, before) in zip(gates.permute(2, 0, 1, 3).contiguous().flip(0), self.steps, strict=True):
            torch.baddbmm(sums, before, self.right_beside, out=self.cell.total)
            self.cell(self.right_c, self.right_c, h)
