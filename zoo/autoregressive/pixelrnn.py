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

from abc import abstractmethod
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.lines import Line
from zoo.autoregressive.stack import Stack, StackLine, product
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.nn.affine import with_bias
from zoo.nn.dropout import dropout
from zoo.nn.fused import is_fused
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
    if inputs.shape[3] <= 32 and is_fused(inputs, inputs.shape[-1] // 4, 32):
        from zoo.nn.scans import lstm

        return lstm(inputs, weight, before, after)
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


def _slices(total: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """What `_cell_` takes of the sums in the gates, [..., 4C]; c and h, [..., C], as they are."""
    return total[..., : -c.shape[-1]], *total.chunk(4, -1), c, h


def _cell_(gates: Tensor, o: Tensor, f: Tensor, i: Tensor, g: Tensor, c: Tensor, h: Tensor) -> None:
    """`_cell` in place, of slices made once: gates are o, f and i; c is that before, too."""
    gates.sigmoid_()
    g.tanh_()
    c.mul_(f).addcmul_(i, g)
    torch.mul(o, torch.tanh(c, out=g), out=h)


class _Line(StackLine):
    """A row of the layers.

    Attributes:
        inputs: K_is, by taps, [L, taps, 2C, 4C in each direction].
        state: K_ss, [directions, L, windows C, 4C].
    """

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model)
        self.layers = cast(list[_Layer], list(model.layers))
        self.channels, width = self.layers[0].out.in_channels, model.event_shape[2]
        self.inputs = torch.stack([layer.input.weight[:, :, 0].permute(2, 1, 0) for layer in self.layers])
        self.bias = torch.stack([cast(Tensor, layer.input.bias) for layer in self.layers])[:, None]
        self.state = torch.stack([layer.state for layer in self.layers], 1)
        self.sums = self.left.new_empty(width, len(self.layers), batch, 4 * self.channels)
        self.last = self.left.new_ones(batch, 1 + 2 * self.channels)
        self.active = self.last[:, 1:]

    def zeros(self, places: int, channels: int) -> Tensor:
        """Memory of all layers, [L, B, places, channels]."""
        return self.left.new_zeros(len(self.layers), len(self.last), places, channels)

    def remember(self, seen: Tensor, taps: Tensor, c: Tensor, h: Tensor, outputs: Tensor, maps: Tensor) -> None:
        """Makes the slices of memory, which has [L, B, W, ...].

        Args:
            seen: what `taps` [L, in, 4C] multiplies for the gates.
            c, h: of the cells; those before, too.
            outputs: one, and h from each direction.
            maps: inputs of the layers.
        """
        self.start, self.columns = maps[0], []
        outs = [torch.cat([out, *[out[1:]] * (len(self.state) - 1)]) for out in (with_bias(y.out) for y in self.layers)]
        for column, totals in enumerate(self.sums):
            *of_cells, sees, gives, x = (y[:, :, column].unbind() for y in (c, h, seen, outputs, maps))
            cells = map(_slices, totals, *of_cells)
            following = [*x[1:], self.active]
            self.columns.append(list(zip(totals, sees, taps, cells, x, gives, outs, following, strict=True)))

    def step(self, column: int) -> Tensor:
        for total, seen, taps, cell, x, outputs, out, following in self.columns[column]:
            total.addmm_(seen, taps)
            _cell_(*cell)
            torch.addmm(x, outputs, out, out=following)
        self.active.relu_()
        return self.last


class _Row(_Line):
    """Of a Row LSTM: the row before is the step before, and the input of the pixel left is in the convolution."""

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model, batch)
        width, channels = model.event_shape[2], self.channels
        c, maps = self.zeros(width, channels), self.zeros(1 + width, 2 * channels)
        memory = self.zeros(1 + width + 1, 1 + channels)  # [1, h] at each place, with zeros around
        outputs = memory[:, :, 1:-1]
        outputs[..., 0] = 1
        self.near = memory.flatten(2).unfold(2, 3 * (1 + channels), 1 + channels)  # [L, B, W, 3 (1 + C)]
        taps = self.state[0].unflatten(1, (3, channels))  # none for the ones
        self.taps = F.pad(taps, (0, 0, 1, 0)).flatten(1, 2)
        seen = maps.flatten(2).unfold(2, 4 * channels, 2 * channels)  # the map of the pixel left, zero at first, and x
        self.remember(seen, self.inputs.flatten(1, 2), c=c, h=outputs[..., 1:], outputs=outputs, maps=maps[:, :, 1:])

    def above(self) -> Tensor:
        return product(self.near, self.taps, self.bias)


class _BothWays(_Line):
    """Of a Diagonal BiLSTM: from the left step by step, and from the right the whole row before at once.

    Attributes:
        right, h, maps: [L, B, 1 + W, ...], parts of a memory that has [1, right, h, map] at each place, of which right
            (h from the right in the row before) and h from the left are those of the pixel left, whose output takes
            [1, right, h]. The gates of the pixel itself take [h, map].
    """

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model, batch)
        width, channels = model.event_shape[2], self.channels
        self.bias, self.right_bias = self.bias.chunk(2, -1)
        own, right_own = self.inputs[:, 0].chunk(2, -1)
        (self.from_above, beside), (right_above, self.right_beside) = (x.split(channels, 1) for x in self.state)
        self.right_weights = torch.cat([right_above, right_own], 1)
        memory, self.c = self.zeros(1 + width, 1 + 4 * channels), self.zeros(1, channels)
        memory[..., 0] = 1
        _, self.right, self.h, self.maps = memory.split([1, channels, channels, 2 * channels], -1)
        self.remember(
            seen=memory[:, :, :-1, 1 + channels :],
            taps=torch.cat([beside, own], 1),
            c=self.c.expand(-1, -1, width, -1),
            h=self.h[:, :, 1:],
            outputs=memory[:, :, 1:, : 1 + 2 * channels],
            maps=self.maps[:, :, :-1],
        )
        self.gates, self.right_c = torch.empty_like(self.sums), torch.empty_like(self.sums[0, ..., :channels])
        states = self.left.new_zeros(1 + width, *self.right_c.shape)  # h from the right, zeros last
        self.states = states[:-1]
        self.steps = [
            (total, before, _slices(total, self.right_c, h))
            for total, h, before in zip(self.gates, self.states, states[1:], strict=True)
        ][::-1]
        self.rows = 0

    def above(self) -> Tensor:
        if self.rows:
            self._from_right()
        self.rows += 1
        self.c.zero_()
        return product(self.h[:, :, 1:], self.from_above, self.bias)

    def _from_right(self) -> None:
        """h from the right in the row before, given that in the row above it."""
        maps, above = self.maps[:, :, :-1], self.right[:, :, 1:]
        gates = product(torch.cat([above, maps], -1), self.right_weights, self.right_bias)
        self.gates.copy_(gates.permute(2, 0, 1, 3))
        self.right_c.zero_()
        for total, before, cell in self.steps:
            total.baddbmm_(before, self.right_beside)
            _cell_(*cell)
        above.copy_(self.states.permute(1, 2, 0, 3))
