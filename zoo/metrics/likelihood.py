"""Likelihoods in nats and bits/dim, by what a model can do.

    nll = -mean log p(x)                                   exact, for a tractable density
    nll = -mean E_u[log p((x 255 + u)/256)] + D log 256    bound, for 8-bit images under a density of continuous data
    neg_elbo = -mean E_q[log p(x, z) - log q(z given x)]   bound
    nll = -mean log 1/k sum_j p(x, z_j)/q(z_j given x)     bound, tighter with k (Burda et al. 2016, eq. 8)
    bits/dim = nats/(D log 2)                              of 8-bit data; D counts pixels times channels

Dequantisation as a bound: Theis et al. 2016, https://arxiv.org/abs/1511.01844, section 3.1.
Importance weighting: https://arxiv.org/abs/1509.00519.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import (
    Conditional,
    Dequantized,
    EvidenceLowerBound,
    ImportanceWeighted,
    KnownEntropy,
    TractableDensity,
    ZooModule,
)
from zoo.data.base import DataModule, Which
from zoo.errors import ConfigError, DataError
from zoo.measurement import Kind, Measurement, mean_and_error, nats_to
from zoo.metrics.examples import Index, check_levels, check_shapes, measuring, per_example, slice_details
from zoo.random import Streams

SAMPLES_PER_CALL = 50  # importance samples; fixed, because the noise of a sample depends on its call and place in it


def nll(
    model: ZooModule,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    draws: int = 10,
    k: int = 5000,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> list[Measurement]:
    """The likelihoods that a model has: an empty list for a model that only draws.

    Args:
        index: positions in the split, or "slice" for a few seeded ones; by default all.
        draws: of the dequantisation noise, or of the code in the ELBO, per example.
        k: importance samples per example.
        seed: keys every draw together with the position of its example.
        batch_size: rows that pass through the network at once: bounds the memory, changes no number.

    Raises:
        DataError: model and data differ in shape or grey levels.
        ZooError: a likelihood is not finite.
    """
    measurements = []
    for name, (function, rows, cost, settings) in _estimators(model, draws, k, seed).items():
        check_shapes(model, data)
        check_levels(model, data)
        nats = -_values(model, function, rows, cost, data, split, index, seed, batch_size, name, progress)
        if isinstance(model, Conditional):
            settings["given"] = "labels"
        for unit in ("nats", "bits/dim") if data.levels == 256 else ("nats",):
            values = nats * nats_to(unit, data.event_shape)
            value, error = mean_and_error(values)
            details = settings | slice_details(values, data, split, index, seed=seed, cost=cost)
            kind = likelihood_kind(model)
            measurements.append(
                Measurement(name, value, error, unit, kind, len(values), seed, split, data.name, details)
            )
    if isinstance(model, KnownEntropy) and index is None:  # what nll tends to where the data are its own samples
        measurements.append(Measurement("entropy", model.entropy(), None, "nats", "exact", 0, seed, split, data.name))
    return measurements


def likelihood_kind(model: ZooModule) -> Kind:
    """Whether the likelihoods of a model are exact, bounds or estimates: a matter of its type."""
    if isinstance(model, EvidenceLowerBound) or (isinstance(model, Dequantized) and model.levels is not None):
        return "bound"
    return "exact" if isinstance(model, TractableDensity) else "estimate"


class LogLikelihood(NamedTuple):
    """log p(x) of each of some images, or its tightest bound that the model has."""

    nats: Tensor  # [n], float64
    name: str  # `log_prob`; `elbo`
    kind: Kind
    settings: dict[str, Any]


def log_likelihood(
    model: ZooModule,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    draws: int = 10,
    k: int = 5000,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> LogLikelihood | None:
    """log p(x) image by image; None for a model that has neither a density nor a bound. Arguments as in `nll`.

    A conditional model is averaged over its classes, each as likely as any other: log 1/C sum_c p(x given c).

    Raises:
        ZooError: as `nll`.
    """
    found = _estimators(model, draws, k, seed)
    if not found:
        return None
    check_shapes(model, data)
    check_levels(model, data)
    name = "nll" if "nll" in found else "neg_elbo"
    function, rows, cost, settings = found[name]
    if isinstance(model, Conditional):
        function, cost = _averaged(function, model.num_classes), cost * model.num_classes
        settings["averaged_over"] = "labels"
    title = {"nll": "log_prob", "neg_elbo": "elbo"}[name]
    nats = _values(model, function, rows, cost, data, split, index, seed, batch_size, title, progress)
    if not nats.isfinite().all():
        worst = nats[~nats.isfinite()][0].item()
        raise DataError(
            f"{data.name}: expected a finite log-likelihood of every image, found {worst}; the model does not suit them"
        )
    return LogLikelihood(nats, title, likelihood_kind(model), settings)


def _averaged(function: Callable[[Batch], Tensor], num_classes: int) -> Callable[[Batch], Tensor]:
    def marginal(batch: Batch) -> Tensor:
        given = [
            function(batch._replace(labels=torch.full((len(batch.x),), label, device=batch.x.device))).cpu().double()
            for label in range(num_classes)
        ]
        return torch.stack(given).logsumexp(0) - math.log(num_classes)

    return marginal


def _values(
    model: ZooModule,
    function: Callable[[Batch], Tensor],
    rows: int,
    cost: int,
    data: DataModule,
    split: Which,
    index: Index,
    seed: int,
    batch_size: int,
    name: str,
    progress: bool,
) -> Tensor:
    with measuring(model):
        return per_example(
            function,
            data,
            split,
            index=index,
            seed=seed,
            cost=cost,
            batch_size=max(1, batch_size // rows),
            device=model.device,
            label=f"{name} on {data.name} {split}",
            progress=progress,
        )


def _estimators(
    model: ZooModule, draws: int, k: int, seed: int
) -> dict[str, tuple[Callable[[Batch], Tensor], int, int, dict[str, Any]]]:
    """Estimates of log p(x) in nats by name: the function, rows of an example at once and in all, settings."""

    def average(batch: Batch, function: Callable[[Streams], Tensor]) -> Tensor:
        return sum(function(Streams(seed, batch.index, step)).cpu().double() for step in range(draws)) / draws  # type: ignore

    def exact(batch: Batch) -> Tensor:
        assert isinstance(model, TractableDensity)
        return model.log_prob(batch.x, **model.given(batch))

    def dequantized(batch: Batch) -> Tensor:
        assert isinstance(model, Dequantized) and model.levels is not None
        cell = math.prod(model.event_shape) * math.log(model.levels)  # log 1/volume of what rounds to one image
        dequantize, given = model.dequantize, model.given(batch)
        return average(batch, lambda noise: model.log_prob(dequantize(batch.x, generator=noise), **given)) - cell

    def lower_bound(batch: Batch) -> Tensor:
        assert isinstance(model, EvidenceLowerBound)
        return average(batch, lambda noise: model.elbo(batch.x, generator=noise, **model.given(batch)))

    def importance_weighted(batch: Batch) -> Tensor:
        assert isinstance(model, ImportanceWeighted)
        total = torch.full((len(batch.x),), -math.inf, dtype=torch.float64)
        for step, start in enumerate(range(0, k, SAMPLES_PER_CALL)):
            noise, num = Streams(seed, batch.index, step), min(SAMPLES_PER_CALL, k - start)
            weights = model.log_weights(batch.x, num, generator=noise, **model.given(batch))  # [num, B]
            total = torch.logaddexp(total, weights.cpu().double().logsumexp(0))
        return total - math.log(k)

    for name, number in (("draws", draws), ("k", k)):
        if number < 1:
            raise ConfigError(f"{name}: expected at least 1, found {number}")
    found: dict[str, tuple[Callable[[Batch], Tensor], int, int, dict[str, Any]]] = {}
    if isinstance(model, Dequantized) and model.levels is not None:
        found["nll"] = dequantized, 1, draws, {"draws": draws}
    elif isinstance(model, TractableDensity):
        found["nll"] = exact, 1, 1, {}
    if isinstance(model, EvidenceLowerBound):
        found["neg_elbo"] = lower_bound, 1, draws, {"draws": draws}
    if isinstance(model, ImportanceWeighted):
        found["nll"] = importance_weighted, min(k, SAMPLES_PER_CALL), k, {"k": k}
    return found
