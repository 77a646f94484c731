"""Log-likelihoods of denoisers, in nats: a bound in continuous time, and an estimate by the probability-flow ODE.

The ODE gives codes, too: it leads from data to noise and back.

Variational bound (Kingma et al. 2021, https://arxiv.org/abs/2107.00630, eq. 11-15), for the distribution of ancestral
sampling in infinitely many steps, with y = to_state(x) and y_s = y + s epsilon, between noise levels a and b:

    log p(x) >= log p(x | y_a) - KL(N(y, b^2 I) || N(0, b^2 I)) - integral of |y - D(y_s; s)|^2/s^2 d ln s, from a to b

p(x | y_a) = N(y_a, a^2 I) for real numbers; for L grey levels, it is that density at each level, normalised.

Probability-flow ODE (Song et al. 2021, https://arxiv.org/abs/2011.13456, eq. 39), for the distribution of the ODE
samplers:

    dy/ds = v(y; s) = (y - D(y; s))/s
    log p(x) = log N(y_b; 0, b^2 I) + integral of div v ds, from a to b + log |det dy/dx|

It is an estimate, because Heun's method solves the ODE only approximately, and because the data take the place of y_a,
which should have noise a. Each step takes two evaluations, and a backward pass for each dimension or for each random
probe of the divergence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor

from zoo.capabilities import Denoiser
from zoo.config import Between, Size
from zoo.nn.precision import widest, widest_dtype
from zoo.progress import steps
from zoo.random import Source, rand, randn
from zoo.samplers.denoising import noise_levels

# ------------------------------------------------------------------------------------------------------------- bound


def variational_bound(model: Denoiser, x: Tensor, lowest: float, *, generator: Source = None, **given: Any) -> Tensor:
    """An unbiased estimate of the variational bound from one noise level drawn for each example.

    Args:
        model: Any denoiser; `model.levels` is the number of grey levels of x, or None for real numbers.
        x: Data, [B, *event_shape].
        lowest: The noise level a, in units of states; b is `model.sigma_max`.
        generator: Source of the noise.
        given: Labels, if the model takes them.

    Returns:
        Estimates in nats, [B]: of the log-probability of x if it has grey levels, else of its log-density.
    """
    y, highest = model.to_state(x), model.sigma_max
    prior = y.square().flatten(1).sum(1) / (2 * highest**2)
    span = math.log(highest / lowest)
    sigma = lowest * (span * rand((len(x), 1), generator, x.device)[:, 0]).exp()  # ln sigma is uniform
    epsilon = randn(tuple(y.shape), generator, y.device)
    error = model.denoise(y + _like(sigma, y) * epsilon, sigma, **given) - y
    diffusion = span * error.square().flatten(1).sum(1) / sigma**2
    return _log_data(model, y, lowest, generator) - prior - diffusion


def _log_data(model: Denoiser, y: Tensor, lowest: float, source: Source) -> Tensor:
    """An unbiased estimate of E[log p(x | y + lowest epsilon)], exact for real numbers: [B]."""
    if model.levels is None:
        size = math.prod(model.event_shape)
        return y.new_full((len(y),), size * (math.log(_slope(model, y) / lowest) - 0.5 * math.log(2 * math.pi) - 0.5))
    epsilon = randn(tuple(y.shape), source, y.device)
    exponent = -epsilon.square() / 2
    gap = _slope(model, y) / (model.levels - 1)  # between the states of neighbouring levels
    reach = math.ceil(8 * lowest / gap) + 1  # levels further away are unlikely beyond float32
    lowest_state, highest_state = (float(model.to_state(torch.full_like(y[:1], v)).flatten()[0]) for v in (0.0, 1.0))
    log_total = torch.full_like(y, -math.inf)
    for offset in range(-reach, reach + 1):
        level = y + offset * gap
        is_level = (level > lowest_state - gap / 2) & (level < highest_state + gap / 2)
        at_level = -(epsilon - offset * gap / lowest).square() / 2
        log_total = torch.logaddexp(log_total, at_level.where(is_level, -math.inf))
    return (exponent - log_total).flatten(1).sum(1)


# --------------------------------------------------------------------------------------------------------------- ODE


@dataclass(frozen=True)
class FlowSettings:
    """Settings of the ODE solver. Estimates with different settings count as different measurements.

    Attributes:
        steps: Number of steps of Heun's method.
        rho: Spacing of the noise levels, as in samplers.
        probes: Number of random vectors with which the divergence is estimated (Hutchinson 1989); None for the exact
            divergence, which takes a backward pass for each dimension.
        lowest: Noise level at which the ODE begins; the model's `sigma_min` by default.
    """

    steps: Size = 200
    rho: Annotated[float, Between(1, 100)] = 7.0
    probes: Size | None = None
    lowest: Annotated[float, Between(1e-9, 1e9)] | None = None


def flow_log_prob(
    model: Denoiser, x: Tensor, settings: FlowSettings | None = None, *, generator: Source = None, **given: Any
) -> Tensor:
    """Estimates the log-density of real numbers by the probability-flow ODE.

    Args:
        model: Any denoiser; the ODE ends at its `sigma_max`.
        x: Data, [B, *event_shape].
        settings: How the ODE is solved; 200 steps and the exact divergence by default.
        generator: Source of the random vectors, if the divergence is estimated.
        given: Labels, if the model takes them.

    Returns:
        Log-densities of x in nats, [B], float64.
    """
    settings = settings or FlowSettings()
    lowest = settings.lowest or model.sigma_min
    levels = noise_levels(model.sigma_max, lowest, settings.steps + 1, settings.rho)[::-1]
    y, size, probes = model.to_state(x), math.prod(model.event_shape), None
    if settings.probes is not None:
        signs = rand((len(x), settings.probes, *model.event_shape), generator, x.device) < 0.5
        probes = signs.to(y.dtype).transpose(0, 1) * 2 - 1  # [probes, B, *event_shape]
    log_det = torch.full((len(x),), size * math.log(_slope(model, y)), dtype=widest_dtype(x.device), device=x.device)
    for sigma, to in steps(list(pairwise(levels)), "step"):
        start, start_divergence = _velocity(model, y, sigma, probes, given)
        end, end_divergence = _velocity(model, y + (to - sigma) * start, to, probes, given)
        y = y + (to - sigma) * (start + end) / 2
        log_det += (to - sigma) * (start_divergence + end_divergence) / 2
    log_normaliser = size * (0.5 * math.log(2 * math.pi) + math.log(levels[-1]))
    return log_det - 0.5 * widest((y / levels[-1]).flatten(1)).square().sum(1) - log_normaliser


def noise_of(model: Denoiser, x: Tensor, num_steps: int, **given: Any) -> Tensor:
    """Follows the probability-flow ODE from data to noise, by Heun's method.

    `Heun` leads back from there. As the number of steps grows, the error of the round trip falls with its square.

    Args:
        model: Any denoiser.
        x: Data, [B, *event_shape].
        num_steps: Number of noise levels from `sigma_min` to `sigma_max`, as of a sampler with as many steps.
        given: Labels, if the model takes them.

    Returns:
        States at `sigma_max`, divided by `sigma_max`: [B, *event_shape], nearly standard normal.
    """
    y = model.to_state(x)
    for sigma, to in steps(
        list(pairwise(noise_levels(model.sigma_max, model.sigma_min, num_steps, 7.0)[::-1])), "step"
    ):
        start, end = (y.new_full((len(y),), level) for level in (sigma, to))
        slope = (y - model.denoise(y, start, **given)) / sigma
        ahead = y + (to - sigma) * slope
        y = y + (to - sigma) * (slope + (ahead - model.denoise(ahead, end, **given)) / to) / 2
    return y / model.sigma_max


def _velocity(
    model: Denoiser, y: Tensor, sigma: float, probes: Tensor | None, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """v, [B, *event_shape], and its divergence, [B]."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        velocity = (y - model.denoise(y, y.new_full((len(y),), sigma), **given)) / sigma
        if probes is None:
            columns = velocity.flatten(1).unbind(1)
            parts = [_gradient(column, y).flatten(1)[:, i] for i, column in enumerate(columns)]
            divergence = torch.stack(parts).sum(0)
        else:
            parts = [(_gradient(velocity * probe, y) * probe).flatten(1).sum(1) for probe in probes]
            divergence = torch.stack(parts).mean(0)
    return velocity.detach(), widest(divergence)


def _gradient(value: Tensor, y: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), y, retain_graph=True)[0]


def _slope(model: Denoiser, y: Tensor) -> float:
    """dy/dx of `to_state`, which is the same everywhere and for every pixel."""
    ends = (model.to_state(torch.full_like(y[:1], value)).flatten()[0] for value in (1.0, 0.0))
    return float(next(ends) - next(ends))


def _like(sigma: Tensor, y: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (y.ndim - 1))
