"""Laws of exact densities and of energies: by enumeration, integration, and Stein's identity."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from zoo.capabilities import (
    Autoregressive,
    Completable,
    KnownEntropy,
    TractableDensity,
    Unnormalized,
    UnnormalizedDensity,
)
from zoo.laws.law import LIMIT, follows, hold, largest_score, law, same, seeded, state_numbers
from zoo.laws.subject import Subject
from zoo.module import facts_of
from zoo.random import Streams

TOLERANCE = 1e-5
"""Largest |log mass - 0| of all states together, for rounding."""

POINTS = 400
"""Points along each axis of an integral."""


def not_enumerable(subject: Subject) -> str:
    return subject.why_not_enumerable


def _not_integrable(subject: Subject) -> str:
    if subject.levels is not None:
        return "its data are grey levels"
    size = math.prod(subject.event_shape)
    return f"integrals over {size} dimensions take too long; try arguments of 1 or 2" if size > 2 else ""


def _not_smooth(subject: Subject) -> str:
    if subject.levels is not None:
        return "its data are grey levels"
    return "" if subject.differentiable else "its density does not change smoothly"


def _log_probs(model: Any, subject: Subject, states: Tensor) -> Tensor:
    """Of all states, given one label: [S]."""
    with torch.no_grad():
        log_probs: Tensor = model.log_prob(states, **subject.same_label(len(states)))
    return log_probs


@law("Probabilities of all examples sum to one", TractableDensity, exempt=not_enumerable)
def probabilities_sum_to_one(subject: Subject) -> str:
    states = subject.states()
    log_probs = _log_probs(subject.build(), subject, states)
    hold(log_probs.shape == (len(states),), f"log_prob of {len(states)} examples has shape {list(log_probs.shape)}")
    log_mass = log_probs.double().logsumexp(0).item()
    hold(abs(log_mass) < TOLERANCE, f"{len(states):,} probabilities sum to {math.exp(min(log_mass, 700)):.6g}")
    return f"{len(states):,} probabilities, log of the sum {log_mass:.1g}"


@law("Samples follow the probabilities", TractableDensity, exempt=not_enumerable)
def samples_follow_the_probabilities(subject: Subject) -> str:
    """Chi-square."""
    model, states, num = subject.build(), subject.states(), 20_000
    x = model.sample(num, generator=seeded(), batch_size=5000, **subject.same_label(num))
    return f"p-value {follows(subject.counts(x), _log_probs(model, subject, states)):.2g}"


@law("The density integrates to one", TractableDensity, exempt=_not_integrable)
def the_density_integrates_to_one(subject: Subject) -> str:
    model, given = subject.build(), subject.same_label(2000)
    x = model.sample(2000, generator=seeded(), **given).flatten(1)
    low, high = x.amin(0), x.amax(0)
    axes = [torch.linspace(float(a - (b - a)), float(b + (b - a)), POINTS) for a, b in zip(low, high, strict=True)]
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    grid = torch.cartesian_prod(*axes).view(-1, *subject.event_shape)
    mass = _log_probs(model, subject, grid).double().exp().sum().item() * cell
    hold(abs(mass - 1) < 1e-3, f"the integral is {mass:.6g}")
    return f"the integral is {mass:.6f}"


@law("Samples follow the density", TractableDensity, exempt=_not_smooth)
def samples_follow_the_density(subject: Subject) -> str:
    """Stein's identity: E[score] = 0 and E[x score^T] = -I if x follows the density, whatever it is."""
    model, num = subject.build(), 50_000
    given = subject.same_label(num)
    x = model.sample(num, generator=seeded(), batch_size=num, **given).flatten(1)
    x.requires_grad_()
    (score,) = torch.autograd.grad(model.log_prob(x.view(-1, *subject.event_shape), **given).sum(), x)
    x = x.detach()
    products = x[:, :, None] * score[:, None] + torch.eye(x.shape[1])
    largest = max(largest_score(terms) for terms in (score, products))
    hold(largest < LIMIT, f"Stein's identity is off by {largest:.1f} standard errors")
    return f"largest z-score of Stein's identity {largest:.1f}"


@law("A log-likelihood depends on its own example alone", TractableDensity)
def densities_keep_to_their_own_example(subject: Subject) -> str:
    given, largest = subject.same_label(4), 0.0
    one = subject.same_label(1)
    for model in (subject.build(), subject.build().train()):
        x = subject.data(4)
        together = model.log_prob(x, **given)
        alone = torch.cat([model.log_prob(row[None], **one) for row in x])
        largest = max(
            largest, same(alone, together, "log_prob of an example alone and among others", atol=1e-4, rtol=1e-5)
        )
        if subject.differentiable:
            (gradient,) = torch.autograd.grad(model.log_prob(x.requires_grad_(), **given)[1], x)
            hold(gradient[1].any(), "log_prob has no gradient in its own example")
            hold(not gradient[[0, 2, 3]].any(), "log_prob has a gradient in other examples of the batch")
    return f"largest difference {largest:.2g}"


@law("The entropy is that of the probabilities", KnownEntropy, exempt=not_enumerable)
def the_entropy_is_that_of_the_probabilities(subject: Subject) -> str:
    model = subject.build()
    expected = torch.special.entr(_log_probs(model, subject, subject.states()).double().exp()).sum().item()
    found = model.entropy()
    hold(abs(found - expected) <= max(1e-5, 1e-6 * abs(expected)), f"{found:.6g} nats, of probabilities {expected:.6g}")
    return f"{found:.4f} nats"


def enumerated(log_probs: Tensor, states: Tensor, order: Tensor) -> Tensor:
    """E[x_d given those before it in the order], by sums over all states that share these: [S, ...] -> [S, ...]."""
    probs, x = log_probs.double().exp(), states.flatten(1).double()
    _, number = x.unique(return_inverse=True)
    expected, key = torch.empty_like(x), torch.zeros(len(x), dtype=torch.long)
    for d in order:
        mass, total = (torch.zeros(len(x)).double().index_add(0, key, p) for p in (probs, probs * x[:, d]))
        expected[:, d] = (total / mass)[key]
        _, key = (key * (number.max() + 1) + number[:, d]).unique(return_inverse=True)
    return expected.view_as(states)


def _has_many_orders(subject: Subject) -> str:
    if not issubclass(subject.cls, TractableDensity):
        return "the model is no TractableDensity"
    if len(subject.plain.order(Streams(0, range(20))).unique(dim=0)) > 1:
        return "its images are drawn in several orders"
    return subject.why_not_enumerable


@law("Expected values are those of the probabilities", Autoregressive, exempt=_has_many_orders)
def expectations_are_those_of_the_probabilities(subject: Subject) -> str:
    model, states = subject.build(), subject.states()
    (order,) = model.order(Streams(0, [0]))
    hold(sorted(order.tolist()) == list(range(states[0].numel())), f"the order is {order.tolist()}")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # so that pixels tell the components of a mixture apart
        given, none = subject.same_label(len(states)), subject.same_label(0)
        expected, log_probs = model.expected(states, **given), model.log_prob(states, **given)
        hold(torch.equal(model.expected(states[:0], **none), states[:0]), "an empty batch has expected values")
    exact = enumerated(log_probs, states, order)
    return f"largest difference {same(expected, exact, 'expected values and those by sums', rtol=1e-4):.2g}"


def _no_conditional(subject: Subject) -> str:
    if not issubclass(subject.cls, TractableDensity):
        return "the model is no TractableDensity"
    if facts_of(subject.cls)["completes"] != "yes":
        return f"it completes {facts_of(subject.cls)['completes']}"
    return subject.why_not_enumerable


@law("Completions follow the exact conditional", Completable, exempt=_no_conditional)
def completions_follow_the_exact_conditional(subject: Subject) -> str:
    model, states = subject.build(), subject.states()
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(3)  # so that what is known tells the components of a mixture apart
    size, least = states[0].numel(), 1.0
    given = subject.same_label(len(states))
    with torch.no_grad():
        possible = states[model.log_prob(states, **given) > -math.inf]
    for num_known, template in (
        (0, possible[0]),
        (1, possible[-1]),
        (size // 2, possible[len(possible) // 3]),
        (size, possible[1]),
    ):
        mask = (torch.arange(size) < num_known).view(subject.event_shape)
        x = torch.where(mask, template, math.nan).expand(6000, *subject.event_shape)
        completed = model.complete(x, mask, generator=seeded(), **subject.same_label(len(x)))
        hold(((completed == template) | ~mask).all(), f"known pixels changed, of {num_known} known ones")
        if subject.levels == 2:
            hold(((completed == 0) | (completed == 1)).all(), "completed pixels are not 0 or 1")
        fits = ((states == template) | ~mask).flatten(1).all(1)
        with torch.no_grad():
            log_probs = model.log_prob(states, **given).where(fits, -math.inf).log_softmax(0)
        least = min(least, follows(subject.counts(completed), log_probs))
    return f"least p-value {least:.2g}"


def _no_log_z(subject: Subject) -> str:
    if why := subject.why_not_enumerable:
        return why
    return "" if subject.plain.exact_log_z() is not None else "it does not know log Z"


@law("log Z is the sum over all examples", UnnormalizedDensity, exempt=_no_log_z)
def log_z_is_the_sum_over_all_examples(subject: Subject) -> str:
    model, states = subject.build(), subject.states()
    with torch.no_grad():
        expected = (-model.energy(states)).double().logsumexp(0).item()
    found = float(model.exact_log_z())
    hold(abs(found - expected) < max(1e-5, 1e-6 * abs(expected)), f"{found:.6g}, and by the sum {expected:.6g}")
    return f"difference {abs(found - expected):.1g}"


def _no_states(subject: Subject) -> str:
    if subject.levels != 2:
        return "its chain is not one of bits"
    num = subject.plain.chain().start(Streams(0, [0])).shape[1]
    return "" if num <= 16 else f"2^{num} states of its chain cannot be enumerated; try arguments of fewer units"


@law("A sweep of the chain leaves the distribution as it is", Unnormalized, exempt=_no_states)
def a_sweep_leaves_the_distribution_invariant(subject: Subject) -> str:
    chain, num = subject.build().chain(), 20_000
    num_units = chain.start(Streams(0, [0])).shape[1]
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * num_units).view(-1, num_units)
    with torch.no_grad():
        log_probs = (-chain.energy(states)).double().log_softmax(0)
        before = states[log_probs.exp().multinomial(num, replacement=True, generator=seeded())]
        after = chain.step(before, Streams(1, range(num)))
    counts = torch.bincount(state_numbers(after), minlength=len(states))
    hold((after != before).any(), "a sweep changes nothing")
    return f"p-value {follows(counts, log_probs):.2g}"
