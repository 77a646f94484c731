"""What autoregressive models in raster order have that is theirs alone: steps, masks, blind spots, forcing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
from zoo.autoregressive.pixelcnn import PixelCNN
from zoo.autoregressive.pixelrnn import PixelRNN
from zoo.autoregressive.raster import RasterOrder, log_likelihood
from zoo.autoregressive.rnn import RNN
from zoo.errors import ConfigError
from zoo.nn.masked_conv import MaskedConv2d
from zoo.random import Streams

SHAPE = [1, 7, 9]


def images(num: int, seed: int = 0) -> Tensor:
    return (torch.rand(num, *SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


# ------------------------------------------------------------------------------------------------- what a pixel sees


@pytest.mark.parametrize("mask", ["A", "B"])
def test_masked_convolutions_are_convolutions_with_zeros_in_the_kernel(mask: str) -> None:
    torch.manual_seed(0)
    conv, x = MaskedConv2d(2, 3, 5, mask), torch.randn(4, 2, 6, 7)  # type: ignore[arg-type]
    kernel = torch.zeros(3, 2, 25)
    own = 12 + (mask == "B")  # the middle one of 25 taps in raster order is the pixel
    kernel[..., :own] = conv.weight.detach().flatten(2)[..., :own]
    torch.testing.assert_close(conv(x), F.conv2d(x, kernel.view(3, 2, 5, 5), conv.bias, padding=2))
    assert conv.above().shape == (3, 2, 2, 5) and conv.left().shape == (3, 2, own - 10)


def triangle(slope: int) -> Callable[[int, int, int, int], bool]:
    """Of pixel (r, c): what is left in its row, and `slope` more pixels to the right with each row up."""

    def sees(r: int, c: int, row: int, column: int) -> bool:
        return everything(r, c, row, column) and column - c <= slope * (r - row)

    return sees


def from_both_sides(r: int, c: int, row: int, column: int) -> bool:
    """Of a Diagonal BiLSTM: the last pixel of the row above only as far left as the first convolution reaches."""
    is_hidden = row == r - 1 and column == SHAPE[2] - 1 and c < column - 3
    return everything(r, c, row, column) and not is_hidden


def everything(r: int, c: int, row: int, column: int) -> bool:
    return (row, column) < (r, c)


@pytest.mark.parametrize(
    ("model", "sees"),
    [
        (lambda: PixelCNN(SHAPE, channels=8, num_layers=8, first_kernel=3), triangle(1)),
        (lambda: PixelRNN(SHAPE, "row-lstm", channels=8, num_layers=8, first_kernel=3), triangle(1)),
        (lambda: GatedPixelCNN(SHAPE, channels=6, num_layers=8), everything),
        (lambda: PixelRNN(SHAPE, "diagonal-bilstm", channels=8, num_layers=1), from_both_sides),
        (lambda: RNN(SHAPE, hidden=8, num_layers=1), everything),
    ],
    ids=["pixelcnn", "row-lstm", "gated-pixelcnn", "diagonal-bilstm", "rnn"],
)
def test_what_a_pixel_sees(model: Callable[[], RasterOrder], sees: Callable[[int, int, int, int], bool]) -> None:
    """PixelCNN has its blind spot, and the others have none."""
    torch.manual_seed(0)
    _, height, width = SHAPE
    network = model().double()
    for r, c in ((height - 1, 1), (height // 2, width // 2)):
        x = images(8).double().requires_grad_()
        network.logits(x)[:, r * width + c].sum().backward()
        seen = (x.grad.abs().sum((0, 1)) > 0).tolist()  # type: ignore[union-attr]
        for row in range(height):
            for column in range(width):
                assert seen[row][column] == sees(r, c, row, column), (r, c, row, column)


# ----------------------------------------------------------------------------------------------------------- PixelRNN


@pytest.mark.parametrize("kind", ["row-lstm", "diagonal-bilstm"])
def test_lines_step_as_an_lstm_does_pixel_by_pixel(kind: str) -> None:
    """A layer against recursions over single pixels through torch's own cell."""
    torch.manual_seed(0)
    channels, (_, height, width) = 3, SHAPE
    layer = PixelRNN(SHAPE, kind, channels=channels, num_layers=1).layers[0].double()  # type: ignore[arg-type]
    gates = torch.randn(2, height, width, layer.input.out_channels, dtype=torch.float64)  # type: ignore[union-attr]
    # ours are o, f, i, g; torch's are i, f, g, o
    order = torch.arange(4 * channels).view(4, channels)[[2, 1, 3, 0]].flatten()
    expected = torch.zeros(2, height, width, channels, dtype=torch.float64)
    for direction, part in enumerate(gates.split(4 * channels, -1)):
        state = layer.state[direction]  # type: ignore[index]
        cell = nn.LSTMCell(4 * channels, channels, bias=False).double()
        with torch.no_grad():
            cell.weight_ih.copy_(torch.eye(4 * channels)[order])
            cell.weight_hh.zero_()
        zero = torch.zeros(2, channels, dtype=torch.float64)
        h: dict[tuple[int, int], Tensor] = {}
        c: dict[tuple[int, int], Tensor] = {}
        for row in range(height):
            for step in range(width):
                column = width - 1 - step if direction else step
                beside = column + 1 if direction else column - 1
                if kind == "row-lstm":
                    near, before = [(row - 1, column + i) for i in (-1, 0, 1)], (row - 1, column)
                else:
                    near, before = [(row - 1, column), (row, beside)], (row, beside)
                sums = part[:, row, column] + torch.cat([h.get(place, zero) for place in near], 1) @ state
                h[row, column], c[row, column] = cell(sums, (zero, c.get(before, zero)))
                if row + direction < height:
                    expected[:, row + direction, column] += h[row, column]
    torch.testing.assert_close(layer.states(gates), expected)  # type: ignore[operator]


@pytest.mark.parametrize("model", [PixelCNN, PixelRNN])
def test_kernels_are_odd(model: type[PixelCNN] | type[PixelRNN]) -> None:
    with pytest.raises(ConfigError, match="odd kernel"):
        model(first_kernel=4)


# ---------------------------------------------------------------------------------------------------------------- RNN


def rnn(forcing: str, **arguments: float) -> RNN:
    torch.manual_seed(0)
    return RNN(SHAPE, hidden=6, num_layers=2, window=3, forcing=forcing, **arguments)  # type: ignore[arg-type]


def test_scheduled_sampling_puts_draws_in_place_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = rnn("scheduled", sampled=0.4, ramp=100), images(400)
    streams = [Streams(0, range(len(x))) for _ in range(4)]
    assert torch.equal(model.training_log_prob(x, streams[0]), model.log_prob(x))  # at the first step there are none
    monkeypatch.setattr(RNN, "global_step", 50)
    mixed = model._mixed(x, streams[1])
    # half of the draws, which are as likely 1 as 0 and so are the pixels, differ
    assert (mixed != x).double().mean().item() == pytest.approx(0.2 / 2, abs=0.01)
    expected = log_likelihood(model.logits(mixed), x).sum(-1)
    torch.testing.assert_close(model.training_log_prob(x, streams[2]), expected)
    monkeypatch.setattr(RNN, "global_step", 10_000)
    assert (model._mixed(x, streams[3]) != x).double().mean().item() == pytest.approx(0.4 / 2, abs=0.01)


def test_professor_forcing_trains_both_sides_by_their_own_losses() -> None:
    model, x = rnn("professor", weight=0.7), images(5)
    streams = Streams(3, range(5))
    free = model.draw(Streams(3, range(5)))
    (-model.training_log_prob(x, streams).mean()).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()

    def judged(images: Tensor) -> Tensor:
        h, logits = model.behaviour(images)
        return model.discriminator(torch.cat([h, logits.sigmoid()[..., None]], -1)).sigmoid()

    critic = -(judged(x).log() + (1 - judged(free)).log()).mean()
    own = -(model.log_prob(x) + 0.7 * judged(free).log()).mean()
    for name, parameter in model.named_parameters():
        loss = critic if name.startswith("discriminator") else own
        (expected,) = torch.autograd.grad(loss, parameter, retain_graph=True)
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)
    assert math.isfinite(model.log_prob(x).sum().item())
