"""PixelRNN pixel by pixel, with each activation computed once; see `zoo.autoregressive.fast.lines`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.autoregressive.fast.lines import MaskedLine, draw, product, with_bias

if TYPE_CHECKING:
    from zoo.autoregressive.pixelrnn import Layer, PixelRNN


def from_uniforms(model: PixelRNN, uniforms: Tensor) -> Tensor:
    line = {"row-lstm": _Row, "diagonal-bilstm": _BothWays}[model.hparams["layer"]]
    return draw(model, line(model, len(uniforms)), uniforms)


def _slices(total: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """Arguments of `_cell_`: slices of the sums in the gates, [..., 4C], then c and h unchanged, [..., C]."""
    return total[..., : -c.shape[-1]], *total.chunk(4, -1), c, h


def _cell_(gates: Tensor, o: Tensor, f: Tensor, i: Tensor, g: Tensor, c: Tensor, h: Tensor) -> None:
    """One LSTM step, in place, on slices that were made once: `gates` holds o, f and i; c is updated."""
    gates.sigmoid_()
    g.tanh_()
    c.mul_(f).addcmul_(i, g)
    torch.mul(o, torch.tanh(c, out=g), out=h)


class _Line(MaskedLine):
    """A row of the layers.

    Attributes:
        inputs: K_is by taps, [L, taps, 2C, 4C in each direction].
        state: K_ss, [directions, L, windows C, 4C].
    """

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model)
        self.layers = cast("list[Layer]", list(model.layers))
        self.channels, width = self.layers[0].out.in_channels, model.event_shape[2]
        self.inputs = torch.stack([layer.input.weight[:, :, 0].permute(2, 1, 0) for layer in self.layers])
        self.bias = torch.stack([cast(Tensor, layer.input.bias) for layer in self.layers])[:, None]
        self.state = torch.stack([layer.state for layer in self.layers], 1)
        self.sums = self.left.new_empty(width, len(self.layers), batch, 4 * self.channels)
        self.last = self.left.new_ones(batch, 1 + 2 * self.channels)
        self.active = self.last[:, 1:]

    def zeros(self, places: int, channels: int) -> Tensor:
        """Memory for all layers, [L, B, places, channels]."""
        return self.left.new_zeros(len(self.layers), len(self.last), places, channels)

    def remember(self, seen: Tensor, taps: Tensor, c: Tensor, h: Tensor, outputs: Tensor, maps: Tensor) -> None:
        """Slices the memory of shape [L, B, W, ...] for each pixel.

        Args:
            seen: Inputs that the gates multiply by `taps`.
            taps: Weights of the gates, [L, in, 4C].
            c: Memory of the cells, updated in place.
            h: Outputs of the cells.
            outputs: A one, then h from each direction.
            maps: Inputs of the layers.
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
    """A row of a Row LSTM: the row above is the previous step, and the convolution sees the pixel to the left."""

    def __init__(self, model: PixelRNN, batch: int) -> None:
        super().__init__(model, batch)
        width, channels = model.event_shape[2], self.channels
        c, maps = self.zeros(width, channels), self.zeros(1 + width, 2 * channels)
        memory = self.zeros(1 + width + 1, 1 + channels)  # [1, h] at each place, with zeros around
        outputs = memory[:, :, 1:-1]
        outputs[..., 0] = 1
        self.near = memory.flatten(2).unfold(2, 3 * (1 + channels), 1 + channels)  # [L, B, W, 3 (1 + C)]
        taps = self.state[0].unflatten(1, (3, channels))  # with zeros for the ones
        self.taps = F.pad(taps, (0, 0, 1, 0)).flatten(1, 2)
        seen = maps.flatten(2).unfold(2, 4 * channels, 2 * channels)  # the map of the pixel to the left, then its own
        self.remember(seen, self.inputs.flatten(1, 2), c=c, h=outputs[..., 1:], outputs=outputs, maps=maps[:, :, 1:])

    def above(self) -> Tensor:
        return product(self.near, self.taps, self.bias)


class _BothWays(_Line):
    """A row of a Diagonal BiLSTM: from the left pixel by pixel, and from the right the whole row above at once.

    The memory has [1, right, h, map] at each place. There, `right` (h from the right in the row above) and `h` (from
    the left) belong to the pixel to the left, whose output takes [1, right, h]; `map` belongs to the pixel itself,
    whose gates take [h, map].

    Attributes:
        right: Part of the memory, [L, B, 1 + W, C].
        h: Part of the memory, [L, B, 1 + W, C].
        maps: Part of the memory, [L, B, 1 + W, 2C].
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
        states = self.left.new_zeros(1 + width, *self.right_c.shape)  # h from the right, with zeros last
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
        """Computes h from the right in the row that was drawn last, given h from the right in the row above it."""
        maps, above = self.maps[:, :, :-1], self.right[:, :, 1:]
        gates = product(torch.cat([above, maps], -1), self.right_weights, self.right_bias)
        self.gates.copy_(gates.permute(2, 0, 1, 3))
        self.right_c.zero_()
        for total, before, cell in self.steps:
            total.baddbmm_(before, self.right_beside)
            _cell_(*cell)
        above.copy_(self.states.permute(1, 2, 0, 3))
