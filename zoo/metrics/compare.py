"""Samples and log-likelihoods of any model beside those of the zoo, measured and checked in the same way.

A number counts only if it was found by the protocol of its table. `checks` says whether it was, as far as the files
tell: all test images and each once, as many samples as other rows have, no training images among the samples, and no
likelihood that is better than the data allow.

For binary images that were drawn from grey ones, pixel d being 1 with probability g_d, no model that knows neither the
draw nor the grey image has a lower mean negative log-likelihood than

    H = E[sum_d h(g_d)],    h(g) = -g log g - (1 - g) log(1 - g)
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.config import brief, near, read_bytes
from zoo.data import MNIST, BinarizedMNIST, build
from zoo.data.base import DataModule
from zoo.data.own import Arrays, ImageFolder, own_section
from zoo.errors import ConfigError, DataError
from zoo.files import expand
from zoo.measurement import Kind, Measurement, mean_and_error, nats_to
from zoo.metrics.extractors import default_extractor, load_extractor, to_bytes
from zoo.metrics.quality import evaluate_quality
from zoo.metrics.tables import TABLES, Guest, Layout, Likelihoods, Qualities, Table
from zoo.store.card import model_index
from zoo.store.registry import registry
from zoo.store.source import checkpoint as resolve

USUAL_SAMPLES = 10_000
"""Number of samples behind the FIDs of the zoo, unless a test split is smaller."""

LARGEST_FILE = 64 * 2**20
COLUMNS = ("log_prob", "nats")
"""Names of the column of log-likelihoods; the second is that of `zoo score`."""
POSITIONS = ("index", "file")
"""Names of the column of positions in the test split, if the rows are in another order."""

MOST_COPIES = 0.01
"""Largest share of samples that may equal a training image, beyond the share of test images that do."""


@dataclass(frozen=True)
class Check:
    """A rule of the protocol.

    Attributes:
        rule: What must hold.
        holds: Whether it does.
        detail: What was found.
    """

    rule: str
    holds: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok' if self.holds else 'BROKEN':6}  {self.rule}: {self.detail}"


@dataclass(frozen=True)
class Standing:
    """Where a model stands among those of the zoo.

    Attributes:
        name: Name of the model.
        numbers: Its numbers.
        tables: Tables of the zoo with rows for the model.
        checks: What was checked of the protocol.
    """

    name: str
    numbers: list[Measurement]
    tables: list[Table]
    checks: list[Check]

    @property
    def broken(self) -> list[Check]:
        """The rules that do not hold."""
        return [check for check in self.checks if not check.holds]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_card(self) -> str:
        """The `model-index` of a model card, YAML."""
        return model_index(self.name, self.numbers)

    def __str__(self) -> str:
        return "\n\n".join(
            [*map(str, self.tables), "\n".join(map(str, self.numbers)), "\n".join(map(str, self.checks))]
        )


def compare(
    data: str,
    *,
    samples: str | Path | None = None,
    log_prob: str | Path | None = None,
    kind: Kind = "estimate",
    name: str = "yours",
    device: str = "cpu",
    progress: bool = True,
) -> Standing:
    """Measures files of another model as the checkpoints are measured.

    Args:
        data: Name of a data set, such as "mnist" or "binarized-mnist".
        samples: Images that the model drew: a folder of images, or a .npz or .npy file.
        log_prob: CSV file of the log-likelihood of each test image in nats; see `read_log_probs`.
        kind: Whether these are exact, lower bounds, or estimates.
        name: Name of the model in the tables.
        device: Where to compute features of samples.
        progress: Whether to show progress bars.

    Raises:
        ConfigError: There is no such data set, or nothing to compare.
        DataError: A file is damaged, or samples have another shape than the data.
    """
    if samples is None and log_prob is None:
        raise ConfigError("compare: expected --samples, --log-prob or both, found nothing to compare")
    source = data_set(data)
    numbers: list[Measurement] = []
    layouts: list[Layout] = []
    checks: list[Check] = []
    if log_prob is not None:
        nats, found = read_log_probs(expand(log_prob), source)
        numbers += _likelihoods(nats, source, kind)
        checks += [*found, *_check_entropy(nats, source)]
        layouts.append(_likelihood_layout(source))
    if samples is not None:
        images, found = read_samples(expand(samples), source)
        checks += [*found, check_copies(images, source)]
        numbers += _qualities(images, source, device, progress)
        layouts.append(_quality_layout(source))
    guests = [Guest(name, numbers)]
    tables = [layout.build("compare", lambda checkpoint, group: checkpoint.numbers, guests) for layout in layouts]
    return Standing(name, numbers, tables, checks)


def data_set(name: str) -> DataModule:
    """The data set of that name on which a checkpoint was trained.

    Raises:
        ConfigError: There is none.
    """
    by_data = {entry.data: title for title, entry in sorted(registry().items())}
    if name not in by_data:
        raise ConfigError(f"--data: no data set is called {brief(name)}; {near(name, by_data)}")
    return resolve(by_data[name]).data()


# --------------------------------------------------------------------------------------------------------- likelihoods


def read_log_probs(path: Path, data: DataModule) -> tuple[Tensor, list[Check]]:
    """Reads log-likelihoods of test images.

    Args:
        path: A CSV file with a column `log_prob`, or `nats` as `zoo score` writes it, and perhaps one of positions in
            the test split, `index` or `file`; or one number in each line, in the order of the test split.
        data: The data set.

    Returns:
        The log-likelihoods in nats, [N], float64, and whether they obey the protocol.

    Raises:
        ConfigError: The file is no such table.
        DataError: A value is no finite number.
    """
    lines = list(csv.reader(read_bytes(path, LARGEST_FILE).decode(errors="replace").splitlines()))
    lines = [line for line in lines if line]
    if not lines:
        raise ConfigError(f"{path}: expected a log-likelihood in each line, found an empty file")
    header, column = [title.strip() for title in lines[0]], 0
    if not _is_number(header[0]) or len(header) > 1:
        column = next((header.index(title) for title in COLUMNS if title in header), -1)
        if column < 0:
            raise ConfigError(f"{path}: expected a column {' or '.join(COLUMNS)}, found {brief(', '.join(header))}")
        lines = lines[1:]
    place = next((header.index(title) for title in POSITIONS if title in header), None)
    values = [_value(line, column, path, number) for number, line in enumerate(lines, start=1)]
    total = len(data.split("test"))
    positions = None if place is None else [line[place] for line in lines]
    is_complete, detail = _each_once(len(values), positions, total)
    checks = [Check(f"each of the {total:,} test images of {data.name} has one log-likelihood", is_complete, detail)]
    nats = torch.tensor(values, dtype=torch.float64)
    if data.levels is not None:
        positive = int((nats > 0).sum())
        detail = f"{positive:,} of {len(nats):,} are" + ("; is this -log p, or a density?" if positive else "")
        checks.append(Check("no log-likelihood of pixels is above zero", not positive, detail))
    return nats, checks


def _each_once(num: int, positions: list[str] | None, total: int) -> tuple[bool, str]:
    if positions is None:
        return num == total, f"{num:,} values"
    valid = {text for text in positions if text.isdecimal() and int(text) < total}
    twice = sum(count > 1 for count in Counter(positions).values())
    others = [text for text in positions if text not in valid]
    detail = f"{num:,} values of {len(valid):,} images"
    detail += f", {twice:,} images more than once" if twice else ""
    detail += f"; {brief(others[0])} is no position in the test split" if others else ""
    return len(valid) == num == total, detail


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _value(line: list[str], column: int, path: Path, number: int) -> float:
    text = line[column] if column < len(line) else ""
    if not _is_number(text) or not math.isfinite(float(text)):
        raise DataError(f"{path}: row {number}: expected a finite log-likelihood in nats, found {brief(text)}")
    return float(text)


def _likelihoods(nats: Tensor, data: DataModule, kind: Kind) -> list[Measurement]:
    numbers = []
    for unit in ("nats", "bits/dim") if data.levels == 256 else ("nats",):
        value, error = mean_and_error(-nats * nats_to(unit, data.event_shape))
        name = "neg_elbo" if kind == "bound" else "nll"
        numbers.append(Measurement(name, value, error, unit, kind, len(nats), 0, "test", data.name))
    return numbers


def _check_entropy(nats: Tensor, data: DataModule) -> list[Check]:
    """Whether the mean is possible, for data of known entropy."""
    if (known := least_nll(data)) is None:
        return []
    least, spread = known
    mean, error = mean_and_error(-nats)
    is_possible = mean > least - 4 * math.hypot(error or 0, spread)
    detail = f"{mean:.2f} nats, and at least {least:.2f} are needed"
    return [Check("the mean does not beat the entropy of the data", is_possible, detail)]


def least_nll(data: DataModule) -> tuple[float, float] | None:
    """The least mean negative log-likelihood of test images, in nats, and the error of that; None if not known."""
    if hasattr(data, "entropy"):
        return float(data.entropy), 0.0
    if isinstance(data, BinarizedMNIST):
        grey: DataModule = MNIST(root=str(data.root))
    elif getattr(data, "binarize", None) == "dynamic":
        grey = type(data)(root=str(data.root))
    else:
        return None
    g = grey.split("test").x.double().div(255).flatten(1)
    each = (torch.special.entr(g) + torch.special.entr(1 - g)).sum(1)
    return each.mean().item(), each.std().item() / math.sqrt(len(each))


def _likelihood_layout(data: DataModule) -> Layout:
    for layout in TABLES.values():
        if isinstance(layout, Likelihoods) and layout.data == (data.name,):
            return layout
    unit = "bits/dim" if data.levels == 256 else "nats"
    title = f"Negative log-likelihood of the test images of {data.name}, in {unit}"
    return Likelihoods(title=title, data=(data.name,), unit=unit, published=())


# ------------------------------------------------------------------------------------------------------------- samples


def read_samples(path: Path, data: DataModule) -> tuple[Tensor, list[Check]]:
    """Reads samples as bytes, [N, C, H, W], and says whether they obey the protocol.

    Raises:
        DataError: They are missing or damaged, have another shape than the data, or values outside of [0, 1].
    """
    own = build(own_section(path.resolve(), tuple(data.event_shape)))
    assert isinstance(own, ImageFolder | Arrays)
    x = own.everything().x
    x = to_bytes(own.convert(x, torch.arange(len(x)), 0))
    if tuple(x.shape[1:]) != tuple(data.event_shape):
        raise DataError(f"{path}: expected images of shape {list(data.event_shape)}, found {list(x.shape[1:])}")
    usual = min(USUAL_SAMPLES, len(data.split("test")))
    checks = [Check(f"there are {usual:,} samples, as in other rows", len(x) == usual, f"{len(x):,} samples")]
    if data.levels == 2:
        grey = int(((x > 0) & (x < 255)).flatten(1).any(1).sum())
        checks.append(Check("samples are black and white, as the data are", not grey, f"{grey:,} are grey"))
    different = len({image.tobytes() for image in x.numpy()})
    is_varied = different >= (1 - MOST_COPIES) * len(x)
    return x, [*checks, Check("samples differ from each other", is_varied, f"{different:,} of {len(x):,} differ")]


def check_copies(images: Tensor, data: DataModule) -> Check:
    """Whether more samples [N, C, H, W], uint8, equal a training image than test images do."""

    def all_of(parts: Iterable[Tensor]) -> list[bytes]:
        return [image.tobytes() for part in parts for image in to_bytes(part).numpy()]

    train = set(all_of(batch.x for batch in data.batches("train")))
    test = all_of(batch.x for batch in data.batches("test"))
    copies = sum(image in train for image in all_of([images]))
    usual = sum(image in train for image in test) / len(test)
    detail = f"{copies:,} of {len(images):,} are, and {usual:.2%} of test images"
    return Check("samples are not training images", copies / len(images) <= usual + MOST_COPIES, detail)


def _qualities(images: Tensor, data: DataModule, device: str, progress: bool) -> list[Measurement]:
    if (name := default_extractor(data)) is None:
        raise ConfigError(f"--samples: no classifier of the zoo knows images of {data.name}; leave it out")
    num = min(len(images), USUAL_SAMPLES)
    extractor = load_extractor(name, device)
    found = evaluate_quality(images.split(500), data, extractor, num=num, progress=progress)
    if not any(number.name == "fid" for number in found):
        raise DataError(f"--samples: expected more than {extractor.num_features} images for an FID, found {num}")
    return found


def _quality_layout(data: DataModule) -> Layout:
    for layout in TABLES.values():
        if isinstance(layout, Qualities) and data.name in layout.data:
            is_first = layout.data[0] == data.name
            title = f"Quality of samples against the test images of {data.name}"
            return replace(layout, title=title, data=(data.name,), published=layout.published if is_first else ())
    title = f"Quality of samples against the test images of {data.name}"
    return Qualities(title=title, data=(data.name,), published=())
