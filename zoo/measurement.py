"""Measured numbers, each with everything that is needed to read it. This file imports no torch, to be fast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from zoo.config import bind, check
from zoo.errors import ZooError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["exact", "bound", "estimate"]

LOG_Z = {"runs": int, "temperatures": int, "sweeps": int, "log_z": float, "log_z_error": float}
"""Details of a number that rests on an estimate of log Z; on the slice they are rougher than on the whole."""
_DETAILS: dict[str, dict[str, Any]] = {
    "slice": {"n": int, "value": float, **LOG_Z},
    "sampling_seeds": {"n": int, "first": float, "std": float},
}
_SETTINGS = ("k", "draws", "runs", "temperatures", "sweeps", "extractor")
"""Details that change what a number means."""


@dataclass(frozen=True)
class Measurement:
    """A number, and what is needed to read it and to measure it again.

    Attributes:
        name: `nll`, `neg_elbo`, `fid`, `fid_expected`, `kid`, `inception_score`, `precision`, `recall`, `accuracy`, ...
        value: The number, in `unit`.
        error: One standard error, in `unit`; None if it is not known.
        unit: `nats` or `bits/dim` (both per example), `%`, or "" for a number without a unit.
        kind: `exact`; `bound`, if the true value can only be better; `estimate`, if it may lie on either side.
        n: Number of examples, or of samples from the model.
        seed: Seed for all random draws.
        split: Split that holds the examples, or the images that samples are compared with.
        data: Name of the data set.
        details: JSON-plain settings. `slice` holds the number on a few seeded examples, for quick checks; `classes`
            holds the value of each label; `sampler` says how samples were drawn, if there is a choice.
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
    def key(self) -> tuple[str, str, str, str, str]:
        """Name, unit, split, data set and sampler, which tell the numbers of one checkpoint apart."""
        return self.name, self.unit, self.split, self.data, self.sampler

    @property
    def sampler(self) -> str:
        """The sampler that drew the samples, such as `DDIM(steps=20)`; empty if the model draws in one way only."""
        arguments = {key: value for key, value in self.details.get("sampler", {}).items() if value is not None}
        name = arguments.pop("sampler", "")
        return f"{name}({', '.join(f'{key}={value}' for key, value in arguments.items())})" if name else ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], where: str = "measurement") -> Measurement:
        """Makes a measurement from its fields; the inverse of `to_dict`. An entry `command` is ignored.

        Args:
            record: The fields by name.
            where: Beginning of the error message, such as the name of the file.

        Raises:
            ConfigError: A field is unknown, missing or of the wrong type.
        """
        fields = bind(cls, {key: value for key, value in record.items() if key != "command"}, where)
        details = fields.get("details", {})
        hints = {"classes": dict[str, float], "sampler": dict[str, Any]}
        check(details, hints, f"{where}: details", optional=hints, is_open=True)
        for name in _DETAILS.keys() & details.keys():
            check(details[name], _DETAILS[name], f"{where}: details: {name}", optional=LOG_Z)
        return cls(**fields)

    @property
    def by_class(self) -> str:
        """The value of each label in one line, such as `0: 99.5, 1: 98.2`; empty if there are none."""
        return ", ".join(f"{label}: {value:.1f}" for label, value in self.details.get("classes", {}).items())

    def __str__(self) -> str:
        error = "" if self.error is None else f" +- {self.error:.2g}"
        unit = f" {self.unit}" if self.unit else ""
        by = f", {self.sampler}" if self.sampler else ""
        return f"{self.name} {self.value:.5g}{error}{unit} ({self.kind}, {self.n} on {self.data} {self.split}{by})"


@dataclass(frozen=True)
class Difference:
    """A measurement that differs from the record.

    Attributes:
        found: The new measurement.
        recorded: The recorded value; None if there is none.
    """

    found: Measurement
    recorded: float | None

    def __str__(self) -> str:
        recorded = "no such number" if self.recorded is None else f"{self.recorded:.6g}"
        unit = f" {self.found.unit}" if self.found.unit else ""
        return f"{self.found.name}: recorded {recorded}, found {self.found.value:.6g}{unit} (n = {self.found.n})"


def recorded_value(recorded: Iterable[Measurement], new: Measurement) -> float | None:
    """Returns the recorded value of a new measurement, or None if nothing was recorded with the same settings.

    A new number on the slice is looked up among the recorded numbers on the slice.
    """
    old = next((measurement for measurement in recorded if measurement.key == new.key), None)
    return None if old is None or (same := _recorded_as(old, new)) is None else same["value"]


def _recorded_as(old: Measurement, new: Measurement) -> dict[str, Any] | None:
    """The details, `n` and `value` of the recorded whole or slice that was measured as the new number was."""
    first = {"sampling_seeds": {}, "value": old.details.get("sampling_seeds", {}).get("first", old.value)}
    whole = {**old.details, "n": old.n, "value": old.value, "seed": old.seed}
    wanted = {**new.details, "n": new.n, "seed": new.seed}
    for number in (whole, whole | first, whole | first | old.details.get("slice", {})):
        is_same = all(number.get(name) == wanted.get(name) for name in ("n", "seed", *_SETTINGS))
        if is_same and _num_seeds(number) == _num_seeds(wanted):
            return number
    return None


def _num_seeds(details: Mapping[str, Any]) -> int:
    return details.get("sampling_seeds", {}).get("n", 1)


def _agree(new: Measurement, recorded: Mapping[str, Any], error: float | None) -> bool:
    """Whether a new number equals the recorded one within the tolerance of `compare`."""
    if "extractor" in new.details:
        return math.isclose(new.value, recorded["value"], rel_tol=1e-2, abs_tol=5e-2 * (error or 0))
    if "precision" in new.details:
        return new.value <= 10 * recorded["value"]
    if "log_z_error" not in new.details:
        return math.isclose(new.value, recorded["value"], rel_tol=1e-4)
    log_z, spread = (recorded[name] for name in ("log_z", "log_z_error"))
    energies = (new.value - new.details["log_z"], recorded["value"] - log_z)
    spread = math.hypot(spread, new.details["log_z_error"])
    return math.isclose(*energies, rel_tol=1e-5) and abs(new.details["log_z"] - log_z) <= 4 * spread


def compare(recorded: Iterable[Measurement], found: Iterable[Measurement]) -> list[Difference]:
    """Compares new measurements with recorded ones.

    All draws are seeded, so that two measurements differ by rounding only. The tolerance is

    - 1e-4 of the value;
    - of numbers of samples, where rounding can flip a pixel, 1 % of the value or 5 % of its error if that is larger;
    - of numbers that rest on an estimate of log Z, 1e-5 of the mean energy, and four standard errors of log Z, since
      rounding leads its chains along other ways;
    - of the error of an inversion, which is nothing but rounding, a factor of ten upwards.

    A number on the slice is compared with the recorded number on the slice. Numbers that differ in n, seed, k, number
    of draws or runs, or extractor are different quantities and are not compared. A mean over sampling seeds is compared
    with one over equally many seeds, and the number of a single seed with that of the first.

    Returns:
        The new measurements that differ from the record or that are not in it.
    """
    known = {measurement.key: measurement for measurement in recorded}
    differences = []
    for new in found:
        if (old := known.get(new.key)) is None:
            differences.append(Difference(new, None))
            continue
        if (same := _recorded_as(old, new)) is None:
            continue
        if not _agree(new, same, old.error):
            differences.append(Difference(new, same["value"]))
    return differences


def nats_to(unit: str, event_shape: Iterable[int]) -> float:
    """Returns the factor from nats per example to a unit: 1 for `nats`, 1 / (D ln 2) for `bits/dim`."""
    return 1.0 if unit == "nats" else 1 / (math.prod(event_shape) * math.log(2))


def mean_and_error(values: Tensor) -> tuple[float, float | None]:
    """Returns the mean of values [n] and its standard error, which is None for n = 1."""
    values = values.double()
    return values.mean().item(), (values.std() / len(values) ** 0.5).item() if len(values) > 1 else None


def share_and_error(is_so: Tensor) -> tuple[float, float]:
    """Returns the share of True among booleans [n], and its binomial standard error."""
    share = is_so.double().mean().item()
    return share, math.sqrt(share * (1 - share) / len(is_so))


HEADLINES = ("nll", "neg_elbo", "squared_error", "fid", "accuracy", "fid_floor")
"""Names of the numbers that short tables show."""


def headlines(numbers: Iterable[Measurement]) -> str:
    """The `HEADLINES` among some numbers in one line, such as `nll 78.52 ± 0.19 nats, fid 7.12 ± 0.94`."""
    shown = [number for number in numbers if number.name in HEADLINES]
    return ", ".join(f"{number.name} {rounded(number.value, number.error)} {number.unit}".rstrip() for number in shown)


def rounded(value: float, error: float | None) -> str:
    """Rounds a number to two digits of its error, such as `78.52 ± 0.19`, or to five digits if there is no error."""
    if error is None:
        return f"{value:.5g}"
    if error == 0:
        return f"{value:.5g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
