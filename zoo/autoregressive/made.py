"""MADE: masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    log p(x) = sum_d log p(x_d given x_<d),    p(x_d = 1 given x_<d) = sigmoid(o_d)                          (eq. 3)
    h1 = relu(b1 + (W1 * M1) x),  h2 = relu(b2 + (W2 * M2) h1),  o = c + (V * MV) h2 + (A * MA) x            (eq. 10)
    M1[k, d] = 1 if m1(k) >= d,  M2[k, j] = 1 if m2(k) >= m1(j),  MV[d, k] = 1 if d > m2(k)           (eqs. 12, 13)

with the degrees m(k) drawn at random, and drawn anew for each of `num_masks` masks that share the weights
(connectivity-agnostic training). The model is the mixture of the masks' distributions, which averages probabilities.
Training may shift the images, with the shift as an input (Jun et al. 2020, https://proceedings.mlr.press/v119/jun20a.html):
the density is that of images that are not shifted.

Density: exact; one pass a mask.
Sampling: exact; each hidden unit is computed once, as soon as the pixels that it sees are known.
Prediction: exact, p(x_d = 1 given x_<d) = sum_k p(k given x_<d) sigmoid(o_kd): the pixels before tell the masks apart.
Differs from the paper: the natural order of pixels in all masks, whose degrees may be near each other (`spread`);
masked connections past each hidden layer, from pixels to h2 and from h1 to o; shifted images; dropout; Adam,
with averaged weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.raster import check_first_known, forced, log_likelihood
from zoo.capabilities import Autoregressive, Completable, TractableDensity
from zoo.config import Between, Fraction, Shift, Size
from zoo.errors import ConfigError
from zoo.nn.dropout import dropout
from zoo.nn.shift import bias_of, shift, shift_biases
from zoo.progress import steps
from zoo.random import Streams, rand

# pixels whose units sampling follows one by one; any size gives the same samples, and this is about the fastest
BLOCK = 28

LAYERS = ("first", "second", "output")

# of a layer in all sets of masks: they are drawn before a file of weights has shown that it has them
MAX_DEGREES = 2**18


class MADE(TractableDensity, Completable, Autoregressive):
    """A mixture of masked two-layer networks over binary pixels in raster order.

    Of each matrix of weights, a vector holds the entries that some set of masks uses, row after row. (Those of `second`
    join the highest degree of a unit to the lowest of another, which is hardly more than any one set of masks does.)

    Args:
        event_shape: shape of one example; values in {0, 1}.
        hidden: units of each of the two hidden layers.
        num_masks: number of sets of masks, used in turn in training and all together in `log_prob`.
        mask_seed: seed of the degrees.
        spread: how far a unit's degree may lie from its degree in the first set of masks; None for any distance, as in
            the paper. The nearer the sets, the more their weights have in common.
        max_shift: pixels by which training shifts every second image, at most, up or down and left or right.
        dropout: fraction of the hidden units that each training image does without.

    Raises:
        ConfigError: more than `MAX_DEGREES` hidden units times masks.
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
        # as many as `_places` finds: counted, since a model that is built without memory has none to look at
        numbers = {
            "first": first.sum(dtype=np.int64),
            "second": np.searchsorted(np.sort(lowest), second, "right").sum(),
            "output": (self.size - lowest2).sum(dtype=np.int64),
            "pixels_to_second": second.sum(dtype=np.int64),
            "first_to_output": (self.size - lowest).sum(dtype=np.int64),
            "direct": self.size * (self.size - 1) // 2,
        }
        # of two dimensions, since weights decay and biases do not
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
        """Which weights join units of these degrees, [2, H] each; all of `direct` are in every set of masks."""
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
        """Where in its matrix, row after row, each entry of a vector stands; found once on each device."""
        device = self.degrees.device
        if not self._found or self._found["direct"].device != device:
            with torch.inference_mode(False):  # gradients need them too
                kept = self._masks(self.degrees.amax(0), self.degrees.amin(0))
                kept["direct"] = torch.ones(self.shapes["direct"], dtype=torch.bool, device=device).tril(-1)
                self._found = {name: mask.flatten().nonzero()[:, 0] for name, mask in kept.items()}
        return self._found

    def _matrices(self, mask: int | None = None) -> dict[str, Tensor]:
        """The weights of one set of masks, with zeros elsewhere; by default, of all."""
        masks = {} if mask is None else self._masks(self.degrees[mask], self.degrees[mask])
        matrices = {}
        for name, places in self._places().items():
            weight, shape = self.weights[name][0], self.shapes[name]
            if name in masks:  # before they are spread, while they are half as many numbers
                weight = weight.where(masks[name].take(places), 0)
            matrices[name] = weight.new_zeros(math.prod(shape)).index_copy_(0, places, weight).view(shape)
        return matrices

    def _logits(self, x: Tensor, mask: int, shifts: Tensor | None = None, streams: Streams | None = None) -> Tensor:
        """Logits of every pixel given the earlier ones, under one set of masks: [B, D] -> [B, D].

        Args:
            shifts: by how much the images are shifted, [B]; see `zoo.nn.shift`.
            streams: of dropout; None for none.
        """
        w = self._matrices(mask)
        h1 = F.linear(x, w["first"], self.biases["first"])
        h2 = F.linear(x, w["pixels_to_second"], self.biases["second"])
        o = F.linear(x, w["direct"], self.biases["output"])
        if shifts is not None:
            biases = bias_of(shifts, self.shift_biases)
            more1, more2, more = biases.split([h1.shape[1], h2.shape[1], self.size], -1)
            h1, h2, o = h1 + more1, h2 + more2, o + more
        h1 = dropout(h1.relu(), self.dropout, streams)
        h2 = h2 + F.linear(h1, w["second"])
        h2 = dropout(h2.relu(), self.dropout, streams)
        o = o + F.linear(h1, w["first_to_output"])
        return o + F.linear(h2, w["output"])

    def log_prob(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        components = [log_likelihood(self._logits(x, k), x).sum(-1) for k in range(self.num_masks)]
        return torch.stack(components).logsumexp(0) - math.log(self.num_masks)

    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """Of the mixture, whose masks have weights p(k given the pixels before); see `Autoregressive`."""
        values = x.flatten(1)
        logits = torch.stack([self._logits(values, k) for k in range(self.num_masks)])  # [K, B, D]
        log_probs = torch.stack([log_likelihood(each, values) for each in logits]).double()
        weights = F.pad(log_probs.cumsum(-1), (1, -1)).softmax(0)
        return (weights.to(logits) * logits.sigmoid()).sum(0).view_as(x)

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """log p(x given its shift) under the masks whose turn it is: one network a step."""
        x, shifts = shift(x, self.max_shift, streams)
        x = x.flatten(1)
        return log_likelihood(self._logits(x, self.global_step % self.num_masks, shifts, streams), x).sum(-1)

    def draw(self, streams: Streams) -> Tensor:
        mask = (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_masks).long()
        uniforms = rand((len(streams), self.size), streams, self.device)
        with torch.autocast(self.device.type, enabled=False):
            return self._scan(uniforms, mask).view(-1, *self.event_shape)

    def check_known(self, known: Tensor) -> None:
        check_first_known(self, known)

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Samples the pixels after the known ones, which come first in raster order; see `Completable`."""
        values, known = x.flatten(1), known.flatten(1)
        uniforms = rand(tuple(values.shape), streams, self.device)
        # the known pixels choose the component: p(k given known) is proportional to p_k(known)
        log_likelihoods = [
            (log_likelihood(self._logits(values, k), values) * known).sum(-1) for k in range(self.num_masks)
        ]
        cumulative = torch.stack(log_likelihoods, -1).softmax(-1).cumsum(-1)
        choice = (rand((len(x), 1), streams, self.device) >= cumulative).sum(-1).clamp_(max=self.num_masks - 1)
        with torch.autocast(self.device.type, enabled=False):
            return self._scan(forced(uniforms, values, known), choice).view_as(x)

    def _scan(self, uniforms: Tensor, masks: Tensor) -> Tensor:
        """Pixels from uniforms [B, D] in order, under the masks of number [B]; each hidden unit is computed once.

        A unit of degree m is complete after pixel m. What pixels and units of a block get from earlier blocks comes in
        one matrix product a layer; only the few units that complete inside the block are followed pixel by pixel.
        """
        if not len(uniforms):
            return uniforms
        w, biases = self._matrices(), self.biases
        used, group = masks.unique(return_inverse=True)  # images with equal masks make a group
        place = F.one_hot(group, len(used)).cumsum(0)[torch.arange(len(group)), group] - 1
        # [K, D, G]: pixels and units in rows
        u = w["direct"].new_zeros(len(used), self.size, int(place.max()) + 1)
        u[group, :, place] = uniforms.to(u)
        pixels = torch.zeros_like(u)
        first, second = self.degrees[used].long().unbind(1)  # [K, H]
        h1, h2 = (u.new_zeros(*m.shape, u.shape[-1]) for m in (first, second))
        pixel = torch.arange(1, self.size + 1, device=u.device)
        for block in steps(pixel.split(BLOCK), "block"):
            n, start, stop = len(block), int(block[0]) - 1, int(block[-1])
            new1, m1, is1 = self._completed(first, start, stop)
            new2, m2, is2 = self._completed(second, start, stop)
            # sums in rows: the block's logits, the inputs of the first layer's new units, those of the second's
            rows = [n, new1.shape[1], new2.shape[1]]
            block = block.expand(len(used), -1)
            degrees = torch.cat([block - 1, m1, m2], 1)[..., None]
            weights = w["direct"][block - 1, :stop], w["first"][new1, :stop], w["pixels_to_second"][new2, :stop]
            weight = torch.cat(weights, 1) * (degrees >= pixel[:stop])
            bias = torch.cat([biases["output"][block - 1], biases["first"][new1], biases["second"][new2]], 1)
            sums = torch.baddbmm(bias[..., None], weight[..., :start], pixels[:, :start])
            logits, inputs1, inputs2 = sums.split(rows, 1)
            # what comes from units of earlier blocks
            logits.baddbmm_(w["first_to_output"][block - 1], h1).baddbmm_(w["output"][block - 1], h2)
            inputs2.baddbmm_(w["second"][new2], h1)
            # and from inside the block
            weight = weight[..., start:]
            weight2 = w["second"][new2[..., None], new1[:, None]] * (m2[..., None] >= m1[:, None])
            output1 = w["first_to_output"][block[..., None] - 1, new1[:, None]] * (block[..., None] > m1[:, None])
            output2 = w["output"][block[..., None] - 1, new2[:, None]] * (block[..., None] > m2[:, None])
            for d in range(n):
                new_h1 = inputs1.relu()
                new_h2 = torch.baddbmm(inputs2, weight2, new_h1).relu_()
                logit = torch.baddbmm(logits[:, d : d + 1], output1[:, d : d + 1], new_h1)
                logit.baddbmm_(output2[:, d : d + 1], new_h2)
                pixels[:, start + d] = u[:, start + d] < logit[:, 0].sigmoid_()
                sums.addcmul_(weight[..., d : d + 1], pixels[:, start + d : start + d + 1])
            complete = inputs1.relu()
            h1[is1.nonzero()[:, 0], new1[is1]] = complete[is1]
            h2[is2.nonzero()[:, 0], new2[is2]] = torch.baddbmm(inputs2, weight2, complete).relu_()[is2]
        return pixels[group, :, place]

    def _completed(self, degrees: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Units with degrees from start + 1 to stop: indices, degrees, and whether it is one, all [K, width].

        Where a mask has fewer of them than another, the rest are other units, of a degree that nothing sees.
        """
        inside = (degrees > start) & (degrees <= stop)  # [K, H]
        is_one, index = inside.byte().topk(int(inside.sum(1).max()))
        return index, degrees.gather(1, index).where(is_one > 0, self.size + 1), is_one > 0


def _degrees(size: int, hidden: int, num_masks: int, seed: int, spread: int | None) -> np.ndarray:
    """Degrees of the units of both hidden layers under each set of masks, [K, 2, H]; m sees the pixels 1 to m.

    The number of weights that are kept follows from them, and so must be the same everywhere: NumPy promises that of
    this generator, and it draws where tensors have no memory.
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
