"""One measured number with everything that it means. Imports no torch, so that numbers can be listed without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from zoo.config import bind, check
from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["exact", "bound", "estimate"]

_DETAILS: dict[str, dict[str, Any]] = {
    "slice": {"n": int, "value": float},
    "sampling_seeds": {"n": int, "mean": float, "std": float},
}


@dataclass(frozen=True)
class Measurement:
    """A number, and what it takes to read and to repeat it.

    Attributes:
        name: `nll`, `neg_elbo`, `fid`, `kid`, `inception_score`, `precision`, `recall`, `accuracy`, ...
        value: in `unit`.
        error: one standard error, in `unit`; None where one example tells nothing about it.
        unit: `nats` and `bits/dim` (of one example), `%`, or "" for a pure number.
        kind: `exact`; `bound` of the true value, on its pessimistic side; or `estimate`, which may lie on either side.
        n: number of examples, or of samples from the model.
        seed: of every draw.
        split: the examples, or the reference of samples: `train`, `valid` or `test`.
        data: name of the data set.
        details: JSON-plain settings; `slice` holds n and value of it on a few seeded examples, for quick checks, and
            `classes` the value of each label.
    """

    name: str
    value: float
    error: float | None
    unit: str
    kind: Kind
    n: int
    seed: int
    split: str
    data: str
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, number in (("value", self.value), ("error", self.error)):
            if number is not None and not math.isfinite(number):
                raise ZooError(
                    f"{self.name} on {self.data} {self.split}: expected a finite {name}, found {number}; "
                    "the model or its weights do not suit these data"
                )

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells the numbers of one checkpoint apart."""
        return self.name, self.unit, self.split, self.data

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], where: str = "measurement") -> Measurement:
        """The inverse of `to_dict`; a `command` beside the fields is left out.

        Raises:
            ConfigError: a field is unknown, missing or of the wrong type; the message begins with `where`.
        """
        fields = bind(cls, {key: value for key, value in record.items() if key != "command"}, where)
        details = fields.get("details", {})
        check(details, {"classes": dict[str, float]}, f"{where}: details", optional=["classes"], is_open=True)
        for name in _DETAILS.keys() & details.keys():
            check(details[name], _DETAILS[name], f"{where}: details: {name}")
        return cls(**fields)

    @property
    def by_class(self) -> str:
        """The value of each label in one line, such as `0: 99.5, 1: 98.2`; empty where it has none."""
        return ", ".join(f"{label}: {value:.1f}" for label, value in self.details.get("classes", {}).items())

    def __str__(self) -> str:
        error = "" if self.error is None else f" +- {self.error:.2g}"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} {self.value:.5g}{error}{unit} ({self.kind}, {self.n} on {self.data} {self.split})"


@dataclass(frozen=True)
class Difference:
    """A recorded number that was not found again.

    Attributes:
        found: the new measurement.
        recorded: value in the record, or None where it has none.
    """

    found: Measurement
    recorded: float | None

    def __str__(self) -> str:
        recorded = "no such number" if self.recorded is None else f"{self.recorded:.6g}"
        unit = f" {self.found.unit}" if self.found.unit else ""
        return f"{self.found.name}: recorded {recorded}, found {self.found.value:.6g}{unit} (n = {self.found.n})"


_SETTINGS = ("k", "draws", "extractor")


def recorded_value(recorded: Iterable[Measurement], new: Measurement) -> float | None:
    """What `new` is to be by the record: the number with its key and settings, the one on the slice for a slice."""
    old = next((measurement for measurement in recorded if measurement.key == new.key), None)
    if old is None or old.seed != new.seed:
        return None
    if any(old.details.get(name) != new.details.get(name) for name in _SETTINGS):
        return None
    piece = old.details.get("slice", {})
    return {piece.get("n"): piece.get("value"), old.n: old.value}.get(new.n)


def compare(recorded: Iterable[Measurement], found: Iterable[Measurement]) -> list[Difference]:
    """Those of `found` that `recorded` does not bear out.

    Every draw is seeded, so that only rounding may differ: by 1e-4 of the value where it comes from given examples; by
    1 % of it, or 5 % of its error, where it comes from the model's samples, in which rounding can flip a pixel.
    A number found on the slice is compared with the recorded one on the slice. Numbers found with another n, seed, k,
    number of draws or extractor are other quantities, and not compared. The mean over sampling seeds is compared with
    that over as many.
    """
    known = {measurement.key: measurement for measurement in recorded}
    differences = []
    for new in found:
        if (old := known.get(new.key)) is None:
            differences.append(Difference(new, None))
            continue
        if (expected := recorded_value([old], new)) is None:
            continue
        sampled = "extractor" in new.details
        relative, absolute = (1e-2, 5e-2 * (old.error or 0)) if sampled else (1e-4, 0.0)
        if not math.isclose(new.value, expected, rel_tol=relative, abs_tol=absolute):
            differences.append(Difference(new, expected))
        one, other = (m.details.get("sampling_seeds", {}) for m in (old, new))
        if not one or not other or one["n"] != other["n"] or new.n != old.n:
            continue
        if not math.isclose(other["mean"], one["mean"], rel_tol=relative, abs_tol=absolute):
            title = f"{new.name}, mean of {one['n']} sampling seeds"
            differences.append(Difference(replace(new, name=title, value=other["mean"]), one["mean"]))
    return differences


def nats_to(unit: str, event_shape: Iterable[int]) -> float:
    """What a number of nats per example is multiplied with: 1 for `nats`, 1/(D ln 2) for `bits/dim`."""
    return 1.0 if unit == "nats" else 1 / (math.prod(event_shape) * math.log(2))


def mean_and_error(values: Tensor) -> tuple[float, float | None]:
    """Mean and its standard error over examples: [n] -> two numbers; the second is None for n = 1."""
    values = values.double()
    return values.mean().item(), (values.std() / len(values) ** 0.5).item() if len(values) > 1 else None


def share_and_error(is_so: Tensor) -> tuple[float, float]:
    """The share of examples of which something is so, and its binomial standard error: [n] of bools -> two numbers."""
    share = is_so.double().mean().item()
    return share, math.sqrt(share * (1 - share) / len(is_so))


HEADLINES = ("nll", "neg_elbo", "squared_error", "fid", "accuracy", "fid_floor")
"""Names of the numbers that short tables show."""


def rounded(value: float, error: float | None) -> str:
    """A number rounded to two digits of its error, such as `78.52 ± 0.19`; five digits where there is no error."""
    if error is None:
        return f"{value:.5g}"
    if error == 0:
        return f"{value:.5g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
