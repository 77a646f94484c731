"""RNN over pixels, with teacher, scheduled and professor forcing.

    log p(x) = sum_d log p(x_d | x_<d),    p(x_d = 1 | x_<d) = sigmoid(b_d + v h_d),    h_d = GRU(h_d-1, x_d-1)

What the network gets as x_d-1 in training:
- teacher forcing (Williams & Zipser 1989, https://doi.org/10.1162/neco.1989.1.2.270): the pixel of the image;
- scheduled sampling (Bengio et al. 2015, https://arxiv.org/abs/1506.03099, section 2.4): with a probability that rises
  linearly to `sampled` over `ramp` steps, the model's own draw instead, through which no gradient goes;
- professor forcing (Lamb et al. 2016, https://arxiv.org/abs/1610.09038, eqs. 2 to 4): the pixel of the image. A
  discriminator D learns to tell these states h and probabilities, together b(x), from those of free running, b(x'),
  where x' are draws of the model. The model learns to make D wrong about the latter:

    C_d = -log D(b(x)) - log(1 - D(b(x'))) for D,    -log p(x) - weight log D(b(x')) for the model

Density: exact, one pass of D steps.
Sampling: exact, one pixel at a time. The fast way takes one step of the network for each.
Differs from the papers: one network for three ways to train it; gated recurrent units; a learned bias of the input and
of the logit at each position; several last pixels come in, not one; shifted images, also where the model draws in
training; dropout; clipped gradients; both sides of professor forcing take their step at once, in each step; AdamW with
a warm-up and a cosine schedule; averaged weights. The checkpoints of scheduled sampling and professor forcing go on
from that of teacher forcing for 100 steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from zoo.autoregressive.fast import faster, fused
from zoo.autoregressive.fast import rnn as fast
from zoo.autoregressive.raster import RasterOrder, forced, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import (
    Regularized,
    bias_of,
    dropout,
    regularized_log_prob,
    shift,
    shift_biases,
    take_teachers,
)
from zoo.capabilities import ZooModule
from zoo.config import Between, Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.random import Streams, rand


class RNN(RasterOrder):
    """Gated recurrent units over pixels in raster order.

    Args:
        event_shape: Shape of one example, (C, H, W); values in {0, 1}.
        hidden: Units of a layer.
        num_layers: Number of layers.
        window: Number of last pixels that the network gets at each step; 1 in the papers.
        forcing: What training puts into the network, `teacher`, `scheduled` or `professor`.
        sampled: Largest probability with which scheduled sampling replaces a pixel.
        ramp: Number of steps until this probability is reached.
        weight: Weight of the discriminator's term in professor forcing.
        dropout: Fraction of a layer's outputs that each training image does without.
        max_shift: Pixels by which training shifts every second image, at most, along both axes.
    """

    teachers: tuple[Regularized, ...] = ()

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
        """States of the last layer, [B, D, hidden], and logits, [B, D], of each pixel given the earlier ones."""
        before = F.pad(x.flatten(1), (self.window, -1)).unfold(1, self.window, 1)  # [B, D, window]
        h = self.input(before) + self.position
        if shifts is not None and self.max_shift:
            h = h + bias_of(shifts, self.shift_biases)[:, None]
        for layer in self.layers:
            h = dropout(_gru(cast(nn.GRU, layer), h), self.dropout, streams)
        return h, self.output(h)[..., 0] + self.bias

    def logits(self, x: Tensor, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        return self.behaviour(x, shifts, streams)[1]

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor, shifts: Tensor | None = None) -> Tensor:
        """Draws each pixel in turn, of images with these shifts, [B, 2]; see `RasterOrder.from_uniforms`."""
        return pixel_by_pixel(lambda x: self.logits(x, shifts), uniforms)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """Log-likelihood of shifted images with dropout, or what another forcing than `teacher` puts in its place."""
        if self.forcing == "teacher":
            return regularized_log_prob(self, x, streams)
        x, shifts = shift(x, self.max_shift, streams)
        if self.forcing == "scheduled":
            return log_likelihood(self.logits(self._mixed(x, shifts, streams), shifts, streams), x).sum(-1)
        taught, logits = self.behaviour(x, shifts, streams)
        drawn = self._draw(rand(tuple(x.shape), streams, x.device), shifts=shifts)
        free, free_logits = self.behaviour(drawn, shifts, streams)
        real, fake = (torch.cat([h, o.sigmoid()[..., None]], -1) for h, o in ((taught, logits), (free, free_logits)))
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        fooled = F.logsigmoid(functional_call(self.discriminator, fixed, (fake,)))
        told = F.logsigmoid(self.discriminator(real.detach())) + F.logsigmoid(-self.discriminator(fake.detach()))
        return log_likelihood(logits, x).sum(-1) + self.weight * fooled + told

    @torch.no_grad()
    def _mixed(self, x: Tensor, shifts: Tensor, streams: Streams) -> Tensor:
        """Images in which the model has drawn some pixels itself, given those before."""
        uniforms, chance = (rand(tuple(x.shape), streams, x.device) for _ in range(2))
        rate = self.sampled * min(1.0, self.global_step / self.ramp)
        return self._draw(forced(uniforms, x, chance >= rate), shifts=shifts)

    def learn_from(self, teachers: Sequence[ZooModule]) -> None:
        if self.forcing != "teacher":
            raise ConfigError(f"teachers: expected an RNN of forcing teacher, found {self.forcing}; leave them out")
        take_teachers(self, teachers)


@faster(fused.gru)
def _gru(layer: nn.GRU, x: Tensor) -> Tensor:
    """States of a layer, given its inputs: [B, D, hidden] -> the same."""
    return layer(x)[0]


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
