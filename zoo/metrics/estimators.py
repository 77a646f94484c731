"""How log p(x) is computed or estimated: one table by capability.

    TractableDensity     nll        log p(x)                                             exact
    Dequantized          nll        E_q[log p((255 x + u)/256) - log q(u)] - D log 256   bound, for 8-bit images
    EvidenceLowerBound   neg_elbo   E_q[log p(x, z) - log q(z | x)]                      bound
    ImportanceWeighted   nll        log 1/k sum_j p(x, z_j)/q(z_j | x), z_j from q       bound, tighter with k
    UnnormalizedDensity  nll        -energy(x) - log Z                                   estimate, by AIS of log Z
    UnnormalizedBound    neg_elbo   E_q[log w] - log Z, w unbiased for Z p(x)            estimate of a bound
                         nll        log 1/k sum_j w_j - log Z                            estimate, tighter with k
    DiffusionModel       ode_nll    log p(x) by the probability-flow ODE, on request     estimate

u is uniform on [0, 1)^D (Theis et al. 2016, https://arxiv.org/abs/1511.01844, section 3.1), or its density q is learned
(see `zoo.flows.dequantizer`). Importance weighting: Burda et al. 2016, https://arxiv.org/abs/1509.00519, equation 8.

A new capability adds a function that makes an `Estimate`, and a line to `ESTIMATORS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import (
    Dequantized,
    EvidenceLowerBound,
    ImportanceWeighted,
    TractableDensity,
    Unnormalized,
    UnnormalizedBound,
    UnnormalizedDensity,
)
from zoo.diffusion.denoiser import DiffusionModel
from zoo.diffusion.likelihood import FlowSettings, flow_log_prob
from zoo.errors import ConfigError
from zoo.measurement import Kind
from zoo.metrics.normalizer import normalizer_of
from zoo.random import Streams, rand

SAMPLES_PER_CALL = 50
"""Importance samples drawn at once. It is fixed, because the noise of a sample depends on its place among them."""

MOST_EXACT = 16
"""Largest number of dimensions in which the divergence of an ODE is computed exactly."""


@dataclass(frozen=True)
class Effort:
    """How precisely likelihoods are estimated, and with which noise.

    Attributes:
        k: Number of importance samples per example.
        draws: Number of draws of the dequantisation noise, or of the code in the ELBO, per example.
        runs, temperatures, sweeps: Effort of annealed importance sampling; see `normalizer_of`.
        normalized: Whether log Z is estimated. Otherwise the values of an unnormalised model are those of log Z p(x).
        ode_steps: Number of steps of the solver of the probability-flow ODE.
        seed: Seed for all random draws; each draw is keyed by the position of its example, too.
    """

    k: int = 5000
    draws: int = 10
    runs: int = 500
    temperatures: int = 10_000
    sweeps: int = 1000
    normalized: bool = True
    ode_steps: int = 50
    seed: int = 0

    counts: ClassVar[tuple[str, ...]] = ("k", "draws", "runs", "temperatures", "sweeps", "ode_steps")  # at least 1 each
    on_slice: ClassVar[dict[str, int]] = {"runs": 100, "temperatures": 300, "sweeps": 30}  # log Z in seconds, roughly

    def __post_init__(self) -> None:
        for name in self.counts:
            if (number := getattr(self, name)) < 1:
                raise ConfigError(f"{name}: expected at least 1, found {number}")

    def reduced(self) -> Self:
        """The effort of a number on the slice, whose log Z is estimated roughly, but equally each time."""
        return replace(self, **{name: min(getattr(self, name), most) for name, most in self.on_slice.items()})


@dataclass(frozen=True)
class Estimate:
    """log p(x) of a model, exact, bounded or estimated.

    Attributes:
        kind: `exact`; `bound`, if the expectation is at most log p(x); `estimate`, if it may lie on either side.
        values: Maps a batch to log p(x) in nats, [B]; conditional models are given the labels of the batch.
        rows: Number of rows per example that pass through the network at once.
        cost: Number of rows per example that pass through the network in all.
        settings: What the details of a measurement say of it, JSON-plain.
        error: A standard error that all examples share, in nats, such as that of log Z.
    """

    kind: Kind
    values: Callable[[Batch], Tensor]
    rows: int = 1
    cost: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    error: float = 0.0


Estimator = Callable[[Any, Effort], Estimate]
"""Makes an estimate for a model. It is called in evaluation mode and without gradients, and may take its time."""


def exact(model: TractableDensity, effort: Effort) -> Estimate:
    """The density itself."""
    return Estimate("exact", lambda batch: model.log_prob(batch.x, **model.given(batch)))


def dequantized(model: Dequantized, effort: Effort) -> Estimate:
    """The density of dequantised pixels, averaged over the noise; exact if the data are real numbers."""
    if model.levels is None:
        return exact(model, effort)
    cell = math.prod(model.event_shape) * math.log(model.levels)  # -log of the volume that rounds to one image

    def values(batch: Batch) -> Tensor:
        def bound(streams: Streams) -> Tensor:
            y, log_noise = model.noised(batch.x, streams)
            return model.log_prob(y, **model.given(batch)) - log_noise

        return average(batch, effort, bound) - cell

    return Estimate("bound", values, cost=effort.draws, settings={"draws": effort.draws})


def lower_bound(model: EvidenceLowerBound, effort: Effort) -> Estimate:
    """The evidence lower bound, averaged over draws of the code."""

    def values(batch: Batch) -> Tensor:
        return average(batch, effort, lambda streams: model.elbo(batch.x, generator=streams, **model.given(batch)))

    return Estimate("bound", values, cost=effort.draws, settings={"draws": effort.draws})


def importance_weighted(model: ImportanceWeighted | UnnormalizedBound, effort: Effort) -> Estimate:
    """The importance-weighted bound with k samples."""
    k = effort.k

    def values(batch: Batch) -> Tensor:
        total = torch.full((len(batch.x),), -math.inf, dtype=torch.float64)
        for step, start in enumerate(range(0, k, SAMPLES_PER_CALL)):
            streams, num = Streams(effort.seed, batch.index, step), min(SAMPLES_PER_CALL, k - start)
            weights = model.log_weights(batch.x, num, generator=streams, **model.given(batch))  # [num, B]
            total = torch.logaddexp(total, weights.cpu().double().logsumexp(0))
        return total - math.log(k)

    return Estimate("bound", values, rows=min(k, SAMPLES_PER_CALL), cost=k, settings={"k": k})


def normalized(estimate: Estimate, model: Unnormalized, effort: Effort) -> Estimate:
    """From log Z p(x) to log p(x), with log Z, which is exact for few units; otherwise all examples share its error."""
    if not effort.normalized:
        return estimate
    found = normalizer_of(
        model, runs=effort.runs, temperatures=effort.temperatures, sweeps=effort.sweeps, seed=effort.seed
    )
    return replace(
        estimate,
        kind=estimate.kind if found.kind == "exact" else found.kind,
        values=lambda batch: estimate.values(batch).cpu().double() - found.log_z,
        settings={**estimate.settings, **found.settings},
        error=found.error,
    )


def unnormalized(model: UnnormalizedDensity, effort: Effort) -> Estimate:
    """The energy and log Z."""
    energy = Estimate("exact", lambda batch: -model.energy(batch.x, **model.given(batch)))
    return normalized(energy, model, effort)


def unnormalized_bound(model: UnnormalizedBound, effort: Effort) -> Estimate:
    """The mean log-weight, a lower bound of log Z p(x), and log Z."""

    def weights(batch: Batch) -> Tensor:
        return average(batch, effort, lambda streams: model.log_weights(batch.x, 1, generator=streams)[0])

    return normalized(Estimate("bound", weights, cost=effort.draws, settings={"draws": effort.draws}), model, effort)


def unnormalized_weighted(model: UnnormalizedBound, effort: Effort) -> Estimate:
    """The importance-weighted bound of log Z p(x) with k samples, and log Z."""
    return normalized(importance_weighted(model, effort), model, effort)


def probability_flow(model: DiffusionModel, effort: Effort) -> Estimate:
    """The density of the probability-flow ODE, at uniformly dequantised pixels if the data have grey levels."""
    size, levels = math.prod(model.event_shape), model.levels
    settings = FlowSettings(effort.ode_steps, probes=None if size <= MOST_EXACT else 1, lowest=model.sigma_bound)

    def values(batch: Batch) -> Tensor:
        streams = Streams(effort.seed, batch.index)
        x, cell = batch.x, 0.0
        if levels is not None:
            noise = rand(tuple(x.shape), streams, x.device)
            x, cell = ((levels - 1) * x + noise) / levels, size * math.log(levels)
        return flow_log_prob(model, x, settings, generator=streams, **model.given(batch)) - cell

    described = {"ode_steps": settings.steps} | ({} if settings.probes is None else {"probes": settings.probes})
    return Estimate("estimate", values, cost=2 * settings.steps, settings=described)


def average(batch: Batch, effort: Effort, function: Callable[[Streams], Tensor]) -> Tensor:
    """The mean of `function` over `effort.draws` draws of noise, [B], float64, on the CPU."""
    streams = (Streams(effort.seed, batch.index, step) for step in range(effort.draws))
    return sum((function(noise).cpu().double() for noise in streams), torch.zeros(())) / effort.draws


ESTIMATORS: dict[type, dict[str, Estimator]] = {
    TractableDensity: {"nll": exact},
    Dequantized: {"nll": dequantized},
    EvidenceLowerBound: {"neg_elbo": lower_bound},
    ImportanceWeighted: {"nll": importance_weighted},
    UnnormalizedDensity: {"nll": unnormalized},
    UnnormalizedBound: {"neg_elbo": unnormalized_bound, "nll": unnormalized_weighted},
}
"""Estimators by capability, and by the name of the number that they lead to."""

ON_REQUEST: dict[type, dict[str, Estimator]] = {DiffusionModel: {"ode_nll": probability_flow}}
"""Estimators that take too long to be used unless they are asked for."""

CAPABILITIES = [capability.__name__ for capability in ESTIMATORS]


def estimators_of(cls: type, table: dict[type, dict[str, Estimator]] = ESTIMATORS) -> dict[str, Estimator]:
    """The estimators of a model class by name; the more specific capability wins."""
    return {name: make for base in reversed(cls.__mro__) for name, make in table.get(base, {}).items()}


def by_class(estimate: Estimate, num_classes: int) -> Estimate:
    """From the log-likelihood given a label, [B], to those of all classes: its values are log p(x | c), [B, C]."""

    def values(batch: Batch) -> Tensor:
        classes = (torch.full((len(batch.x),), label, device=batch.x.device) for label in range(num_classes))
        return torch.stack([estimate.values(batch._replace(labels=labels)).cpu().double() for labels in classes], 1)

    return replace(estimate, values=values, cost=estimate.cost * num_classes)


def averaged_over_classes(estimate: Estimate, num_classes: int) -> Estimate:
    """From the log-likelihood given a label to log p(x) = log 1/C sum_c p(x | c), all classes being equally likely."""
    given = by_class(estimate, num_classes)
    return replace(
        given,
        values=lambda batch: given.values(batch).logsumexp(1) - math.log(num_classes),
        settings=estimate.settings | {"averaged_over": "labels"},
    )
