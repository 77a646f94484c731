"""What a law is, and the statistics that several laws share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo.laws.subject import Subject

Check: TypeAlias = "Callable[[Subject], str]"
"""Tries a law on a model and returns what was measured; raises LawError if the law is broken."""

LIMIT = 4.5
"""Largest z-score of a quantity that should be zero. Of a million standard normal numbers, seven are larger."""

P_VALUE = 1e-3
"""Least p-value of a goodness-of-fit test."""


class LawError(AssertionError):
    """A law is broken; the message is the measured figure."""


@dataclass(frozen=True)
class Law:
    """A statement that is true of every model with some capabilities.

    Attributes:
        title: The statement.
        check: Tries it.
        capabilities: Capabilities that a model must have for the law to apply.
        exempt: Says why the law does not apply to a model with these capabilities; empty if it applies.
    """

    title: str
    check: Check
    capabilities: tuple[type, ...]
    exempt: Callable[[Subject], str]

    def why_not(self, subject: Subject) -> str:
        """Why the law does not apply to a model; empty if it applies."""
        for capability in self.capabilities:
            if not issubclass(subject.cls, capability):
                return f"the model is no {capability.__name__}"
        return self.exempt(subject)


LAWS: dict[str, Law] = {}
"""All laws, by the names of their functions."""


def law(
    title: str, *capabilities: type, exempt: Callable[[Subject], str] = lambda subject: ""
) -> Callable[[Check], Check]:
    """Makes a law of a function, which stays as it is."""

    def register(check: Check) -> Check:
        LAWS[check.__name__] = Law(title, check, capabilities, exempt)
        return check

    return register


def hold(is_so: object, figure: str) -> None:
    """Raises LawError with a figure unless something is so."""
    if not is_so:
        raise LawError(figure)


def same(found: Tensor, expected: Tensor, what: str, *, atol: float = 1e-5, rtol: float = 1.3e-6) -> float:
    """The largest difference of two tensors.

    Raises:
        LawError: Their shapes differ, or a difference is larger than `atol + rtol |expected|`.
    """
    hold(found.shape == expected.shape, f"{what}: expected shape {list(expected.shape)}, found {list(found.shape)}")
    found, expected = found.detach().double(), expected.detach().double()
    largest = float((found - expected).abs().nan_to_num().max()) if found.numel() else 0.0
    is_close = torch.allclose(found, expected, atol=atol, rtol=rtol, equal_nan=False)
    hold(is_close, f"{what} differ by up to {largest:.2g}")
    return largest


def seeded(seed: int = 0) -> torch.Generator:
    """A generator with a seed."""
    return torch.Generator().manual_seed(seed)


def state_numbers(x: Tensor, levels: int = 2) -> Tensor:
    """Positions of x in {0, ..., levels - 1}/(levels - 1), [B, ...], in the list of all such states: [B]."""
    digits = (x.flatten(1) * (levels - 1)).round().long()
    return digits @ levels ** torch.arange(digits.shape[1]).flip(0)


def largest_score(terms: Tensor) -> float:
    """The largest |z-score| of the means of `terms` [n, ...], whose expectations should be zero."""
    if not terms.isfinite().all():
        return math.inf
    scores = terms.mean(0) / (terms.std(0) / math.sqrt(len(terms)))
    return float(scores.nan_to_num().abs().max())


def goodness_of_fit(counts: Tensor, log_probs: Tensor) -> float:
    """The p-value of Pearson's chi-square test that draws, counted by state, follow probabilities.

    Args:
        counts: Number of draws of each state, [S].
        log_probs: Logarithms of the probabilities, [S]. States that are expected less than five times count as one.

    Returns:
        The p-value; 0 if an impossible state was drawn.
    """
    expected = log_probs.double().exp() * counts.sum()
    is_rare = expected < 5
    observed, expected = (
        torch.cat([x[~is_rare].double(), x[is_rare].sum()[None].double()]) for x in (counts, expected)
    )
    possible = expected > 0
    if observed[~possible].sum() > 0:
        return 0.0
    observed, expected = observed[possible], expected[possible]
    if len(expected) < 2:
        return 1.0
    expected = expected * (observed.sum() / expected.sum())
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2).double(), statistic / 2))


def follows(counts: Tensor, log_probs: Tensor) -> float:
    """The p-value of `goodness_of_fit`.

    Raises:
        LawError: It is at most `P_VALUE`.
    """
    p_value = goodness_of_fit(counts, log_probs)
    hold(p_value > P_VALUE, f"p-value {p_value:.2g} of {int(counts.sum()):,} samples")
    return p_value
