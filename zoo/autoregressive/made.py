"""MADE: masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    log p(x) = sum_d log p(x_d | x_<d),    p(x_d = 1 | x_<d) = sigmoid(o_d)                                   (eq. 3)
    h1 = relu(b1 + (W1 * M1) x),  h2 = relu(b2 + (W2 * M2) h1),  o = c + (V * MV) h2 + (A * MA) x            (eq. 10)
    M1[k, d] = 1 if m1(k) >= d,  M2[k, j] = 1 if m2(k) >= m1(j),  MV[d, k] = 1 if d > m2(k)           (eqs. 12, 13)

The degrees m(k) are drawn at random for each of `num_masks` sets of masks, which share the weights
(connectivity-agnostic training). The model is the mixture of the distributions under each set of masks.

Density: exact, one pass for each set of masks.
Sampling: exact, one pixel at a time. The fast version computes each hidden unit once, as soon as the pixels that it
sees are known.
Prediction: exact, p(x_d = 1 | x_<d) = sum_k p(k | x_<d) sigmoid(o_kd): earlier pixels weight the sets of masks, k.
Differs from the paper: all masks use the natural order of pixels, and their degrees may be close to each other
(`spread`); masked connections also skip each hidden layer, from pixels to h2 and from h1 to o; shifted images (see
`zoo.autoregressive.regularization`); dropout; AdamW with a warm-up and a cosine schedule; averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import faster
from zoo.autoregressive.fast import made as fast
from zoo.autoregressive.raster import check_known_first, forced, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import bias_of, dropout, shift, shift_biases
from zoo.capabilities import Autoregressive, Completable, TractableDensity
from zoo.config import Between, Fraction, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.masked import scattered
from zoo.nn.precision import widest
from zoo.random import Streams, rand

LAYERS = ("first", "second", "output")

MAX_DEGREES = 2**18
"""Largest number of degrees of a layer over all sets of masks. Loading draws them before it has checked the file."""


class MADE(TractableDensity, Completable, Autoregressive):
    """A mixture of masked two-layer networks over binary pixels in raster order.

    Each weight matrix is stored as a vector of the entries that any set of masks uses, row by row. (`second` keeps an
    entry if the highest degree of its row is at least the lowest degree of its column. These are few more entries than
    the masks use.)

    Args:
        event_shape: Shape of one example; values in {0, 1}.
        hidden: Number of units of each of the two hidden layers.
        num_masks: Number of sets of masks, used in turn in training and all together in `log_prob`.
        mask_seed: Seed for drawing the degrees.
        spread: Largest difference between a unit's degree and its degree in the first set of masks; None for no limit,
            as in the paper. The closer the degrees, the more weights the sets share.
        max_shift: Largest shift along each axis, in pixels; training shifts each image with probability 1/2.
        dropout: Fraction of the hidden units that dropout zeroes in training.

    Raises:
        ConfigError: `hidden` times `num_masks` is above `MAX_DEGREES`.
    """

    levels: int = 2
    degrees: Tensor

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        hidden: Size = 500,
        num_masks: Size = 8,
        mask_seed: Annotated[int, Between(0, 1_000_000)] = 0,
        spread: Size | None = None,
        max_shift: Shift = 0,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.size = math.prod(event_shape)
        self.num_masks = num_masks
        self.max_shift = max_shift
        self.dropout = dropout
        if hidden * num_masks > MAX_DEGREES:
            found = f"hidden {hidden} and num_masks {num_masks}"
            raise ConfigError(f"MADE: expected hidden * num_masks up to {MAX_DEGREES}, found {found}; make one smaller")
        degrees = _degrees(self.size, hidden, num_masks, mask_seed, spread)
        self.register_buffer("degrees", torch.from_numpy(degrees), persistent=False)  # [K, 2, H]
        (first, second), (lowest, lowest2) = degrees.max(0), degrees.min(0)
        self.shapes = {
            "first": (hidden, self.size),
            "second": (hidden, hidden),
            "output": (self.size, hidden),
            "pixels_to_second": (hidden, self.size),
            "first_to_output": (self.size, hidden),
            "direct": (self.size, self.size),
        }
        # the lengths of `_places`, counted without masks, which a model that is built without memory does not have
        numbers = {
            "first": first.sum(dtype=np.int64),
            "second": np.searchsorted(np.sort(lowest), second, "right").sum(),
            "output": (self.size - lowest2).sum(dtype=np.int64),
            "pixels_to_second": second.sum(dtype=np.int64),
            "first_to_output": (self.size - lowest).sum(dtype=np.int64),
            "direct": self.size * (self.size - 1) // 2,
        }
        # two dimensions, since weights decay and biases do not
        self.weights = nn.ParameterDict({name: torch.zeros(1, int(number)) for name, number in numbers.items()})
        self.biases = nn.ParameterDict({name: torch.zeros(self.shapes[name][0]) for name in LAYERS})
        for name in LAYERS:  # as `nn.Linear` does
            bound = self.shapes[name][1] ** -0.5
            nn.init.uniform_(self.weights[name], -bound, bound)
            nn.init.uniform_(self.biases[name], -bound, bound)
        self._found: dict[str, Tensor] = {}
        if max_shift:
            self.shift_biases = shift_biases(event_shape, max_shift, 2 * hidden + self.size)

    def _masks(self, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        """Which weights connect units with these degrees, [2, H] each. Every set of masks uses all of `direct`."""
        pixel = torch.arange(1, self.size + 1, device=rows.device, dtype=rows.dtype)
        (first, second), (from_first, from_second) = rows[..., None], columns
        return {
            "first": first >= pixel,
            "second": second >= from_first,
            "output": pixel[:, None] > from_second,
            "pixels_to_second": second >= pixel,
            "first_to_output": pixel[:, None] > from_first,
        }

    def _places(self) -> dict[str, Tensor]:
        """Position of each weight in its flattened matrix, [1, N]; computed once on each device."""
        device = self.degrees.device
        if not self._found or self._found["direct"].device != device:
            with torch.inference_mode(False):  # gradients need them too
                kept = self._masks(self.degrees.amax(0), self.degrees.amin(0))
                kept["direct"] = torch.ones(self.shapes["direct"], dtype=torch.bool, device=device).tril(-1)
                for name, mask in kept.items():  # `nonzero`, with a length that a compiler knows
                    places = mask.flatten().logical_not().byte().argsort(stable=True)
                    self._found[name] = places[None, : self.weights[name].shape[1]]
        return self._found

    def _matrices(self, mask: int | None = None) -> dict[str, Tensor]:
        """Matrices of the weights under one set of masks, zero elsewhere; by default, under any of the sets."""
        masks = {} if mask is None else self._masks(self.degrees[mask], self.degrees[mask])
        matrices = {}
        for name, places in self._places().items():
            weight = self.weights[name]
            if name in masks:  # masks the vector, which has half as many numbers as the matrix
                weight = weight.where(masks[name].take(places), 0)
            matrices[name] = scattered(weight, places, self.shapes[name])
        return matrices

    def logits(self, x: Tensor, mask: int, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        """Logits of every pixel given the earlier ones, [B, D], under one set of masks; see `Regularized.logits`."""
        x, w = x.flatten(1), self._matrices(mask)
        h1 = F.linear(x, w["first"], self.biases["first"])
        h2 = F.linear(x, w["pixels_to_second"], self.biases["second"])
        o = F.linear(x, w["direct"], self.biases["output"])
        if shifts is not None and self.max_shift:
            biases = bias_of(shifts, self.shift_biases)
            more1, more2, more = biases.split([h1.shape[1], h2.shape[1], self.size], -1)
            h1, h2, o = h1 + more1, h2 + more2, o + more
        h1 = dropout(h1.relu(), self.dropout, streams)
        h2 = h2 + F.linear(h1, w["second"])
        h2 = dropout(h2.relu(), self.dropout, streams)
        o = o + F.linear(h1, w["first_to_output"])
        return o + F.linear(h2, w["output"])

    def log_prob(self, x: Tensor) -> Tensor:
        components = [log_likelihood(self.logits(x, k), x).sum(-1) for k in range(self.num_masks)]
        return torch.stack(components).logsumexp(0) - math.log(self.num_masks)

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """Expectations of the mixture, whose masks have weights p(k | x_<d); see `Autoregressive`."""
        logits = torch.stack([self.logits(x, k) for k in range(self.num_masks)])  # [K, B, D]
        log_probs = widest(torch.stack([log_likelihood(each, x) for each in logits]))
        weights = F.pad(log_probs.cumsum(-1), (1, -1)).softmax(0)
        return (weights.to(logits) * logits.sigmoid()).sum(0).view_as(x)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """Log-likelihood of shifted images with dropout, [B], under one set of masks: the sets take turns by step."""
        x, shifts = shift(x, self.max_shift, streams)
        return log_likelihood(self.logits(x, self.global_step % self.num_masks, shifts, streams), x).sum(-1)

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms: Tensor, masks: Tensor) -> Tensor:
        """Draws each pixel in turn, given the index of each image's masks, [B]; see `RasterOrder.from_uniforms`."""
        images = torch.arange(len(masks), device=masks.device)

        def logits(x: Tensor) -> Tensor:
            return torch.stack([self.logits(x, k) for k in range(self.num_masks)])[masks, images]

        return pixel_by_pixel(logits, uniforms)

    def draw(self, streams: Streams) -> Tensor:
        masks = (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_masks).long()
        return self._draw(rand((len(streams), *self.event_shape), streams, self.device), masks)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Draws the pixels after the known ones, which come first in raster order; see `Completable`."""
        uniforms = rand(tuple(x.shape), streams, self.device)
        # the known pixels choose the masks: p(k | known) is proportional to p_k(known)
        of_known = [(log_likelihood(self.logits(x, k), x) * known.flatten(1)).sum(-1) for k in range(self.num_masks)]
        cumulative = torch.stack(of_known, -1).softmax(-1).cumsum(-1)
        masks = (rand((len(x), 1), streams, self.device) >= cumulative).sum(-1).clamp_(max=self.num_masks - 1)
        return self._draw(forced(uniforms, x, known), masks)

    def check_known(self, known: Tensor) -> None:
        check_known_first(self, known)

    def _draw(self, uniforms: Tensor, masks: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.from_uniforms(uniforms.to(self.dtype), masks)


def _degrees(size: int, hidden: int, num_masks: int, seed: int, spread: int | None) -> np.ndarray:
    """Degrees of the units of both hidden layers under each set of masks, [K, 2, H]. Degree m sees the pixels 1 to m.

    They determine the number of weights, so they must be the same everywhere. NumPy promises this for its generator,
    which also works where tensors have no memory.
    """
    generator, last = np.random.RandomState(seed % 2**32), max(1, size - 1)

    def draw(number: int, low: int, high: int) -> np.ndarray:
        bits = generator.randint(2**32, size=(number, 2, hidden), dtype=np.uint32)
        bits %= high + 1 - low
        return bits.view(np.int32) + low

    degrees = draw(num_masks, 1, last)
    if spread is not None:
        offsets = draw(num_masks - 1, -spread, spread)
        np.clip(degrees[0] + offsets, 1, last, out=degrees[1:])
    # the second layer's are at least the smallest of the first's
    np.maximum(degrees[:, 1], degrees[:, 0].min(-1, keepdims=True), out=degrees[:, 1])
    return degrees
