"""RNN over pixels, with teacher, scheduled and professor forcing.

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(b_d + v h_d),    h_d = GRU(h_d-1, x_d-1)

What the network gets as x_d-1 in training:
- teacher forcing (Williams & Zipser 1989, https://doi.org/10.1162/neco.1989.1.2.270): the pixel of the image;
- scheduled sampling (Bengio et al. 2015, https://arxiv.org/abs/1506.03099, section 2.4): with a probability that rises
  linearly to `sampled` over `ramp` steps, the model's own draw instead, through which no gradient goes;
- professor forcing (Lamb et al. 2016, https://arxiv.org/abs/1610.09038, eqs. 2 to 4): the pixel of the image, while a
  discriminator D learns to tell these states h and probabilities, together b(x), from those of free running, b(x'),
  where x' are draws of the model, and the model learns to make D wrong about the latter:

    C_d = -log D(b(x)) - log(1 - D(b(x'))) for D,    -log p(x) - weight log D(b(x')) for the model

Density: exact, one pass of D steps.
Sampling: exact; a step of the network a pixel.
Differs from the papers: one network for three ways to train it; a learned bias at each position, of the input and the
logits; more than the last pixel may come in; images shifted in training, with the shift as an input (Jun et al. 2020,
see `zoo.nn.shift`), of which draws in training are told too; dropout; both sides of professor forcing take their step
at once, each step; Adam with averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from zoo.autoregressive.raster import Augmented, forced, log_likelihood
from zoo.capabilities import ZooModule
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.dropout import dropout
from zoo.nn.fused import is_fused
from zoo.nn.shift import bias_of, shift, shift_biases
from zoo.progress import steps
from zoo.random import Streams, rand


class RNN(Augmented):
    """Gated recurrent units over pixels in raster order.

    Args:
        event_shape: (C, H, W); values in {0, 1}.
        hidden: units of a layer.
        num_layers: layers.
        window: how many of the last pixels the network gets at each step; 1 in the papers.
        forcing: `teacher`, `scheduled` or `professor`.
        sampled: largest probability with which scheduled sampling replaces a pixel.
        ramp: steps until then.
        weight: of the discriminator's term in professor forcing.
        dropout: fraction of a layer's outputs that each training image does without.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
    """

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        hidden: Size = 512,
        num_layers: Annotated[int, Between(1, 100)] = 3,
        window: Size = 1,
        forcing: Literal["teacher", "scheduled", "professor"] = "teacher",
        sampled: Fraction = 0.1,
        ramp: Annotated[int, Between(1, 1e9)] = 10_000,
        weight: Annotated[float, Between(0, 1000)] = 0.1,
        dropout: Fraction = 0.0,
        max_shift: Shift = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = math.prod(event_shape)
        self.window, self.forcing = window, forcing
        self.sampled, self.ramp, self.weight = sampled, ramp, weight
        self.dropout, self.max_shift = dropout, max_shift
        self.input = nn.Linear(window, hidden)
        self.position = nn.Parameter(torch.zeros(self.size, hidden))
        if max_shift:
            self.shift_biases = shift_biases(event_shape, max_shift, hidden)
        self.layers = nn.ModuleList(nn.GRU(hidden, hidden, batch_first=True) for _ in range(num_layers))
        self.output = nn.Linear(hidden, 1)
        self.bias = nn.Parameter(torch.zeros(self.size))
        if forcing == "professor":
            self.discriminator = _Discriminator(hidden + 1, self.event_shape)

    def behaviour(
        self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None
    ) -> tuple[Tensor, Tensor]:
        """States of the last layer [B, D, hidden] and logits [B, D], each given the pixels before; see `_logits`."""
        before = F.pad(x.flatten(1), (self.window, -1)).unfold(1, self.window, 1)  # [B, D, window]
        h = self.input(before) + self.position
        if shifts is not None:
            h = h + bias_of(shifts, self.shift_biases)[:, None]
        for layer in self.layers:
            h = dropout(_states(cast(nn.GRU, layer), h), self.dropout, streams)
        return h, self.output(h)[..., 0] + self.bias

    def _logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        return self.behaviour(x, shifts, streams)[1]

    def learn_from(self, teachers: Sequence[ZooModule]) -> None:
        if self.forcing != "teacher":
            raise ConfigError(f"teachers: expected an RNN of forcing teacher, found {self.forcing}; leave them out")
        super().learn_from(teachers)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """log p(x given its shift), with dropout; or what a forcing other than `teacher` puts in its place."""
        if self.forcing == "teacher":
            return super().training_log_prob(x, streams)
        x, shifts = shift(x, self.max_shift, streams)
        if self.forcing == "scheduled":
            return log_likelihood(self._logits(self._mixed(x, shifts, streams), shifts, streams), x).sum(-1)
        taught, logits = self.behaviour(x, shifts, streams)
        uniforms = rand((len(x), self.size), streams, x.device)
        drawn = self._scan(uniforms, partial(self.scan, shifts=shifts)).view_as(x)
        free, free_logits = self.behaviour(drawn, shifts, streams)
        real, fake = (torch.cat([h, o.sigmoid()[..., None]], -1) for h, o in ((taught, logits), (free, free_logits)))
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        fooled = F.logsigmoid(functional_call(self.discriminator, fixed, (fake,)))
        told = F.logsigmoid(self.discriminator(real.detach())) + F.logsigmoid(-self.discriminator(fake.detach()))
        return log_likelihood(logits, x).sum(-1) + self.weight * fooled + told

    @torch.no_grad()
    def _mixed(self, x: Tensor, shifts: Tensor | None, streams: Streams) -> Tensor:
        """Images in which the model has drawn some pixels itself, given those before."""
        flat = x.flatten(1)
        uniforms, chance = (rand(tuple(flat.shape), streams, x.device) for _ in range(2))
        rate = self.sampled * min(1.0, self.global_step / self.ramp)
        return self._scan(forced(uniforms, flat, chance >= rate), partial(self.scan, shifts=shifts)).view_as(x)

    def scan(self, uniforms: Tensor, shifts: Tensor | None = None) -> Tensor:
        """As `RasterOrder.scan`, of images that are shifted so."""
        batch = len(uniforms)
        pixels = uniforms.new_zeros(batch, self.window + self.size)
        places = [place.split(self.window, 1) for place in pixels.unfold(1, self.window + 1, 1).unbind(1)]
        cells = [_Cell(batch, *cast(nn.GRU, layer).all_weights[0]) for layer in self.layers]
        start, h = self.input.bias + self.position, uniforms.new_empty(batch, len(self.input.bias))
        if shifts is not None:
            start = start[:, None] + bias_of(shifts, self.shift_biases)
        weight, output = (layer.weight.T.contiguous() for layer in (self.input, self.output))
        thresholds = uniforms.clamp(0, 1).logit() - self.bias - self.output.bias
        in_turn = zip(places, start, thresholds.T[..., None].contiguous(), strict=True)
        for (before, pixel), first, threshold in steps(list(in_turn), "pixel"):
            x = torch.addmm(first, before, weight, out=h)
            for cell in cells:
                x = cell(x)
            torch.gt(torch.mm(x, output), threshold, out=pixel)
        return pixels[:, self.window :]


def _states(layer: nn.GRU, x: Tensor) -> Tensor:
    """h of a layer, of its inputs: [B, D, hidden] -> the same."""
    if not is_fused(x, layer.hidden_size, 128):
        return layer(x)[0]
    from zoo.nn.scans import gru

    weight_x, weight_h, bias_x, bias_h = layer.all_weights[0]
    return gru(F.linear(x, weight_x, bias_x), weight_h, bias_h)


class _Cell:
    """A step of a layer, h = (1 - z) n + z h_before, in fixed memory, as small things take as long to allocate.

    Its weights lie as a product of few rows reads them; those of `nn.GRU`, transposed, take twice as long.
    """

    def __init__(self, batch: int, weight_x: Tensor, weight_h: Tensor, bias_x: Tensor, bias_h: Tensor) -> None:
        self.of_x, self.of_h = (bias_x, weight_x.T.contiguous()), (bias_h, weight_h.T.contiguous())
        hidden = weight_h.shape[1]
        self.h = weight_h.new_zeros(batch, hidden)
        self.from_x, self.from_h = weight_h.new_empty(2, batch, 3 * hidden)
        self.gates, self.n = self.from_x.split([2 * hidden, hidden], 1)
        self.r, self.z = self.gates.chunk(2, 1)
        self.gates_of_h, self.n_of_h = self.from_h.split([2 * hidden, hidden], 1)

    def __call__(self, x: Tensor) -> Tensor:
        """h, until the next step."""
        torch.addmm(self.of_x[0], x, self.of_x[1], out=self.from_x)
        torch.addmm(self.of_h[0], self.h, self.of_h[1], out=self.from_h)
        self.gates.add_(self.gates_of_h).sigmoid_()
        self.n.addcmul_(self.r, self.n_of_h).tanh_()
        return torch.lerp(self.n, self.h, self.z, out=self.h)


class _Discriminator(nn.Module):
    """Tells states of teacher forcing from those of free running: [B, D, features] -> logits [B]."""

    def __init__(self, features: int, event_shape: tuple[int, ...], channels: int = 32) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.reduce = nn.Linear(features, channels)
        self.convs = nn.Sequential(
            nn.Conv2d(event_shape[0] * channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.output = nn.Linear(2 * channels, 1)

    def forward(self, behaviour: Tensor) -> Tensor:
        maps = self.reduce(behaviour).unflatten(1, self.event_shape)  # [B, C, H, W, channels]
        return self.output(self.convs(maps.movedim(-1, 2).flatten(1, 2)).mean((2, 3)))[:, 0]
