"""Functions of denoisers: turn drawings into examples, and watch an example appear.

Each function needs a `Denoiser` and raises a ConfigError for other models. A `Conditional` denoiser can be given
`labels`, one for each example or one for all; without labels it removes noise from examples of any class.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.capabilities import Denoiser, GenerativeModel
from zoo.errors import ConfigError
from zoo.given import Labels, check_given, check_images, check_num, rows_of
from zoo.module import batches_of
from zoo.samplers import Ancestral
from zoo.samplers.base import Sampler


class Moment(NamedTuple):
    """A batch on its way from noise to data.

    Attributes:
        y: Noisy states, data plus sigma times noise, [B, *event_shape].
        denoised: What the model expects them to become, E[x | y], as data, [B, *event_shape].
        sigma: The noise level.
    """

    y: Tensor
    denoised: Tensor
    sigma: float


@torch.no_grad()
def edit(
    model: GenerativeModel,
    x: Tensor,
    strength: float,
    *,
    labels: Labels = None,
    sampler: Sampler | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 250,
) -> Tensor:
    """Turns rough drawings into examples of a model: adds noise to them, and removes it again.

    SDEdit, Meng et al. 2022, https://arxiv.org/abs/2108.01073.

    Args:
        model: A Denoiser.
        x: Drawings, [B, *event_shape], images in [0, 1].
        strength: Share of the sampler's steps to take, in [0, 1]: 0 leaves x as it is, 1 draws almost freely.
        labels: Classes of the results, if the model is `Conditional`.
        sampler: How to remove the noise; by default `Ancestral(steps=50)`, or the model's own if it cannot be used.
        generator: Source of the seed of all noise.
        batch_size: Number of examples in a batch; bounds the memory.

    Returns:
        [B, *event_shape].

    Raises:
        ConfigError: The model is not a Denoiser, or does not take the labels or the sampler; or the strength is not in
            [0, 1].
        DataError: x has another shape than examples of the model.
    """
    denoiser = _denoiser(model, "edit")
    if not 0 <= strength <= 1:
        raise ConfigError(f"edit: expected a strength from 0 to 1, found {strength}")
    check_images(model, x, "edit")
    if sampler is None:
        sampler = Ancestral(steps=50) if Ancestral in denoiser.samplers else denoiser.sampler
    given = check_given(model, {"labels": labels, "sampler": sampler}, len(x))
    chosen, x = given.pop("sampler"), x.to(model.device)
    edited = [
        chosen.edit(denoiser, x[rows], strength, streams, **rows_of(given, rows, model.device))
        for streams, rows in batches_of(torch.arange(len(x)), generator, batch_size)
    ]
    return torch.cat(edited) if edited else x


@torch.no_grad()
def watch(
    model: GenerativeModel,
    num_samples: int,
    *,
    labels: Labels = None,
    sampler: Sampler | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, list[Moment]]:
    """Draws examples in one batch, and keeps every evaluation of the network on the way.

    Args:
        model: A Denoiser.
        num_samples: Number of examples.
        labels: Classes to draw, if the model is `Conditional`.
        sampler: How to draw; the model's sampler by default.
        generator: Source of the seed of all noise.

    Returns:
        What `model.sample` draws with the same generator, [num_samples, *event_shape], and the evaluations in order.

    Raises:
        ConfigError: The model is not a Denoiser, or does not take the labels or the sampler.
    """
    watched = _Watched(_denoiser(model, "watch"))
    check_num("num_samples", num_samples, 1)
    given = check_given(model, {"labels": labels, "sampler": sampler}, num_samples)
    ((streams, rows),) = batches_of(torch.arange(num_samples), generator, num_samples)
    given = {**model.unsaid(given, streams), **rows_of(given, rows, model.device)}
    return given.pop("sampler")(watched, streams, **given), watched.moments


def noisy_images(model: Denoiser, moment: Moment) -> Tensor:
    """The noisy states of a moment as images, scaled down so that noise of any level can be seen: [B, *event_shape]."""
    return model.from_state(moment.y / (1 + moment.sigma))


class _Watched:
    """A denoiser that keeps what it is asked and what it answers."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self.moments: list[Moment] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def denoise(self, y: Tensor, sigma: Tensor, **given: Tensor) -> Tensor:
        denoised = self.model.denoise(y, sigma, **given)
        self.moments.append(Moment(y, self.model.from_state(denoised), float(sigma[0])))
        return denoised


def _denoiser(model: GenerativeModel, name: str) -> Denoiser:
    if not isinstance(model, Denoiser):
        raise ConfigError(f"{name}: expected a Denoiser, such as a diffusion model, found {type(model).__name__}")
    return model
