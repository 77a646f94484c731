"""Likelihoods of data, in nats and in bits per dimension.

nll      = -mean log p(x), or of its estimate        see `zoo.metrics.estimators`
neg_elbo = -mean ELBO
ode_nll  = -mean log p(x) by the probability-flow ODE
bits/dim = nats/(D log 2)                            for 8-bit data; D counts pixels times channels
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from zoo.capabilities import Conditional, KnownEntropy, ZooModule
from zoo.data.base import DataModule, Which
from zoo.errors import ConfigError, DataError
from zoo.measurement import LOG_Z, Measurement, mean_and_error, nats_to
from zoo.metrics.estimators import (
    ESTIMATORS,
    ON_REQUEST,
    Effort,
    Estimate,
    Estimator,
    averaged_over_classes,
    by_class,
    estimators_of,
)
from zoo.metrics.examples import Index, check_levels, check_shapes, measuring, per_example, slice_details


def nll(
    model: ZooModule,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    on_request: bool = False,
    batch_size: int = 500,
    progress: bool = True,
    **effort: Any,
) -> list[Measurement]:
    """Measures every likelihood that a model has; there is none if it only draws.

    A conditional model is given the labels of the data.

    Args:
        model: The model.
        data: The data set.
        split: Split of the data set.
        index: Positions in the split, or "slice" for a few seeded ones; all by default.
        on_request: Whether to use the estimators of `estimators.ON_REQUEST` in place of the others.
        batch_size: Number of rows that pass through the network at once. It bounds the memory and changes no number.
        progress: Whether to show a progress bar.
        effort: Fields of `Effort`: `k`, `draws` and `seed`.

    Returns:
        One measurement for each estimator of the model and each unit.

    Raises:
        DataError: Model and data differ in shape or grey levels.
        ZooError: A likelihood is not finite.
    """
    chosen = Effort(**effort)
    estimators = estimators_of(type(model), ON_REQUEST if on_request else ESTIMATORS)
    whole = _likelihoods(
        model, estimators, data, split, index, chosen.reduced() if index == "slice" else chosen, batch_size, progress
    )
    if index is not None or all("runs" not in measurement.details for measurement in whole):
        return whole
    rough = _likelihoods(model, estimators, data, split, "slice", chosen.reduced(), batch_size, progress)
    return [_with_slice(*pair) for pair in zip(whole, rough, strict=True)]


def _likelihoods(
    model: ZooModule,
    estimators: dict[str, Estimator],
    data: DataModule,
    split: Which,
    index: Index,
    effort: Effort,
    batch_size: int,
    progress: bool,
) -> list[Measurement]:
    """One measurement for each estimator of a model and each unit."""
    measurements = []
    for name, make in estimators.items():
        estimate, nats = _estimated(model, make, data, split, index, effort, name, batch_size, progress)
        given = {"given": "labels"} if isinstance(model, Conditional) else {}
        for unit in ("nats", "bits/dim") if data.levels == 256 else ("nats",):
            factor = nats_to(unit, data.event_shape)
            values = -nats * factor
            value, error = mean_and_error(values)
            if estimate.error:
                error = math.hypot(error or 0.0, estimate.error * factor)
            details = estimate.settings | given
            details |= slice_details(values, data, split, index, seed=effort.seed, cost=estimate.cost)
            num, kind = len(values), estimate.kind
            measurements.append(
                Measurement(name, value, error, unit, kind, num, effort.seed, split, data.name, details)
            )
    return measurements


def _with_slice(whole: Measurement, rough: Measurement) -> Measurement:
    """The whole number, with the number on the slice that has a rough log Z of its own."""
    piece = {"n": rough.n, "value": rough.value} | {name: rough.details[name] for name in LOG_Z}
    return replace(whole, details=whole.details | {"slice": piece})


def entropy(model: KnownEntropy, data: DataModule, split: Which = "test", *, seed: int = 0) -> list[Measurement]:
    """The entropy of a model, which its `nll` tends to if the data are its own samples."""
    return [Measurement("entropy", model.entropy(), None, "nats", "exact", 0, seed, split, data.name)]


class LogLikelihood(NamedTuple):
    """The log-likelihood of each of some examples.

    Attributes:
        nats: log p(x), or the tightest bound of it that the model has: [n], float64.
        name: `log_prob`, or `elbo` if there is no better bound.
        estimate: How it was found.
    """

    nats: Tensor
    name: str
    estimate: Estimate


def log_likelihood(
    model: ZooModule,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
    **effort: Any,
) -> LogLikelihood | None:
    """Computes log p(x) of each example; arguments are those of `nll`.

    A conditional model is averaged over its classes, each being equally likely: log 1/C sum_c p(x | c).

    Returns:
        The log-likelihoods in the order of `index`; None if the model has neither a density nor a bound.

    Raises:
        DataError: Model and data differ in shape or grey levels, or a log-likelihood is not finite.
    """
    estimators = estimators_of(type(model))
    if not estimators:
        return None
    name = "nll" if "nll" in estimators else [*estimators][-1]
    title = "log_prob" if name == "nll" else name.removeprefix("neg_")
    make = estimators[name]

    def of_examples(model: ZooModule, effort: Effort) -> Estimate:
        estimate = make(model, effort)
        return averaged_over_classes(estimate, model.num_classes) if isinstance(model, Conditional) else estimate

    estimate, nats = _estimated(model, of_examples, data, split, index, Effort(**effort), title, batch_size, progress)
    if not nats.isfinite().all():
        worst = nats[~nats.isfinite()][0].item()
        raise DataError(
            f"{data.name}: expected a finite log-likelihood of every image, found {worst}; the model does not suit them"
        )
    return LogLikelihood(nats, title, estimate)


def class_log_likelihoods(
    model: Conditional,
    data: DataModule,
    split: Which = "test",
    *,
    index: Index = None,
    batch_size: int = 500,
    progress: bool = True,
    **effort: Any,
) -> Tensor:
    """Computes log p(x | c) of each example for every class c; arguments are those of `nll`.

    The same noise serves all classes, so that their differences are precise.

    Returns:
        [n, C] in nats, float64, in the order of `index`.

    Raises:
        ConfigError: The model has neither a density nor a bound.
        DataError: Model and data differ in shape or grey levels.
    """
    estimators = estimators_of(type(model))
    if not estimators:
        raise ConfigError(
            f"classes: {type(model).__name__} has neither a density nor a bound, so that no class is likelier"
        )
    make = estimators.get("nll") or [*estimators.values()][-1]

    def of_classes(model: Conditional, effort: Effort) -> Estimate:
        return by_class(make(model, effort), model.num_classes)

    return _estimated(
        model, of_classes, data, split, index, Effort(**effort), "log p(x | class)", batch_size, progress
    )[1]


def _estimated(
    model: ZooModule,
    make: Estimator,
    data: DataModule,
    split: Which,
    index: Index,
    effort: Effort,
    title: str,
    batch_size: int,
    progress: bool,
) -> tuple[Estimate, Tensor]:
    """An estimate, and its values on the examples: [n, ...], float64."""
    check_shapes(model, data)
    check_levels(model, data)
    with measuring(model):
        estimate = make(model, effort)
        nats = per_example(
            estimate.values,
            data,
            split,
            index=index,
            seed=effort.seed,
            cost=estimate.cost,
            batch_size=max(1, batch_size // estimate.rows),
            device=model.device,
            label=f"{title} on {data.name} {split}",
            progress=progress,
        )
    return estimate, nats
