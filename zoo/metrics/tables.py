"""Published tables beside the same numbers of the shipped checkpoints, recomputed from their weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.config import near
from zoo.distributed import is_leader
from zoo.errors import ConfigError
from zoo.measurement import Measurement
from zoo.metrics.evaluate import Evaluation, evaluate_checkpoint
from zoo.store.names import find_class
from zoo.store.registry import Entry, registry
from zoo.store.source import checkpoint as found_at

# Test negative log-likelihood on static binarised MNIST, as collected in table 4 of van den Oord et al. 2016 (Pixel
# Recurrent Neural Networks, https://arxiv.org/abs/1601.06759), with the sources named there; at the end, what other
# papers say: table 1 of Larochelle & Murray 2011 (https://proceedings.mlr.press/v15/larochelle11a.html), Lamb et al.
# 2016 (https://arxiv.org/abs/1610.09038), Gulrajani et al. 2017 (https://arxiv.org/abs/1611.05013).
NLL = (
    ("uniform", 543.43, "exact", "784 log 2"),
    ("DBM, 2 hidden layers", 84.62, "estimate", "Salakhutdinov & Hinton 2009"),
    ("DBN, 2 hidden layers", 84.55, "estimate", "Murray & Salakhutdinov 2009"),
    ("NADE", 88.33, "exact", "Larochelle & Murray 2011"),
    ("EoNADE, 2 hidden layers, 128 orderings", 85.10, "exact", "Uria et al. 2014"),
    ("EoNADE-5, 2 hidden layers, 128 orderings", 84.68, "exact", "Raiko et al. 2014"),
    ("DLGM", 86.60, "estimate", "Rezende et al. 2014"),
    ("DLGM, 8 leapfrog steps", 85.51, "estimate", "Salimans et al. 2015"),
    ("DARN, 1 hidden layer", 84.13, "estimate", "Gregor et al. 2014"),
    ("MADE, 2 hidden layers, 32 masks", 86.64, "exact", "Germain et al. 2015"),
    ("DRAW", 80.97, "bound", "Gregor et al. 2015"),
    ("PixelCNN", 81.30, "exact", "van den Oord et al. 2016"),
    ("Row LSTM", 80.54, "exact", "van den Oord et al. 2016"),
    ("Diagonal BiLSTM, 1 layer, 32 units", 80.75, "exact", "van den Oord et al. 2016"),
    ("Diagonal BiLSTM, 7 layers, 16 units", 79.20, "exact", "van den Oord et al. 2016"),
    ("mixture of 500 Bernoullis", 137.64, "exact", "Larochelle & Murray 2011"),
    ("FVSBN", 97.45, "exact", "Larochelle & Murray 2011"),
    ("RNN, professor forcing", 79.58, "exact", "Lamb et al. 2016"),
    ("gated PixelCNN, re-implemented", 80.10, "exact", "Gulrajani et al. 2017"),
)

# Test negative log-likelihood on MNIST with its 256 grey levels, in bits per dimension. Flows: table 1 of Chen et al.
# 2019 (Residual Flows, https://arxiv.org/abs/1906.02735), with the sources named there; densities of real numbers are
# bounds of the likelihood of 8-bit pixels. Transformers: table 1 of Katharopoulos et al. 2020
# (https://arxiv.org/abs/2006.16236). PixelCNN: tutorial 12 of https://uvadlc-notebooks.readthedocs.io.
MNIST = (
    ("uniform", 8.00, "exact", "log2 256"),
    ("Real NVP", 1.06, "bound", "Dinh et al. 2017"),
    ("Glow", 1.05, "bound", "Kingma & Dhariwal 2018"),
    ("FFJORD", 0.99, "bound", "Grathwohl et al. 2019"),
    ("Residual Flow", 0.97, "bound", "Chen et al. 2019"),
    ("gated PixelCNN", 0.81, "exact", "Lippe 2020"),
    ("linear transformer over pixels", 0.644, "exact", "Katharopoulos et al. 2020"),
    ("softmax transformer over pixels", 0.621, "exact", "Katharopoulos et al. 2020"),
)

# Test negative log-likelihood on CIFAR-10 in bits per dimension: table 5 of van den Oord et al. 2016, bounds likewise.
CIFAR10 = (
    ("uniform", 8.00, "exact", "van den Oord et al. 2016"),
    ("multivariate Gaussian", 4.70, "bound", "van den Oord et al. 2016"),
    ("NICE", 4.48, "bound", "Dinh et al. 2014"),
    ("deep diffusion", 4.20, "bound", "Sohl-Dickstein et al. 2015"),
    ("deep GMM", 4.00, "bound", "van den Oord & Schrauwen 2014"),
    ("RIDE", 3.47, "bound", "Theis & Bethge 2015"),
    ("PixelCNN", 3.14, "exact", "van den Oord et al. 2016"),
    ("Row LSTM", 3.07, "exact", "van den Oord et al. 2016"),
    ("Diagonal BiLSTM", 3.00, "exact", "van den Oord et al. 2016"),
)

MOST_SAMPLES = {"mnist-nll": 200}
"""Importance samples per image of a table that is recomputed as a whole, where a recipe has more: it takes minutes."""

# The best FIDs in a search over the hyperparameters of one architecture, with their spread over seeds, on Inception's
# features: Lucic et al. 2018 (Are GANs Created Equal?, https://arxiv.org/abs/1711.10337); MNIST, then Fashion-MNIST.
FID = (
    ("GAN, minimax", (9.8, 0.9), (29.6, 1.6)),
    ("GAN, non-saturating", (6.8, 0.5), (26.5, 1.6)),
    ("LSGAN", (7.8, 0.6), (30.7, 2.2)),
    ("WGAN", (6.7, 0.4), (21.5, 1.6)),
    ("WGAN-GP", (20.3, 5.0), (24.5, 2.1)),
    ("DRAGAN", (7.6, 0.4), (27.7, 1.2)),
    ("BEGAN", (13.1, 1.0), (22.9, 0.9)),
    ("VAE", (23.8, 0.6), (58.7, 1.2)),
)

SAMPLING_SEEDS = 5
"""Sets of samples for the spread of an FID, where a table is recomputed."""


@dataclass(frozen=True)
class Table:
    """Rows of plain values; prints as text, and for programs as JSON.

    Attributes:
        name: what `reproduce` takes.
        title: what stands above it.
        columns: names of the columns, each with the format of its numbers.
        rows: column names to values; a missing or None value prints as nothing.
        notes: what a reader must know.
    """

    name: str
    title: str
    columns: dict[str, str]
    rows: list[dict[str, Any]]
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
    """A table by name.

    `mnist-nll`, `mnist-bpd`, `cifar10-bpd`, `mnist-fid`, `fashion-mnist-fid`, `outliers` or `taxonomy`.

    Args:
        recompute: from the weights; otherwise, what `metrics.json` records.
        k: importance samples per image; by default those of each recipe, but at most `MOST_SAMPLES` of the table.
        num, on_slice, device, batch_size: see `evaluate_checkpoint`.

    Raises:
        ConfigError: there is no such table.
    """
    if name not in _TABLES:
        raise ConfigError(f"no table is called {name!r}; {near(name, _TABLES)}")

    def numbers(checkpoint: str, group: str) -> list[Measurement]:
        if not recompute:
            return found_at(checkpoint).numbers
        if progress and is_leader():
            print(checkpoint, file=sys.stderr)
        source = found_at(checkpoint)
        own = (source.settings.get("evaluation") or {}).get("k", Evaluation.k)
        return evaluate_checkpoint(
            source,
            k=min(own, MOST_SAMPLES.get(name, own)) if k is None else k,
            num=num,
            sampling_seeds=1 if on_slice else SAMPLING_SEEDS,
            only=[group],
            on_slice=on_slice,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )

    return _TABLES[name](numbers)


_Numbers = Callable[[str, str], list[Measurement]]


def _shipped(data: str, capability: str) -> dict[str, Entry]:
    entries = sorted(registry().items())
    return {name: entry for name, entry in entries if entry.data == data and capability in entry.capabilities}


def _mnist_nll(numbers: _Numbers) -> Table:
    title = "Negative log-likelihood of the test images of static binarised MNIST, in nats"
    return _likelihoods("mnist-nll", title, NLL, "binarized-mnist", "nats", numbers)


def _mnist_bpd(numbers: _Numbers) -> Table:
    title = "Negative log-likelihood of the test images of MNIST with 256 grey levels, in bits per dimension"
    return _likelihoods("mnist-bpd", title, MNIST, "mnist", "bits/dim", numbers)


def _cifar10_bpd(numbers: _Numbers) -> Table:
    title = "Negative log-likelihood of the test images of CIFAR-10, in bits per dimension"
    return _likelihoods("cifar10-bpd", title, CIFAR10, "cifar10", "bits/dim", numbers)


def _likelihoods(
    name: str, title: str, published: tuple[tuple[str, float, str, str], ...], data: str, unit: str, numbers: _Numbers
) -> Table:
    """Published likelihoods and those of the checkpoints of a data set, the best last."""
    rows: list[dict[str, Any]] = [
        {"model": model, unit: value, "kind": kind, "source": source} for model, value, kind, source in published
    ]
    for checkpoint in _shipped(data, "TractableDensity") | _shipped(data, "EvidenceLowerBound"):
        for m in numbers(checkpoint, "likelihood"):
            if (m.name, m.unit, m.split, m.data) == ("nll", unit, "test", data):
                settings = "".join(f"{key} = {m.details[key]}, " for key in ("k", "draws") if key in m.details)
                given = "labels given, " if "Conditional" in registry()[checkpoint].capabilities else ""
                source = f"this zoo ({given}{settings}{m.n} images)"
                row = {"model": checkpoint, unit: m.value, "error": m.error, "kind": m.kind, "source": source}
                rows.append(row | {"weights_sha256": registry()[checkpoint].weights_sha256})
    return Table(
        name,
        title,
        {"model": "", unit: ".2f", "error": ".2f", "kind": "", "source": ""},
        sorted(rows, key=lambda row: -row[unit]),
        [
            "exact: the likelihood itself; bound: the true value is no larger; estimate: it may lie on either side.",
            "error: one standard error over test images, where known.",
        ],
    )


def _mnist_fid(numbers: _Numbers) -> Table:
    published = [(model, *digits) for model, digits, _ in FID]
    return _qualities("mnist-fid", "MNIST", published, ("mnist", "binarized-mnist", "dynamic-mnist"), numbers)


def _fashion_mnist_fid(numbers: _Numbers) -> Table:
    published = [(model, *clothes) for model, _, clothes in FID]
    return _qualities("fashion-mnist-fid", "Fashion-MNIST", published, ("fashion-mnist",), numbers)


def _qualities(
    name: str, title: str, published: list[tuple[str, float, float]], sets: tuple[str, ...], numbers: _Numbers
) -> Table:
    """Published FIDs, then for each data set its baselines and every model that draws such images, the best first."""
    rows: list[dict[str, Any]] = [
        {"model": model, "data": sets[0], "fid": value, "error": spread, "features": "Inception"}
        | {"kind": "estimate", "source": "Lucic et al. 2018"}
        for model, value, spread in published
    ]
    left_out: list[str] = []
    for data in sets:
        ours: list[dict[str, Any]] = []
        baselines: dict[tuple[str, str, int], dict[str, Any]] = {}  # each setting has its own
        for checkpoint in _shipped(data, "GenerativeModel"):
            found = {m.name: m for m in numbers(checkpoint, "quality") if (m.split, m.data) == ("test", data)}
            if (m := found.get("fid")) is None:
                left_out.append(checkpoint)
                continue
            setting = {"data": data, "kind": m.kind, "features": m.details["extractor"]}
            setting["source"] = f"this zoo ({m.n} samples)"
            spread = m.details.get("sampling_seeds", {})
            seeds = {"mean": spread.get("mean"), "std": spread.get("std"), "seeds": spread.get("n")}
            values = {key: found[key].value for key in _QUALITIES if key in found}
            own = {"model": checkpoint, "weights_sha256": registry()[checkpoint].weights_sha256}
            ours.append({**own, "error": m.error, **values, **seeds, **setting})
            for line, what in _BASELINES.items():
                beside = {key: found[key].details.get(line) for key in _QUALITIES if key in found}
                if beside.get("fid") is not None:
                    baselines[line, setting["features"], m.n] = {"model": what, **beside, **setting}
        lines = sorted(baselines.items(), key=lambda item: list(_BASELINES).index(item[0][0]))
        rows += [*(row for _, row in lines), *sorted(ours, key=lambda row: row["fid"])]
    forms = {"fid": ".4g", "error": ".2g", "mean": ".4g", "std": ".2g", "seeds": ""}
    forms |= {"kid": ".3g", "inception_score": ".3f", "precision": ".3f", "recall": ".3f"}
    return Table(
        name,
        f"Quality of samples against the test images of {title}",
        {"model": "", "data": "", **forms, "kind": "", "features": "", "source": ""},
        rows,
        [
            "FIDs over different features, or against grey and against binary images, are different quantities:",
            "compare rows of the same features and data only. Floor: as many training images in place of samples.",
            "Memoriser: training images drawn with replacement.",
            "error: one standard error of ours, by the draw of both sets of images; of the published, the spread over",
            "training seeds. mean, std: of the FID over as many sampling seeds.",
            *([f"Without a recorded FID: {', '.join(left_out)}."] if left_out else []),
        ],
    )


_QUALITIES = ("fid", "kid", "inception_score", "precision", "recall")
_BASELINES = {"floor": "(training images: the floor)", "memoriser": "(memoriser of the training images)"}


def _outliers(numbers: _Numbers) -> Table:
    shipped: dict[str, Entry] = {}
    for data in ("mnist", "binarized-mnist", "dynamic-mnist", "fashion-mnist", "dynamic-fashion-mnist"):
        shipped |= _shipped(data, "TractableDensity") | _shipped(data, "EvidenceLowerBound")
    rows, left_out = [], []
    for checkpoint in shipped:
        found = [m for m in numbers(checkpoint, "outliers") if m.name == "auroc" and m.split == "test"]
        if not found:
            left_out.append(checkpoint)
        for m in found:
            row = {"model": checkpoint, "own": m.data, "foreign": m.details["against"], "auroc": m.value}
            row |= {"error": m.error, "score": f"{m.details['score']} ({m.details['score_kind']})"}
            rows.append(row | {"images": f"{m.n} + {m.details['num_against']}"})
    return Table(
        "outliers",
        "Telling own from foreign test images by likelihood: area under the ROC curve",
        {"model": "", "own": "", "foreign": "", "auroc": ".4f", "error": ".2g", "score": "", "images": ""},
        sorted(rows, key=lambda row: (row["own"], -row["auroc"])),
        [
            "auroc: how often an image of the data set that the model was trained on is found more likely than a",
            "foreign one. 1: always; 0.5: chance; below: foreign images are found more likely.",
            "dynamic: pixels of both sets drawn afresh from their grey values, for models of binary images.",
            *([f"Without a recorded AUROC: {', '.join(left_out)}."] if left_out else []),
        ],
    )


def _taxonomy(numbers: _Numbers) -> Table:
    del numbers
    rows = []
    for name, entry in sorted(registry().items()):
        cls = find_class(entry.class_name, name)
        if (row := classify(cls)) is not None:
            rows.append({"model": name, "class": cls.__name__, **row})
    columns = ("model", "class", "generator", "density", "latents", "completes", "labels", "trained by")
    return Table("taxonomy", "Who has latents, a density, a generator: by type", dict.fromkeys(columns, ""), rows)


def classify(cls: type) -> dict[str, str] | None:
    """What a model class can do, by its types alone; None for one that draws nothing."""
    from zoo import capabilities as types

    if not issubclass(cls, types.GenerativeModel):
        return None

    def first(options: Iterable[tuple[tuple[type, ...], str]]) -> str:
        return next((answer for wanted, answer in options if all(issubclass(cls, kind) for kind in wanted)), "no")

    return {
        "generator": "yes",
        "density": first(
            [
                ((types.Dequantized,), "exact, of dequantised data"),
                ((types.TractableDensity,), "exact"),
                ((types.ImportanceWeighted,), "lower bound, tightens with samples"),
                ((types.EvidenceLowerBound,), "lower bound"),
            ]
        ),
        "latents": first(
            [
                ((types.Bijection,), "bijection"),
                ((types.Encoder, types.Decoder), "encoder and decoder"),
                ((types.Encoder,), "encoder"),
                ((types.Decoder,), "decoder"),
            ]
        ),
        "completes": first([((types.Completable,), "yes")]),
        "labels": first([((types.Conditional,), "yes")]),
        "trained by": first(
            [
                ((types.Adversarial,), "two players"),
                ((types.ClosedForm,), "closed form"),
                ((types.TractableDensity,), "likelihood"),
                ((types.EvidenceLowerBound,), "evidence lower bound"),
                ((types.Reconstructive,), "reconstruction"),
            ]
        ),
    }


_TABLES: dict[str, Callable[[_Numbers], Table]] = {
    "mnist-nll": _mnist_nll,
    "mnist-bpd": _mnist_bpd,
    "cifar10-bpd": _cifar10_bpd,
    "mnist-fid": _mnist_fid,
    "fashion-mnist-fid": _fashion_mnist_fid,
    "outliers": _outliers,
    "taxonomy": _taxonomy,
}
