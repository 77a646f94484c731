"""PixelCNN for grey levels and colours: it predicts the channels of a pixel in turn, each over all levels (van den Oord
et al. 2016, https://arxiv.org/abs/1601.06759, sections 2 and 3.4), with gated stacks
(https://arxiv.org/abs/1606.05328).

    log p(x) = sum over pixels of log p(R | before) + log p(G | before, R) + log p(B | before, R, G)
    p(x_c = l | before, x_<c) = softmax_l(V_c relu(W_c relu(h) + sum_{c' < c} E_cc'[x_c']))

`before` stands for all channels of the rows above and of the pixels to the left. The stacks of
`zoo.autoregressive.gated_pixelcnn` map them to h. Grey images have one channel.

With `num_logistics`, a mixture of logistic distributions over the levels replaces the softmax (Salimans et al. 2017,
https://arxiv.org/abs/1701.05517, eqs. 1 and 2). It treats neighbouring levels as similar from the start. With `linear`,
the centres of the mixture are offsets from a linear prediction l, so that the network only has to model where an image
is not smooth:

    centre_ck = f_ck(before, x_<c) + l_c + sum_{c' < c} g_cc'k(before, x_<c) (x_c' - l_c')
    l_c = sum over the nearest pixels before of A_c x + sum_{c' < c} B_cc' x_c'

Density: exact, one pass.
Sampling: exact, one channel at a time. The fast version computes the vertical stack once per row, the horizontal stack
once per pixel, and the rest once per channel.
Differs from the papers: the earlier channels of a pixel enter only the last layers, not groups of channels in all
layers; levels can also enter as learned vectors (MNIST checkpoint); the linear prediction (CIFAR-10 checkpoint, which
is also trained on mirrored images); the differences of the gated stacks from their paper; dropout, which the
checkpoints do not use; a learned bias at each position; clipped gradients; Muon with a warm-up and a cosine schedule;
averaged weights. The CIFAR-10 checkpoint comes from two runs, the first in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import color_pixelcnn as fast
from zoo.autoregressive.fast import faster
from zoo.autoregressive.gated_pixelcnn import GatedLayer
from zoo.autoregressive.raster import check_known_first
from zoo.capabilities import Autoregressive, Completable, TractableDensity
from zoo.config import Between, Fraction, ImageShape, Size
from zoo.errors import ConfigError
from zoo.given import check_images
from zoo.nn.discretized import mixture_cdf, mixture_log_prob
from zoo.progress import steps
from zoo.random import Streams, rand

PART = 32  # images at once without gradients; the logits of one take 3 MB at 256 levels of 32x32x3


class ColorPixelCNN(TractableDensity, Completable, Autoregressive):
    """Two stacks of gated, masked convolutions, and a distribution over the levels of every channel.

    Args:
        event_shape: Shape of one example, (C, H, W); values in {0, ..., levels - 1}/(levels - 1).
        levels: Number of levels of every channel.
        channels: Width of both stacks.
        num_layers: Number of gated layers.
        kernel: Size of the convolutions, odd.
        first_kernel: Size of the first convolution, odd.
        hidden: Number of units of the layer before the logits of each channel.
        embedding: Dimension of a learned vector for each level, which the network sees as well as the level's value;
            None for no vectors.
        dropout: Fraction of a layer's outputs that dropout zeroes in training.
        num_logistics: Number of logistic distributions in the mixture of a channel; None for a softmax.
        linear: Whether the centres of the mixture are offsets from a linear prediction.
    """

    levels: int

    def __init__(
        self,
        event_shape: ImageShape = (3, 32, 32),
        levels: Annotated[int, Between(2, 256)] = 256,
        channels: Size = 96,
        num_layers: Annotated[int, Between(1, 1000)] = 10,
        kernel: Annotated[int, Between(1, 99)] = 3,
        first_kernel: Annotated[int, Between(3, 99)] = 5,
        hidden: Size = 128,
        embedding: Size | None = None,
        dropout: Fraction = 0.0,
        num_logistics: Size | None = None,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if kernel % 2 == 0 or first_kernel % 2 == 0:
            raise ConfigError(
                f"ColorPixelCNN: expected an odd kernel and first_kernel, found {kernel} and {first_kernel}"
            )
        if linear and num_logistics is None:
            raise ConfigError("ColorPixelCNN: linear moves the centres of logistics; give num_logistics, 5 for example")
        colors, height, width = self.event_shape = tuple(event_shape)
        self.levels, self.channels, self.reach, self.hidden = levels, channels, first_kernel // 2, hidden
        self.dropout, self.num_logistics, self.linear = dropout, num_logistics, linear
        outputs = levels if num_logistics is None else (3 + linear * (colors - 1)) * num_logistics  # for a channel
        self.vectors = nn.Embedding(levels, embedding) if embedding else None
        seen = colors * (1 + (embedding or 0))
        first = channels + colors * linear  # channels of the stacks, then those of A
        self.above = nn.Conv2d(seen, first, (self.reach, first_kernel), padding=(0, self.reach))
        self.left = nn.Conv2d(seen, first, (1, self.reach))
        self.position = nn.Parameter(torch.zeros(2 * first, height, width))
        self.layers = nn.ModuleList(GatedLayer(channels, kernel) for _ in range(num_layers))
        self.inner = nn.Conv2d(channels, colors * hidden, 1)  # W
        # E, from each channel to all later ones
        self.earlier = nn.ModuleList(nn.Embedding(levels, (colors - 1 - c) * hidden) for c in range(colors - 1))
        self.output = nn.Conv2d(colors * hidden, colors * outputs, 1, groups=colors)  # V
        if linear:
            self.across = nn.ParameterList(F.one_hot(torch.tensor(c), c + 1).float() for c in range(colors - 1))  # B
            # rounding these to half precision costs up to 0.02 bits/dim on CIFAR-10
            self.unrounded = ("above.weight", "left.weight", *(f"across.{c}" for c in range(colors - 1)))
            self._begin_smooth()

    @torch.no_grad()
    def _begin_smooth(self) -> None:
        """Sets A and B so that l continues a plane, and each channel changes as the channel before it does.

        p_c = 3/4 left + 3/4 above - 1/2 above and left, in channel c;    l_c = p_c + x_(c-1) - p_(c-1)
        """
        above, left = self.above.weight[self.channels :], self.left.weight[self.channels :]
        above[:], left[:] = 0, 0
        for c in range(self.event_shape[0]):
            above[c, c, -1, self.reach - 1 : self.reach + 1] = torch.tensor([-0.5, 0.75])
            left[c, c, 0, -1] = 0.75
        above[1:] -= above[:-1].clone()
        left[1:] -= left[:-1].clone()
        for bias in (self.above.bias, self.left.bias):
            cast(Tensor, bias)[self.channels :] = -0.25  # `mixture_log_prob` counts centres from 1/2
        self.output.weight *= 0.05  # so that the network does not drown the prediction at first
        bias = cast(Tensor, self.output.bias).unflatten(0, (self.event_shape[0], 2 + self.event_shape[0], -1))
        bias.zero_()
        bias[:, 1] = torch.linspace(-0.05, 0.05, bias.shape[-1])
        bias[:, 2] = 2 + max(-3.5, -math.log(self.levels - 1))  # scales of e^-3.5, or of one level if that is larger

    def _number(self, x: Tensor) -> Tensor:
        """Index of the level of each value, int64."""
        return (x.detach() * (self.levels - 1)).round().long()

    def _seen(self, x: Tensor) -> Tensor:
        """Input of the first convolutions: the channels, [B, C, ...], then the vectors of their levels."""
        if self.vectors is None:
            return x
        return torch.cat([x, self.vectors(self._number(x)).movedim(-1, 2).flatten(1, 2)], 1)

    def _begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v and h before the first layer, each followed by its part of the linear prediction, if any."""
        above, left = self.position.chunk(2)
        x = self._seen(x)
        v = self.above(F.pad(x, (0, 0, self.reach, -1)))  # the last row is above nothing
        return v + above, self.left(F.pad(x, (self.reach, -1))) + left

    def logits(self, x: Tensor, streams: Streams | None = None) -> Tensor:
        """Logits of all levels of each channel, given the values before it: [B, C, H, W] -> [B, C, levels, H, W]."""
        return self._over_levels(self._outputs(x, streams).movedim(2, -1)).movedim(-1, 2)

    def _over_levels(self, outputs: Tensor) -> Tensor:
        """Logits of the levels, [..., levels], given the network's outputs for a channel, [..., outputs]."""
        if self.num_logistics is None:
            return outputs
        values = torch.linspace(0, 1, self.levels, device=outputs.device, dtype=outputs.dtype)
        return mixture_log_prob(outputs[..., None, :], values.expand(*outputs.shape[:-1], -1), self.levels)

    def _cumulative(self, outputs: Tensor) -> Tensor:
        """P(x <= each level), [..., levels], given the network's outputs for a channel, [..., outputs]."""
        if self.num_logistics is None:
            return outputs.softmax(-1).cumsum(-1)
        return mixture_cdf(outputs, self.levels)

    def _outputs(self, x: Tensor, streams: Streams | None) -> Tensor:
        """The network's outputs for every channel: [B, C, H, W] -> [B, C, outputs, H, W]."""
        check_images(self, x, "ColorPixelCNN")  # smaller images would raise no error
        with _precise(x.device):
            begin_v, begin_h = self._begin(x)
        v, h = (y[:, : self.channels].contiguous(memory_format=torch.channels_last) for y in (begin_v, begin_h))
        for layer in self.layers:
            v, h = layer(v, h, self.dropout, streams)
        inner, numbers = self.inner(h.relu()), self._number(x)
        for c, embedding in enumerate(self.earlier):
            inner = inner + F.pad(embedding(numbers[:, c]).movedim(-1, 1), (0, 0, 0, 0, (c + 1) * self.hidden, 0))
        with _precise(x.device):
            outputs = self.output(inner.relu().to(x)).unflatten(1, (self.event_shape[0], -1))
        if not self.linear:
            return outputs
        nearest = begin_v[:, self.channels :] + begin_h[:, self.channels :]
        across = [torch.zeros_like(x[:, 0]), *(torch.einsum("c,bc...->b...", b, x[:, : len(b)]) for b in self.across)]
        linear = nearest + torch.stack(across, 1)
        moved = [self._moved(y, linear[:, c], (x - linear)[:, :c]) for c, y in enumerate(outputs.unbind(1))]
        return torch.stack(moved, 1)

    def _moved(self, outputs: Tensor, linear: Tensor, errors: Tensor) -> Tensor:
        """The mixture of a channel, [B, 3 K, ...], with its centres moved by the linear prediction, [B, ...].

        Args:
            outputs: The network's outputs for the channel, [B, (3 + C - 1) K, ...].
            linear: Linear prediction of the channel, [B, ...].
            errors: Errors of the linear predictions of the c earlier channels, [B, c, ...].
        """
        weights, loc, log_scale, *factors = outputs.chunk(2 + self.event_shape[0], 1)
        for error, factor in zip(errors.unbind(1), factors, strict=False):
            loc = loc + factor * error[:, None]
        return torch.cat([weights, loc + linear[:, None], log_scale], 1)

    def _log_prob(self, x: Tensor, streams: Streams | None = None) -> Tensor:
        outputs = self._outputs(x, streams)
        if self.num_logistics is not None:
            return mixture_log_prob(outputs.movedim(2, -1).float(), x, self.levels).flatten(1).sum(1)
        return outputs.log_softmax(2).gather(2, self._number(x)[:, :, None]).flatten(1).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._log_prob(x)
        return torch.cat([self._log_prob(part) for part in x.split(PART)])

    def _level(self, outputs: Tensor, uniforms: Tensor) -> Tensor:
        """Draws a channel, [B], given the network's outputs for it, [B, outputs], and uniforms, [B]."""
        cumulative = self._cumulative(outputs)
        number = (uniforms[:, None] * cumulative[:, -1:] >= cumulative).sum(1).clamp(max=self.levels - 1)
        return number.to(uniforms) / (self.levels - 1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor, x: Tensor, known: Tensor) -> Tensor:
        """Draws the unknown values of x, [B, C, H, W], one after another from uniforms, [B, H, W, C]."""
        x = x.clone()
        colors, height, width = self.event_shape
        for row, column, c in steps(list(product(range(height), range(width), range(colors))), "channel"):
            drawn = self._level(self._outputs(x, None)[:, c, :, row, column], uniforms[:, row, column, c])
            x[:, c, row, column] = torch.where(known[:, c, row, column], x[:, c, row, column], drawn)
        return x

    def draw(self, streams: Streams) -> Tensor:
        nothing = self.position.new_zeros(len(streams), *self.event_shape)
        return self.fill(nothing, nothing.bool(), streams)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        colors, height, width = self.event_shape
        uniforms = rand((len(x), height, width, colors), streams, self.device)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            drawn = self.from_uniforms(uniforms.to(self.dtype), x.to(self.dtype), known)
        return drawn.clone()  # a normal tensor, which autograd may use

    def check_known(self, known: Tensor) -> None:
        check_known_first(self, known.movedim(1, -1))

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """The expected value of every channel given the values before it; see `Autoregressive`."""
        means = []
        for part in x.split(PART):
            below = self._cumulative(self._outputs(part, None).movedim(2, -1))[..., :-1]
            means.append(1 - below.mean(-1))  # E[x] is the mean of P(x > l) over all levels l but the last
        return torch.cat(means)

    def order(self, streams: Streams) -> Tensor:
        """Pixels in raster order, with the channels of each in turn."""
        places = torch.arange(math.prod(self.event_shape), device=self.device).view(self.event_shape)
        return places.movedim(0, -1).flatten().expand(len(streams), -1)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        return self._log_prob(x, streams)


@contextmanager
def _precise(device: torch.device) -> Iterator[None]:
    """Turns off autocast, which would merge neighbouring levels, and TF32, which keeps 11 bits of a prediction."""
    cudnn = torch.backends.cudnn
    full = cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
    with torch.autocast(device.type, enabled=False), full:
        yield
