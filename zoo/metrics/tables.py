"""Published tables beside the same numbers of the pretrained checkpoints, recomputed from their weights.

A table of a known kind is one record in `TABLES`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from zoo.config import near
from zoo.diffusion.denoiser import DiffusionModel
from zoo.distributed import is_leader
from zoo.errors import ConfigError
from zoo.measurement import Measurement
from zoo.metrics import published
from zoo.metrics.estimators import CAPABILITIES
from zoo.metrics.evaluate import evaluate_checkpoint, settings_of
from zoo.module import facts_of
from zoo.store.checkpoint import Checkpoint
from zoo.store.registry import registry
from zoo.store.source import checkpoint as resolve

SAMPLING_SEEDS = 5
"""Number of sampling seeds for the spread of an FID, if a table is recomputed."""

Row = dict[str, Any]
Numbers = Callable[[Checkpoint, str], list[Measurement]]
"""Finds the numbers of a checkpoint in a group."""


class Guest(NamedTuple):
    """A model that is no checkpoint, and its numbers."""

    name: str
    numbers: Collection[Measurement]


@dataclass(frozen=True)
class Table:
    """Rows of plain values. `str` formats them for people, `to_dict` for programs.

    Attributes:
        name: Name that `reproduce` takes.
        title: Title.
        columns: Names of the columns, and how their numbers are formatted.
        rows: Values by column; missing values and None are printed as nothing.
        notes: Lines below the table.
    """

    name: str
    title: str
    columns: dict[str, str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        def text(value: Any, form: str) -> str:
            return "" if value is None else format(value, form) if isinstance(value, float) else str(value)

        cells = [[text(row.get(name), form) for name, form in self.columns.items()] for row in self.rows]
        is_number = [any(isinstance(row.get(name), float) for row in self.rows) for name in self.columns]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]

        def line(entries: Iterable[str]) -> str:
            aligned = zip(entries, widths, is_number, strict=True)
            return "  ".join(e.rjust(w) if right else e.ljust(w) for e, w, right in aligned).rstrip()

        head = [self.title, "", line(self.columns), "  ".join("-" * width for width in widths)]
        return "\n".join([*head, *map(line, cells), *(["", *self.notes] if self.notes else [])])


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """What a table shows.

    Attributes:
        title: Title of the table.
        data: Names of the data sets whose checkpoints it shows.
        capabilities: Names of capabilities; a checkpoint is shown if it has one of them.
        most_samples: Largest number of importance samples per image, unless the caller asks for more.
    """

    title: str
    data: tuple[str, ...]
    capabilities: Collection[str]
    most_samples: int | None = None

    def checkpoints(self) -> Iterator[Checkpoint]:
        """The checkpoints of the table, data set by data set."""
        for data in self.data:
            for name, entry in sorted(registry().items()):
                if entry.data == data and not set(self.capabilities).isdisjoint(entry.capabilities):
                    yield resolve(name)

    @abstractmethod
    def build(self, name: str, numbers: Numbers, guests: Collection[Guest] = ()) -> Table:
        """Makes the table; guests get rows beside those of the checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Likelihoods(Layout):
    """Published likelihoods and those of the checkpoints of a data set, or their tightest bounds, the best last.

    Attributes:
        unit: `nats` or `bits/dim`.
        published: Rows from the literature: model, value, kind and source.
    """

    unit: str
    published: Collection[tuple[str, float, str, str]]
    capabilities: Collection[str] = tuple(CAPABILITIES)

    def build(self, name: str, numbers: Numbers, guests: Collection[Guest] = ()) -> Table:
        unit = self.unit
        rows: list[Row] = [
            {"model": model, unit: value, "kind": kind, "source": source}
            for model, value, kind, source in self.published
        ]
        for checkpoint in self.checkpoints():
            has_ode = issubclass(checkpoint.model_class(), DiffusionModel)
            found = {
                m.name: m
                for group in ("likelihood", *(["ode"] if has_ode else []))
                for m in numbers(checkpoint, group)
                if (m.unit, m.split, m.data) == (unit, "test", checkpoint.data_name)
            }
            for m in filter(None, (found.get("nll") or found.get("neg_elbo"), found.get("ode_nll"))):
                settings = [f"{key} = {m.details[key]}" for key in ("k", "draws", "ode_steps") if key in m.details]
                given = [f"{m.details['given']} given"] if "given" in m.details else []
                source = f"this zoo ({', '.join([*given, *settings, f'{m.n} images'])})"
                row = {"model": checkpoint.name, unit: m.value, "error": m.error, "kind": m.kind, "source": source}
                rows.append({**row, "weights_sha256": checkpoint.weights_sha256})
        for guest in guests:
            rows += [
                {
                    "model": guest.name,
                    unit: m.value,
                    "error": m.error,
                    "kind": m.kind,
                    "source": f"yours ({m.n} images)",
                }
                for m in guest.numbers
                if m.name in ("nll", "neg_elbo") and (m.unit, m.data) == (unit, *self.data)
            ]
        return Table(
            name,
            self.title,
            {"model": "", unit: ".2f", "error": ".2f", "kind": "", "source": ""},
            sorted(rows, key=lambda row: -row[unit]),
            [
                "exact: the likelihood itself; bound: the true value is no larger; estimate: it may lie either side.",
                "error: one standard error over test images, if it is known.",
            ],
        )


_QUALITIES = ("fid", "fid_expected", "kid", "inception_score", "precision", "recall")
_BASELINES = {"floor": "(training images: the floor)", "memoriser": "(memoriser of the training images)"}


@dataclass(frozen=True, kw_only=True)
class Qualities(Layout):
    """Published FIDs; then, for each data set, its baselines and the models that draw such images, the best first.

    Attributes:
        published: Rows from the literature: model, FID and its spread.
    """

    published: Collection[tuple[str, float, float]]
    capabilities: Collection[str] = ("GenerativeModel",)

    def build(self, name: str, numbers: Numbers, guests: Collection[Guest] = ()) -> Table:
        rows: list[Row] = [
            {"model": model, "data": self.data[0], "fid": value, "error": spread, "features": "Inception"}
            | {"kind": "estimate", "source": "Lucic et al. 2018"}
            for model, value, spread in self.published
        ]
        ours: dict[str, list[Row]] = {data: [] for data in self.data}
        baselines: dict[str, dict[tuple[Any, ...], Row]] = {data: {} for data in self.data}  # by their settings
        left_out: list[str] = []
        for checkpoint in self.checkpoints():
            data, found = checkpoint.data_name, _by_sampler(checkpoint, numbers(checkpoint, "quality"))
            if not found:
                left_out.append(checkpoint.name)
            for qualities in found:
                row, beside = _quality_rows(checkpoint.name, "this zoo", qualities)
                ours[data].append(row | {"weights_sha256": checkpoint.weights_sha256})
                baselines[data].update({(place, row["features"], row["n"]): line for place, line in beside.items()})
        for guest in guests:
            qualities = {m.name: m for m in guest.numbers}
            if "fid" in qualities:
                data = qualities["fid"].data
                row, beside = _quality_rows(guest.name, "yours", qualities)
                ours[data].append(row)
                baselines[data].update({(place, row["features"], row["n"]): line for place, line in beside.items()})
        for data in self.data:
            rows += [line for _, line in sorted(baselines[data].items(), key=lambda item: item[0][0])]
            rows += sorted(ours[data], key=lambda row: row["fid"])
        fids = {row["features"]: f"fid ({row['features']})" for row in rows}  # a column for each extractor
        rows = [row | {fids[row["features"]]: row["fid"]} for row in rows]
        forms = {**dict.fromkeys(fids.values(), ".4g"), "error": ".2g", "std": ".2g", "seeds": ""}
        if any("fid_expected" in row for row in rows):
            forms["fid_expected"] = ".4g"
        forms |= {"kid": ".3g", "inception_score": ".3f", "precision": ".3f", "recall": ".3f"}
        columns = {"model": "", "data": "", **forms, "kind": "", "features": "", "source": ""}
        return Table(name, self.title, columns, rows, [*_QUALITY_NOTES, *_without("FID", left_out)])


_QUALITY_NOTES = [
    "FIDs over different features, or against grey and against binary images, are different quantities:",
    "compare rows of the same features and data only. Floor: as many training images in place of samples.",
    "Memoriser: training images drawn with replacement.",
    "fid_expected: of a VAE's images without the noise of pixels, as `zoo sample` shows them.",
    "error: one standard error of ours, from the draw of both sets of images; for published FIDs, the spread over",
    "training seeds. std: of the FID over sampling seeds, of which it is the mean.",
]


def _by_sampler(checkpoint: Checkpoint, numbers: list[Measurement]) -> list[dict[str, Measurement]]:
    """The numbers of a checkpoint on the test split of its data by name, for each sampler that has an FID."""
    found: dict[str, dict[str, Measurement]] = {}
    for m in numbers:
        if (m.split, m.data) == ("test", checkpoint.data_name):
            found.setdefault(m.sampler, {})[m.name] = m
    return [qualities for qualities in found.values() if "fid" in qualities]


def _quality_rows(name: str, origin: str, found: dict[str, Measurement]) -> tuple[Row, dict[int, Row]]:
    """The row of a model, and those of its baselines by their place in the table."""
    m, found = found["fid"], {quality: found[quality] for quality in _QUALITIES if quality in found}
    by = f" by {m.sampler}" if m.sampler else ""
    setting = {"data": m.data, "kind": m.kind, "features": m.details["extractor"], "n": m.n}
    spread = m.details.get("sampling_seeds", {})
    row = {
        "model": name,
        "error": m.error,
        **{quality: number.value for quality, number in found.items()},
        "std": spread.get("std"),
        "seeds": spread.get("n"),
        **setting,
        "source": f"{origin} ({m.n} samples{by})",
    }
    beside = {}
    for place, (baseline, title) in enumerate(_BASELINES.items()):
        values = {name: number.details.get(baseline) for name, number in found.items()}
        if values["fid"] is not None:
            beside[place] = {"model": title, **values, **setting, "source": f"this zoo ({m.n} samples)"}
    return row, beside


def _without(number: str, names: list[str]) -> list[str]:
    return [f"Without a recorded {number}: {', '.join(names)}."] if names else []


@dataclass(frozen=True, kw_only=True)
class Outliers(Layout):
    """How well likelihoods tell the data of a model from foreign images, the best first."""

    capabilities: Collection[str] = tuple(CAPABILITIES)

    def build(self, name: str, numbers: Numbers, guests: Collection[Guest] = ()) -> Table:
        rows: list[Row] = []
        left_out: list[str] = []
        for checkpoint in self.checkpoints():
            found = [m for m in numbers(checkpoint, "outliers") if m.name == "auroc" and m.split == "test"]
            if not found:
                left_out.append(checkpoint.name)
            for m in found:
                row = {"model": checkpoint.name, "own": m.data, "foreign": m.details["against"], "auroc": m.value}
                row |= {"error": m.error, "score": f"{m.details['score']} ({m.details['score_kind']})"}
                rows.append(row | {"images": f"{m.n} + {m.details['num_against']}"})
        return Table(
            name,
            self.title,
            {"model": "", "own": "", "foreign": "", "auroc": ".4f", "error": ".2g", "score": "", "images": ""},
            sorted(rows, key=lambda row: (row["own"], -row["auroc"])),
            [
                "auroc: how often an image of the model's own data set is found more likely than a foreign one.",
                "1: always; 0.5: by chance; below 0.5: foreign images are found more likely.",
                "dynamic: pixels of both sets are drawn anew from their grey values, for models of binary images.",
                *_without("AUROC", left_out),
            ],
        )


@dataclass(frozen=True, kw_only=True)
class Taxonomy(Layout):
    """What each model can do, as its capabilities state it."""

    data: tuple[str, ...] = ()
    capabilities: Collection[str] = ()

    def build(self, name: str, numbers: Numbers, guests: Collection[Guest] = ()) -> Table:
        columns = ("latents", "density", "generator", "trained by", "completes", "labels")
        rows = []
        for checkpoint in map(resolve, sorted(registry())):
            cls = checkpoint.model_class()
            if "generator" in (facts := facts_of(cls)):
                rows.append({"model": checkpoint.name, "class": cls.__name__, **facts})
        return Table(name, self.title, dict.fromkeys(("model", "class", *columns), ""), rows)


TABLES: dict[str, Layout] = {
    "mnist-nll": Likelihoods(
        title="Negative log-likelihood of the test images of static binarised MNIST, in nats",
        data=("binarized-mnist",),
        unit="nats",
        published=published.BINARIZED_MNIST_NLL,
        most_samples=200,  # the whole table takes minutes
    ),
    "mnist-bpd": Likelihoods(
        title="Negative log-likelihood of the test images of MNIST with 256 grey levels, in bits per dimension",
        data=("mnist",),
        unit="bits/dim",
        published=published.MNIST_BPD,
    ),
    "cifar10-bpd": Likelihoods(
        title="Negative log-likelihood of the test images of CIFAR-10, in bits per dimension",
        data=("cifar10",),
        unit="bits/dim",
        published=published.CIFAR10_BPD,
    ),
    "mnist-fid": Qualities(
        title="Quality of samples against the test images of MNIST",
        data=("mnist", "binarized-mnist", "dynamic-mnist"),
        published=published.MNIST_FID,
    ),
    "fashion-mnist-fid": Qualities(
        title="Quality of samples against the test images of Fashion-MNIST",
        data=("fashion-mnist",),
        published=published.FASHION_MNIST_FID,
    ),
    "cifar10-fid": Qualities(
        title="Quality of samples against the test images of CIFAR-10",
        data=("cifar10",),
        published=published.CIFAR10_FID,
    ),
    "outliers": Outliers(
        title="Telling own from foreign test images by likelihood: area under the ROC curve",
        data=("mnist", "binarized-mnist", "dynamic-mnist", "fashion-mnist", "dynamic-fashion-mnist"),
    ),
    "taxonomy": Taxonomy(title="Latents, density, generator and training of each model, by its capabilities"),
}


def reproduce(
    name: str,
    *,
    recompute: bool = True,
    k: int | None = None,
    num: int | None = None,
    on_slice: bool = False,
    device: str = "cpu",
    batch_size: int = 500,
    progress: bool = True,
) -> Table:
    """Makes a table.

    Args:
        name: One of `TABLES`.
        recompute: Whether to recompute the numbers from the weights, instead of reading `metrics.json`.
        k: Number of importance samples per image; by default, that of each recipe, at most `most_samples` of the table.
        num, on_slice, device, batch_size, progress: See `evaluate_checkpoint`.

    Raises:
        ConfigError: There is no such table.
    """
    if name not in TABLES:
        raise ConfigError(f"no table is called {name!r}; {near(name, TABLES)}")
    layout = TABLES[name]

    def numbers(checkpoint: Checkpoint, group: str) -> list[Measurement]:
        if not recompute:
            return checkpoint.numbers
        if progress and is_leader():
            print(checkpoint.name, file=sys.stderr)
        own = settings_of(checkpoint).k
        return evaluate_checkpoint(
            checkpoint,
            k=min(own, layout.most_samples or own) if k is None else k,
            num=num,
            sampling_seeds=1 if on_slice else SAMPLING_SEEDS,
            only=[group],
            on_slice=on_slice,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )

    return layout.build(name, numbers)
