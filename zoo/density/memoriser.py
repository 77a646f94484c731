"""Memoriser: draws training examples, each under a kernel (Parzen 1962). It ships no image: its memory, the training
split of a published data set, is read at first use (ZOO_DATA, or downloaded), and only the kernel is in the file.

    p(x) = 1/N sum_n sum_s pi_s prod_d Bernoulli(x_d; f(b_n,d-s, m_n,d-s))
    b_n = m_n blurred by a Gaussian of sigma pixels, in one of Q levels;    s: shift of the kernel, by a few pixels
    E step: (n, s) drawn from p(n, s given x), copies of x left out
    M step: f(b, m) = how often the pixels there were on,    pi_s = how often it was that shift

https://doi.org/10.1214/aoms/1177704472; EM by draws: Celeux & Diebolt 1985.

Density: exact, a product of all images with all shifted kernels.
Sampling: exact; an example, a shift, then the pixels.
Differs from the paper: kernels of binary images; they are shifted; their form is fitted, and not chosen.
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
from zoo.random import Source, Streams, rand

CHUNK = 2500  # kernels that a product takes at once
GROUP = 25  # images that choose among all kernels at once
CHOICES = 8  # of kernels, per image and step of EM


class Memoriser(ClosedForm, TractableDensity, Completable):
    """A kernel at every training example; an epoch of training is one step of EM.

    Args:
        event_shape: (1, H, W), values in {0, 1}; images of the memory, of which none may be smaller, are cropped to it
            about their centre.
        memory: the data set whose training split is remembered; of Digits, whose seed divides them, that of seed 0.
        sigma: of the blur, in pixels.
        num_levels: Q.
        max_shift: pixels by which a kernel shifts, at most, up or down and left or right; less than H and W.
    """

    levels = 2
    iterative = True
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
        self.register_buffer("logits", level.logit().repeat(2))  # of f: for pixels that are off in m, then on
        self.register_buffer("log_shifts", torch.full((len(self.shifts),), -math.log(len(self.shifts))))
        self.register_buffer("examples", torch.empty(0, dtype=torch.uint8), persistent=False)

    def _examples(self) -> Tensor:
        """The entry of `logits` that each pixel of each example takes: [N, D], uint8."""
        if not len(self.examples):
            from zoo.data import BinarizedMNIST, Digits

            data = BinarizedMNIST() if self.memory == "BinarizedMNIST" else Digits(binarize=True)
            x = data.split("train").x
            for dim, size in enumerate(self.event_shape, 1):
                x = x.narrow(dim, (x.shape[dim] - size) // 2, size)
            self.examples = torch.cat([self._entries(part.to(self.device).float()) for part in x.split(CHUNK)])
        return self.examples

    def _entries(self, x: Tensor) -> Tensor:
        reach = math.ceil(3 * self.sigma)
        weights = (-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / self.sigma) ** 2).softmax(0)
        lines = x.flatten(0, 1)[:, None]
        for kernel, padding in ((weights.view(1, 1, -1, 1), (reach, 0)), (weights.view(1, 1, 1, -1), (0, reach))):
            lines = F.conv2d(lines, kernel, padding=padding)
        levels = (lines.view_as(x) * (self.num_levels - 1)).round()
        return (levels + self.num_levels * x).flatten(1).to(torch.uint8)

    def _shifted(self, x: Tensor, down: int, right: int) -> Tensor:
        """[..., D], with zeros where the frame was left."""
        return F.pad(x.view(-1, *self.event_shape), (right, -right, down, -down)).flatten(1)

    def _log_joint(self, x: Tensor, known: Tensor | None = None, strangers: bool = False) -> Iterator[Tensor]:
        """log p(x, n, s), of the known pixels alone if they are named: [B, D] -> [S, B, chunk of n], chunk by chunk.

        With `strangers`, copies of x have no part in it.
        """
        known = x.new_ones(1, self.size) if known is None else known.to(x)
        x = x * known
        # in place of the kernel, the image is shifted, and the other way
        moved = torch.stack([self._shifted(x, -down, -right) for down, right in self.shifts])
        inside = torch.stack([self._shifted(known, -down, -right) for down, right in self.shifts])
        outside = self.logits[0] * (x.sum(-1) - moved.sum(-1)) - F.softplus(self.logits[0]) * (
            known.sum(-1) - inside.sum(-1)
        )
        outside = outside + self.log_shifts.log_softmax(0)[:, None] - math.log(len(self._examples()))
        for entries in self._examples().split(CHUNK):
            logits = self.logits[entries.long()]
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
        shift = (uniforms[:, 1:] >= self.log_shifts.softmax(0).cumsum(0)).sum(1).clamp_(max=len(self.shifts) - 1)
        return self._pixels(example, shift, streams)

    def _pixels(self, example: Tensor, shift: Tensor, streams: Streams) -> Tensor:
        probs = self.logits[self._kernels(example, shift)].sigmoid()
        return (rand(tuple(probs.shape), streams, self.device) < probs).float().view(-1, *self.event_shape)

    def _kernels(self, example: Tensor, shift: Tensor) -> Tensor:
        """The entry of `logits` for each pixel: [B], [B] -> [B, D], int64."""
        entries = self._examples()[example].float()
        moved = torch.stack([self._shifted(entries, *by) for by in self.shifts], 1)
        return moved[torch.arange(len(shift)), shift].long()

    @torch.no_grad()
    def _choose(self, x: Tensor, uniforms: Tensor, **options: Tensor | bool) -> tuple[Tensor, Tensor]:
        """Examples and shifts from p(n, s given x), one for each uniform: [B, D], [B, M] -> [B, M], [B, M]."""
        chosen = []
        for rows in torch.arange(len(x)).split(GROUP):
            given = {key: value[rows] if isinstance(value, Tensor) else value for key, value in options.items()}
            joint = torch.cat([*self._log_joint(x[rows], **given)], -1).transpose(0, 1).flatten(1)  # type: ignore
            cumulative = joint.double().softmax(-1).cumsum(-1)
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
            "seen": entries.flatten().bincount(minlength=len(self.logits)).double(),
            "on": entries.flatten().bincount(on.flatten().double(), minlength=len(self.logits)),
            "shifts": shift.flatten().bincount(minlength=len(self.shifts)).double(),
        }

    def finish(self, statistics: dict[str, Tensor]) -> None:
        level = torch.linspace(0.01, 0.99, self.num_levels).repeat(2)  # a prior worth one pixel
        self.logits.copy_(((statistics["on"] + level.to(self.logits)) / (statistics["seen"] + 1)).logit())
        shifts = statistics["shifts"] + 1
        self.log_shifts.copy_((shifts / shifts.sum()).log())
