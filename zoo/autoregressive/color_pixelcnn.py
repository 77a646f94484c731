"""PixelCNN for grey levels and colours: the channels of a pixel in turn, each a choice among all levels (van den Oord
et al. 2016, https://arxiv.org/abs/1601.06759, sections 2 and 3.4), on gated stacks (https://arxiv.org/abs/1606.05328).

    log p(x) = sum over pixels of log p(R given before) + log p(G given before, R) + log p(B given before, R, G)
    p(x_c = l given ...) = softmax_l(V_c relu(W_c relu(h) + sum_{c' < c} E_cc'[x_c']))

or, with the same network, a mixture of logistic distributions over the levels (Salimans et al. 2017,
https://arxiv.org/abs/1701.05517, eqs. 1 and 2), which knows from the start that near levels are alike; its centres can
be counted from a linear prediction, so that the network tells only where an image differs from smoothness:

    centre_ck = f_ck(before, x_<c) + l_c + sum_{c' < c} g_cc'k(before, x_<c) (x_c' - l_c')
    l_c = sum over the nearest pixels before of A_c x + sum_{c' < c} B_cc' x_c'

before: all channels of the rows above and of the pixels to the left, of which h is made by the stacks of
`zoo.autoregressive.gated_pixelcnn`. Of grey images there is one channel.

Density: exact, one pass.
Sampling: exact; the vertical stack is computed once a row, the horizontal one once a pixel, the rest once a channel.
Differs from the paper: the earlier channels of a pixel enter in the last layers alone, and not in groups of all layers;
levels may also be seen as learned vectors; dropout; a learned bias at each position; Adam with averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.capabilities import Autoregressive, Completable, TractableDensity
from zoo.config import Between, Fraction, ImageShape, Size
from zoo.errors import ConfigError
from zoo.given import check_images
from zoo.nn.discretized import mixture_cdf, mixture_log_prob
from zoo.nn.gated import GatedLayer, Horizontal, Vertical
from zoo.progress import steps
from zoo.random import Streams, rand

PART = 32  # images whose logits are in memory at once where no gradient is taken: 3 MB each at 256 levels of 32x32x3


class ColorPixelCNN(TractableDensity, Completable, Autoregressive):
    """Two stacks of gated, masked convolutions, and a softmax for every channel.

    Args:
        event_shape: (C, H, W); values in {0, ..., levels - 1}/(levels - 1).
        levels: of every channel.
        channels: width of both stacks.
        num_layers: gated layers.
        kernel: size of the convolutions, odd.
        first_kernel: size of the first convolution, odd.
        hidden: units of the layer before the logits of a channel.
        embedding: components of the learned vector as which each level is seen, beside its value, or None for no such.
        dropout: fraction of a layer's outputs that each training image does without.
        num_logistics: distributions that the mixture of a channel has, or None for a softmax.
        linear: whether their centres are counted from a linear prediction.
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
        outputs = levels if num_logistics is None else (3 + linear * (colors - 1)) * num_logistics  # of a channel
        self.vectors = nn.Embedding(levels, embedding) if embedding else None
        seen = colors * (1 + (embedding or 0))
        first = channels + colors * linear  # channels of the stacks, then A
        self.above = nn.Conv2d(seen, first, (self.reach, first_kernel), padding=(0, self.reach))
        self.left = nn.Conv2d(seen, first, (1, self.reach))
        self.position = nn.Parameter(torch.zeros(2 * first, height, width))
        self.layers = nn.ModuleList(GatedLayer(channels, kernel) for _ in range(num_layers))
        self.inner = nn.Conv2d(channels, colors * hidden, 1)  # W
        # E: of each channel that others come after, for these
        self.earlier = nn.ModuleList(nn.Embedding(levels, (colors - 1 - c) * hidden) for c in range(colors - 1))
        self.output = nn.Conv2d(colors * hidden, colors * outputs, 1, groups=colors)  # V
        if linear:
            self.across = nn.ParameterList(F.one_hot(torch.tensor(c), c + 1).float() for c in range(colors - 1))  # B
            # rounded to half precision, those of CIFAR-10 cost up to 0.02 bits/dim
            self.unrounded = ("above.weight", "left.weight", *(f"across.{c}" for c in range(colors - 1)))
            self._begin_smooth()

    @torch.no_grad()
    def _begin_smooth(self) -> None:
        """Sets A and B to continue a plane, with the step of a channel that of the channel before it.

        p_c = 3/4 left + 3/4 above - 1/2 above and left, of channel c;    centre_c = p_c + x_(c-1) - p_(c-1)
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
        self.output.weight *= 0.05  # so that what the network adds does not drown it
        bias = cast(Tensor, self.output.bias).unflatten(0, (self.event_shape[0], 2 + self.event_shape[0], -1))
        bias.zero_()
        bias[:, 1] = torch.linspace(-0.05, 0.05, bias.shape[-1])
        bias[:, 2] = 2 + max(-3.5, -math.log(self.levels - 1))  # scales of e^-3.5, or of a level where that is more

    def _number(self, x: Tensor) -> Tensor:
        """Which level: int64."""
        return (x.detach() * (self.levels - 1)).round().long()

    def _seen(self, x: Tensor) -> Tensor:
        """What the first convolutions see: the channels [B, C, ...], then the vectors of their levels."""
        if self.vectors is None:
            return x
        return torch.cat([x, self.vectors(self._number(x)).movedim(-1, 2).flatten(1, 2)], 1)

    def _begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        above, left = self.position.chunk(2)
        x = self._seen(x)
        v = self.above(F.pad(x, (0, 0, self.reach, -1)))  # the last row is above nothing
        return v + above, self.left(F.pad(x, (self.reach, -1))) + left

    def logits(self, x: Tensor, streams: Streams | None = None) -> Tensor:
        """Of every level of every channel, given what comes before: [B, C, H, W] -> [B, C, levels, H, W]."""
        return self._over_levels(self._outputs(x, streams).movedim(2, -1)).movedim(-1, 2)

    def _over_levels(self, outputs: Tensor) -> Tensor:
        """Logits of the levels, [..., levels], from what the network says of a channel, [..., outputs]."""
        if self.num_logistics is None:
            return outputs
        values = torch.linspace(0, 1, self.levels, device=outputs.device, dtype=outputs.dtype)
        return mixture_log_prob(outputs[..., None, :], values.expand(*outputs.shape[:-1], -1), self.levels)

    def _cumulative(self, outputs: Tensor) -> Tensor:
        """P(x <= each level), [..., levels], from what the network says of a channel, [..., outputs]."""
        if self.num_logistics is None:
            return outputs.softmax(-1).cumsum(-1)
        return mixture_cdf(outputs, self.levels)

    def _outputs(self, x: Tensor, streams: Streams | None) -> Tensor:
        """[B, C, H, W] -> [B, C, outputs, H, W]."""
        check_images(self, x, "ColorPixelCNN")  # of smaller ones the rest would be left out, unnoticed
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

    def _log_prob(self, x: Tensor, streams: Streams | None = None) -> Tensor:
        outputs = self._outputs(x, streams)
        if self.num_logistics is not None:
            return mixture_log_prob(outputs.movedim(2, -1).float(), x, self.levels).flatten(1).sum(1)
        return outputs.log_softmax(2).gather(2, self._number(x)[:, :, None]).flatten(1).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self._log_prob(x)
        return torch.cat([self._log_prob(part) for part in x.split(PART)])

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """The mean level of every channel, given earlier pixels and channels of its own; see `Autoregressive`."""
        means = []
        for part in x.split(PART):
            below = self._cumulative(self._outputs(part, None).movedim(2, -1))[..., :-1]
            means.append(1 - below.mean(-1))  # E[x] = mean over all levels l but the last of P(x > l)
        return torch.cat(means)

    def order(self, streams: Streams) -> Tensor:
        """Pixels in raster order, and of each the channels in turn."""
        places = torch.arange(math.prod(self.event_shape), device=self.device).view(self.event_shape)
        return places.movedim(0, -1).flatten().expand(len(streams), -1)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        return self._log_prob(x, streams)

    def draw(self, streams: Streams) -> Tensor:
        nothing = self.position.new_zeros(len(streams), *self.event_shape)
        return self.fill(nothing, nothing.bool(), streams)

    def check_known(self, known: Tensor) -> None:
        ordered = known.movedim(1, -1).flatten(1)
        if (ordered[:, 1:] & ~ordered[:, :-1]).any():
            raise ConfigError(
                "complete: ColorPixelCNN conditions on what comes first, rows from the top, pixels from the left, then "
                "channels, but the mask has an unknown one before a known one; mark as known only the first"
            )

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Samples what comes after the known: rows from the top, pixels from the left, channels in order."""
        x = x.to(self.dtype)
        colors, height, width = self.event_shape
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            uniforms, size = rand((len(x), height, width, colors), streams, self.device), self.reach
            padded = F.pad(self._seen(x), (size, 0, size, 0))  # zeros to the left and above
            layers = cast(list[GatedLayer], list(self.layers))
            vertical, horizontal = Vertical(layers, len(x), width), Horizontal(layers, len(x), width)
            position_v, position_h = self.position.permute(1, 2, 0).chunk(2, -1)  # [H, W, C]
            left, start = self.left.weight.flatten(1).T, position_h + cast(Tensor, self.left.bias)
            for row in steps(range(height), "row"):
                v = self.above(padded[:, :, row : row + size, size:])[:, :, 0].mT + position_v[row]
                horizontal.begin(vertical.scan(v[..., : self.channels]))
                for column in range(width):
                    seen = padded[:, :, row + size, column : column + size].flatten(1)
                    h = torch.addmm(start[row, column], seen, left)
                    horizontal.start[:, column].copy_(h[:, : self.channels])
                    nearest = (h + v[:, column])[:, self.channels :]  # none if not linear
                    here = padded[:, :, row + size, column + size]  # written to
                    fixed = known[:, :, row, column]
                    pixel = here[:, :colors]
                    self._pixel(horizontal.step(column)[:, 1:], nearest, pixel, fixed, uniforms[:, row, column])
                    if self.vectors is not None:
                        here.copy_(self._seen(pixel))
        return padded[:, :colors, size:, size:].clone()  # a tensor like others, which autograd may use

    def _moved(self, outputs: Tensor, linear: Tensor, errors: Tensor) -> Tensor:
        """Logistics of a channel, [B, 3 K, ...], whose centres are counted from a linear prediction.

        Args:
            outputs: what the network says of the channel, [B, (3 + C - 1) K, ...].
            linear: prediction of that channel, [B, ...].
            errors: how far earlier channels are from theirs, [B, c, ...].
        """
        weights, loc, log_scale, *factors = outputs.chunk(2 + self.event_shape[0], 1)
        for error, factor in zip(errors.unbind(1), factors, strict=False):
            loc = loc + factor * error[:, None]
        return torch.cat([weights, loc + linear[:, None], log_scale], 1)

    def _pixel(self, active: Tensor, nearest: Tensor, pixel: Tensor, known: Tensor, uniforms: Tensor) -> None:
        """Draws the channels of a pixel that are not known, in turn: active [B, channels], the others [B, C]."""
        inner = F.linear(active, self.inner.weight[:, :, 0, 0], self.inner.bias).unflatten(1, (-1, self.hidden))
        bias = cast(Tensor, self.output.bias)
        size = len(bias) // self.event_shape[0]
        weights = zip(self.output.weight[:, :, 0, 0].split(size), bias.split(size), strict=True)
        for c, (weight, offset) in enumerate(weights):
            outputs = F.linear(inner[:, c].relu(), weight, offset)
            if self.linear:
                linear = nearest[:, c] + (pixel[:, :c] @ self.across[c - 1] if c else 0)
                outputs, nearest[:, c] = self._moved(outputs, linear, pixel[:, :c] - nearest[:, :c]), linear
            cumulative = self._cumulative(outputs)
            number = (uniforms[:, c, None] * cumulative[:, -1:] >= cumulative).sum(1).clamp(max=self.levels - 1)
            drawn = number.to(pixel) / (self.levels - 1)
            pixel[:, c] = torch.where(known[:, c], pixel[:, c], drawn)
            if c < len(self.earlier):
                embedded = cast(nn.Embedding, self.earlier[c])(self._number(pixel[:, c]))
                inner[:, c + 1 :] += embedded.unflatten(1, (-1, self.hidden))


@contextmanager
def _precise(device: torch.device) -> Iterator[None]:
    """Neither autocast, in which near levels are one, nor TF32, which keeps 11 bits of a prediction."""
    cudnn = torch.backends.cudnn
    full = cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
    with torch.autocast(device.type, enabled=False), full:
        yield
