"""Laws of lower bounds of the log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.capabilities import EvidenceLowerBound, ImportanceWeighted
from zoo.laws.densities import not_enumerable
from zoo.laws.law import LIMIT, hold, law, same, seeded
from zoo.laws.subject import Subject
from zoo.random import Streams

DRAWS = 16
"""Number of draws of noise over which a bound is averaged."""


@law("The noise of a bound belongs to its example", EvidenceLowerBound)
def the_noise_of_a_bound_belongs_to_its_example(subject: Subject) -> str:
    model, x, given, largest = subject.build(), subject.data(5), subject.given(5), 0.0
    estimates: dict[str, Callable[..., Tensor]] = {
        "elbo": model.elbo,
        "training_bound": lambda x, generator, **given: model.training_bound(x, generator, **given),
    }
    if isinstance(model, ImportanceWeighted):
        estimates["log_weights"] = lambda x, **options: model.log_weights(x, 3, **options).logsumexp(0)
    for name, estimate in estimates.items():
        with torch.no_grad():
            first, again, other = (estimate(x, generator=Streams(seed, range(5)), **given) for seed in (1, 1, 2))
            alone = estimate(x[3:4], generator=Streams(1, [3]), **{key: v[3:4] for key, v in given.items()})
        hold(first.shape == (5,), f"{name} of five examples has shape {list(first.shape)}")
        hold(torch.equal(first, again), f"{name} differs with the same noise")
        hold(not torch.equal(first, other), f"{name} does not depend on its noise")
        largest = max(largest, same(alone[0], first[3], f"{name} of an example alone and among others"))
    return f"largest difference {largest:.2g}"


@law("Bounds of all probabilities sum to at most one", EvidenceLowerBound, exempt=not_enumerable)
def bounds_sum_to_at_most_one(subject: Subject) -> str:
    """If elbo(x) <= log p(x) for all x, then sum_x exp(elbo(x)) <= sum_x p(x) = 1."""
    model, states = subject.build(), subject.states()
    given = subject.same_label(len(states))
    with torch.no_grad():
        noise = (Streams(seed, range(len(states))) for seed in range(DRAWS))
        draws = torch.stack([model.elbo(states, generator=streams, **given).double() for streams in noise])
    terms = draws.mean(0).exp()
    mass = terms.sum().item()
    error = (terms * draws.std(0) / math.sqrt(DRAWS)).square().sum().sqrt().item()
    jensen = (terms * draws.var(0)).sum().item() / (2 * DRAWS)  # what noise in the exponent adds on average
    figure = f"the sum is {mass:.4g} +- {error:.1g}"
    hold(mass - jensen < 1 + LIMIT * error + 1e-4, figure)
    return figure


class Bounds(NamedTuple):
    """Means of bounds of three examples, and their standard errors, [3] each: the elbo, then L_1, L_4 and L_16."""

    means: list[Tensor]
    errors: list[Tensor]


REPEATS = 1000


def bounds_of(model: Any, x: Tensor, given: dict[str, Tensor]) -> Bounds:
    """The elbo and importance-weighted bounds, each the mean of `REPEATS` draws."""

    def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
        values = values.view(REPEATS, len(x)).double()
        return values.mean(0), values.std(0) / math.sqrt(REPEATS)

    repeated = x.repeat(REPEATS, *[1] * (x.dim() - 1))
    labels = {name: value.repeat(REPEATS) for name, value in given.items()}
    with torch.no_grad():
        found = [mean_and_error(model.elbo(repeated, generator=seeded(), **labels))]
        for k in (1, 4, 16):
            log_weights = model.log_weights(repeated, k, generator=seeded(k), **labels)
            hold(
                log_weights.shape == (k, len(repeated)),
                f"{k} log-weights of {len(repeated)} examples have shape {list(log_weights.shape)}",
            )
            found.append(mean_and_error(log_weights.logsumexp(0) - math.log(k)))
    means, errors = zip(*found, strict=True)
    return Bounds(list(means), list(errors))


@law("Importance samples tighten the bound, and one gives the bound itself", ImportanceWeighted)
def importance_samples_tighten_the_bound(subject: Subject) -> str:
    """E[elbo] = L_1 <= L_4 <= L_16, where L_k averages k importance weights."""
    (elbo, *means), (elbo_error, *errors) = bounds_of(subject.build(), subject.data(3), subject.given(3))
    z = (means[0] - elbo) / torch.hypot(elbo_error, errors[0])
    worst = z[z.abs().argmax()].item()
    hold(
        abs(worst) < LIMIT,
        f"one importance sample gives {means[0].mean():.4g} nats, and elbo {elbo.mean():.4g}: {worst:.1f} standard "
        "errors apart",
    )
    for (low, low_error), (high, high_error) in pairwise(zip(means, errors, strict=True)):
        gap = (low - high) / torch.hypot(low_error, high_error)
        hold((gap < LIMIT).all(), f"more importance samples lower the bound by {gap.max():.1f} standard errors")
    return f"elbo {elbo.mean():.2f}, with 16 samples {means[2].mean():.2f} nats"
