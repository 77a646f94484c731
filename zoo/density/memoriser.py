"""Memoriser: a kernel at every training example (Parzen 1962, https://doi.org/10.1214/aoms/1177704472).

    p(x) = 1/N sum_n sum_s pi_s prod_d Bernoulli(x_d; f(b_n,d-s, m_n,d-s))
    m_n: training example;    b_n: m_n blurred by a Gaussian of sigma pixels, in Q levels;    s: shift by a few pixels
    E step: draws (n, s) from p(n, s | x), excluding copies of x
    M step: f(b, m) = fraction of pixels that were on at such places,    pi_s = fraction of shifts that were s

The model knows the training images and nothing else, so that measures of memorisation can be tested on it. The memory
is the training split of a published data set. It is read from ZOO_DATA or downloaded at first use; a checkpoint holds
no image.

Density: exact; compares an image with all examples under all shifts, by matrix products.
Sampling: exact; draws an example and a shift, then the pixels.
Completion: exact, from any mask: draws an example and a shift given the known pixels, then the other pixels.
Differs from the paper: the kernels are for binary images, are shifted, and have a form that is fitted, not chosen, by
stochastic EM (Celeux & Diebolt 1985). The checkpoint is fitted in three steps of EM to 200 images each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.capabilities import ClosedForm, Completable, TractableDensity
from zoo.config import Between, ImageShape, Shift
from zoo.errors import ConfigError
from zoo.nn.precision import at_least_single, widest, widest_dtype
from zoo.random import Source, Streams, rand

CHUNK = 2500  # examples per matrix product
GROUP = 25  # images that choose among all kernels at once
CHOICES = 8  # draws of a kernel per image in a step of EM


class Memoriser(ClosedForm, TractableDensity, Completable):
    """A mixture of shifted kernels at training examples. An epoch of training is one step of EM.

    Args:
        event_shape: (1, H, W); values are in {0, 1}. Larger images of the memory are cropped about their centre.
        memory: Data set whose training split is remembered; for Digits, the split with seed 0.
        sigma: Standard deviation of the blur, in pixels.
        num_levels: Number of levels Q of the blurred images.
        max_shift: Largest shift of a kernel in each direction, in pixels; less than H and W.
    """

    levels = 2
    iterative = True
    fixed = "its memory is a published data set"
    logits: Tensor
    log_shifts: Tensor
    examples: Tensor

    def __init__(
        self,
        event_shape: ImageShape = (1, 28, 28),
        memory: Literal["BinarizedMNIST", "Digits"] = "BinarizedMNIST",
        sigma: Annotated[float, Between(0.1, 10)] = 0.9,
        num_levels: Annotated[int, Between(2, 128)] = 32,
        max_shift: Shift = 1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        channels, height, width = self.event_shape = tuple(event_shape)
        largest = 28 if memory == "BinarizedMNIST" else 8
        if channels != 1 or max(height, width) > largest or max_shift >= min(height, width):
            raise ConfigError(
                f"Memoriser: expected one channel, at most {largest}x{largest} pixels as {memory} has, and a max_shift "
                f"below height and width, found event_shape {list(event_shape)} and max_shift {max_shift}"
            )
        self.size = math.prod(event_shape)
        self.memory, self.sigma, self.num_levels = memory, sigma, num_levels
        steps = range(-max_shift, max_shift + 1)
        self.shifts = [(down, right) for down in steps for right in steps]
        level = torch.linspace(0.01, 0.99, num_levels)
        self.register_buffer("logits", level.logit().repeat(2))  # of f(b, 0), then of f(b, 1)
        self.register_buffer("log_shifts", torch.full((len(self.shifts),), -math.log(len(self.shifts))))
        self.register_buffer("examples", torch.empty(0, dtype=torch.uint8), persistent=False)

    def _examples(self) -> Tensor:
        """Indices into `logits` for the pixels of the examples: [N, D], uint8."""
        if not len(self.examples):
            from zoo.data import BinarizedMNIST, Digits

            data = BinarizedMNIST() if self.memory == "BinarizedMNIST" else Digits(binarize=True)
            x = data.split("train").x
            for dim, size in enumerate(self.event_shape, 1):
                x = x.narrow(dim, (x.shape[dim] - size) // 2, size)
            self.examples = torch.cat([self._entries(part.to(self.device).float()) for part in x.split(CHUNK)])
        return self.examples

    def _entries(self, x: Tensor) -> Tensor:
        """Indices into `logits` for the pixels of images: [B, 1, H, W] -> [B, D], uint8."""
        reach = math.ceil(3 * self.sigma)
        weights = (-0.5 * (torch.arange(-reach, reach + 1).to(x) / self.sigma) ** 2).softmax(0)
        lines = x.flatten(0, 1)[:, None]
        for kernel, padding in ((weights.view(1, 1, -1, 1), (reach, 0)), (weights.view(1, 1, 1, -1), (0, reach))):
            lines = F.conv2d(lines, kernel, padding=padding)
        levels = (lines.view_as(x) * (self.num_levels - 1)).round()
        return (levels + self.num_levels * x).flatten(1).to(torch.uint8)

    def _shifted(self, x: Tensor, down: int, right: int) -> Tensor:
        """Images [..., D], moved down and right; pixels that come from outside the frame are 0."""
        return F.pad(x.view(-1, *self.event_shape), (right, -right, down, -down)).flatten(1)

    def _log_joint(self, x: Tensor, known: Tensor | None = None, strangers: bool = False) -> Iterator[Tensor]:
        """log p(x, n, s), or log p(known pixels of x, n, s): [B, D] -> [S, B, chunk of n], chunk by chunk.

        With `strangers`, the value is -inf for examples that equal x.
        """
        kernel, log_shifts = at_least_single(self.logits), at_least_single(self.log_shifts).log_softmax(0)
        known = kernel.new_ones(1, self.size) if known is None else known.to(kernel)
        x = x.to(kernel) * known
        # the image is shifted in place of the kernel, in the opposite direction
        moved = torch.stack([self._shifted(x, -down, -right) for down, right in self.shifts])
        inside = torch.stack([self._shifted(known, -down, -right) for down, right in self.shifts])
        outside = kernel[0] * (x.sum(-1) - moved.sum(-1)) - F.softplus(kernel[0]) * (known.sum(-1) - inside.sum(-1))
        outside = outside + log_shifts[:, None] - math.log(len(self._examples()))
        for entries in self._examples().split(CHUNK):
            logits = kernel[entries.long()]
            joint = moved @ logits.T - inside @ F.softplus(logits).T + outside[..., None]
            if strangers:
                m = (entries >= self.num_levels).to(x)
                distance = x.sum(-1, keepdim=True) + m.sum(-1) - 2 * x @ m.T
                joint = joint.masked_fill(distance == 0, -math.inf)
            yield joint

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.stack([joint.logsumexp((0, 2)) for joint in self._log_joint(x.flatten(1))]).logsumexp(0)

    def draw(self, streams: Streams) -> Tensor:
        uniforms = rand((len(streams), 2), streams, self.device)
        example = (uniforms[:, 0] * len(self._examples())).long()
        cumulative = at_least_single(self.log_shifts).softmax(0).cumsum(0)
        shift = (uniforms[:, 1:] >= cumulative).sum(1).clamp_(max=len(self.shifts) - 1)
        return self._pixels(example, shift, streams)

    def _pixels(self, example: Tensor, shift: Tensor, streams: Streams) -> Tensor:
        probs = self.logits[self._kernels(example, shift)].sigmoid()
        return (rand(tuple(probs.shape), streams, self.device) < probs).float().view(-1, *self.event_shape)

    def _kernels(self, example: Tensor, shift: Tensor) -> Tensor:
        """Indices into `logits` for the pixels of shifted examples: [B], [B] -> [B, D], int64."""
        entries = self._examples()[example].float()
        moved = torch.stack([self._shifted(entries, *by) for by in self.shifts], 1)
        return moved[torch.arange(len(shift)), shift].long()

    @torch.no_grad()
    def _choose(self, x: Tensor, uniforms: Tensor, **options: Tensor | bool) -> tuple[Tensor, Tensor]:
        """Draws an example and a shift from p(n, s | x) for each uniform: [B, D], [B, M] -> [B, M], [B, M]."""
        chosen = []
        for rows in torch.arange(len(x)).split(GROUP):
            given = {key: value[rows] if isinstance(value, Tensor) else value for key, value in options.items()}
            joint = torch.cat([*self._log_joint(x[rows], **given)], -1).transpose(0, 1).flatten(1)  # type: ignore
            cumulative = widest(joint).softmax(-1).cumsum(-1)
            place = torch.searchsorted(cumulative, uniforms[rows] * cumulative[:, -1:], right=True)
            chosen.append(place.clamp_(max=joint.shape[1] - 1))
        return torch.cat(chosen) % len(self._examples()), torch.cat(chosen) // len(self._examples())

    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        uniforms = rand((len(x), 1), streams, self.device)
        example, shift = self._choose(x.flatten(1), uniforms, known=known.flatten(1))
        return self._pixels(example[:, 0], shift[:, 0], streams)

    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        x = x.flatten(1)
        example, shift = self._choose(x, rand((len(x), CHOICES), generator, x.device), strangers=True)
        entries = self._kernels(example.flatten(), shift.flatten())  # [B M, D]
        on = x.repeat_interleave(CHOICES, 0)
        return {
            "seen": entries.flatten().bincount(minlength=len(self.logits)).to(widest_dtype(x.device)),
            "on": entries.flatten().bincount(on.flatten().to(widest_dtype(x.device)), minlength=len(self.logits)),
            "shifts": shift.flatten().bincount(minlength=len(self.shifts)).to(widest_dtype(x.device)),
        }

    def finish(self, statistics: dict[str, Tensor]) -> None:
        level = torch.linspace(0.01, 0.99, self.num_levels).repeat(2)  # a prior worth one pixel
        self.logits.copy_(((statistics["on"] + level.to(self.logits)) / (statistics["seen"] + 1)).logit())
        shifts = statistics["shifts"] + 1
        self.log_shifts.copy_((shifts / shifts.sum()).log())
