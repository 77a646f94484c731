"""Ranks own images by their likelihood under a model, or by how unlike good images they are; draws sheets of them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.data import build
from zoo.data.own import Arrays, ImageFolder, own_section
from zoo.errors import ConfigError, DataError
from zoo.files import expand
from zoo.measurement import nats_to
from zoo.metrics.estimators import CAPABILITIES, estimators_of
from zoo.metrics.likelihood import log_likelihood
from zoo.metrics.novelty import Novelty, novelty
from zoo.metrics.own import own_examples, titles
from zoo.store.checkpoint import Checkpoint

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 64
"""Number of images on the sheet."""
LARGEST = 128
"""Height and width of the largest images that `compare` takes; a minute for 60 of them."""


@dataclass(frozen=True)
class Scores:
    """Images and their log-likelihoods, the least likely first.

    Attributes:
        files: Path of each image below the folder, or its position in the array.
        labels: Names of their folders, or numbers; None if there are no labels.
        images: The images as the model sees them, [N, *event_shape].
        nats: log p(x), or its tightest bound, [N], float64.
        bits_per_dim: -log p(x)/(D ln 2), [N], for 8-bit images, else None.
        name: `log_prob` or `elbo`.
        kind: `exact`, `bound` or `estimate`.
    """

    files: list[str]
    labels: list[str] | None
    images: Tensor
    nats: Tensor
    bits_per_dim: Tensor | None
    name: str
    kind: str

    def to_csv(self) -> str:
        """One line per image, the least likely first: file, label, nats, bits_per_dim, kind; empty if not known."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "label", "nats", "bits_per_dim", "kind"])
        for i, file in enumerate(self.files):
            label = "" if self.labels is None else self.labels[i]
            bits = "" if self.bits_per_dim is None else f"{self.bits_per_dim[i]:.6g}"
            writer.writerow([file, label, f"{self.nats[i]:.6f}", bits, f"{self.name}, {self.kind}"])
        return text.getvalue()

    @property
    def is_visible(self) -> bool:
        """Whether the examples are grey or colour images, so that a sheet can show them."""
        return _is_visible(self.images)

    def sheet(self, num: int = SHOWN, columns: int = 8) -> Image:
        """Draws the images in reading order, the least likely first, each above its nats.

        Args:
            num: Number of images. If there are more, the sheet shows the first and the last `num`/2 of them.
            columns: Number of images in a row.

        Raises:
            DataError: The examples are not grey or colour images.
        """
        captions = [f"{value:.1f}" for value in self.nats.tolist()]
        return _sheet(self.images, captions, f"({self.name} in nats, {self.kind})", num, columns)


@dataclass(frozen=True)
class Comparison:
    """New images compared with good ones, the least likely first; see `zoo.metrics.novelty`.

    Attributes:
        files: Path of each new image below the folder, or its position in the array.
        labels: Names of their folders, or numbers; None if there are no labels.
        images: The images, [N, C, H, W], in [0, 1].
        novelty: Their scores and p-values, and the threshold.
    """

    files: list[str]
    labels: list[str] | None
    images: Tensor
    novelty: Novelty

    @property
    def num_odd(self) -> int:
        """Number of images whose score is above the threshold."""
        return int((self.novelty.scores > self.novelty.threshold).sum())

    @property
    def is_visible(self) -> bool:
        """Whether the images are grey or colour images, so that a sheet can show them."""
        return _is_visible(self.images)

    def to_csv(self) -> str:
        """One line per image, the least likely first: rank, file, label, score, p_value, and odd: yes or no."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["rank", "file", "label", "score", "p_value", "odd"])
        for i, file in enumerate(self.files):
            label = "" if self.labels is None else self.labels[i]
            value, p = self.novelty.scores[i].item(), self.novelty.p_values[i].item()
            is_odd = "yes" if value > self.novelty.threshold else "no"
            writer.writerow([i + 1, file, label, f"{value:.4f}", f"{p:.3g}", is_odd])
        return text.getvalue()

    def sheet(self, num: int = SHOWN, columns: int = 8) -> Image:
        """Draws the images as `Scores.sheet` does, each above its p-value."""
        captions = [f"p {p:.2g}" for p in self.novelty.p_values.tolist()]
        return _sheet(self.images, captions, f"given {self.novelty.num_good} good ones", num, columns)


def _is_visible(images: Tensor) -> bool:
    return images.ndim == 4 and images.shape[1] in (1, 3)


def _sheet(images: Tensor, captions: list[str], what: str, num: int, columns: int) -> Image:
    """Draws images with captions: all, or the first and the last `num`/2; `what` ends the titles."""
    if not _is_visible(images):
        shape = list(images.shape[1:])
        raise DataError(f"score: a sheet shows images of one channel or three, found examples of shape {shape}")
    from PIL import Image, ImageDraw, ImageFont

    from zoo.pictures import pixels

    total, half = len(images), -(-num // 2)
    halves = [list(range(total))] if total <= num else [list(range(half)), list(range(total - half, total))]
    font, ink, margin, caption = ImageFont.load_default(11), "#404040", 8, 16
    height, width = images.shape[-2:]
    scale = max(1, round(56 / width))
    across, down = max(width * scale, 56) + margin, height * scale + caption + margin
    rows = [-(-len(part) // columns) for part in halves]
    titles = ["least likely first"] if len(halves) == 1 else [f"the {half} least likely", f"the {half} most likely"]
    size = (columns * across + margin, sum(row * down + 24 for row in rows) + margin)
    sheet = Image.new("RGB", size, "white")
    draw, top = ImageDraw.Draw(sheet), margin
    for part, title, row in zip(halves, titles, rows, strict=True):
        draw.text((margin, top), f"{title} of {total} {what}", ink, font)
        for place, i in enumerate(part):
            x, y = margin + place % columns * across, top + 20 + place // columns * down
            image = pixels(images[i]).movedim(0, -1).squeeze(-1).numpy()
            picture = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
            sheet.paste(picture, (x, y))
            draw.text((x, y + height * scale + 2), captions[i], ink, font)
        top += row * down + 24
    return sheet


def score(
    checkpoint: Checkpoint,
    data: str | Path,
    *,
    resize: bool = False,
    binarize: bool = False,
    skip_corrupt: bool = False,
    k: int = 100,
    draws: int = 10,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 500,
    progress: bool = True,
) -> Scores:
    """Computes log p(x) of own images under a checkpoint, or its tightest bound, and ranks the images by it.

    Args:
        checkpoint: The checkpoint.
        data: A folder of images, whose subfolders are labels, or a .npz or .npy file.
        resize: Whether to convert images to the size and channels of the model.
        binarize: Whether to make pixels black or white, for models of binary data.
        skip_corrupt: Whether to leave out files that cannot be decoded.
        k, draws, seed: See `Effort`.
        device: Where to put the model.
        batch_size: Number of rows that pass through the network at once.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: The model has neither a density nor a bound.
        DataError: The data are missing or damaged, or have another shape or other grey levels than the model.
    """
    model = checkpoint.load(device=device)
    if not estimators_of(type(model)):
        raise ConfigError(
            f"{checkpoint.source}: {type(model).__name__} has neither a density nor a bound; choose a checkpoint of "
            f"`zoo list --capability NAME`, where NAME is one of {', '.join(CAPABILITIES)}"
        )
    own = own_examples(checkpoint, model, data, resize=resize, binarize=binarize, skip_corrupt=skip_corrupt)
    found = log_likelihood(model, own.data, batch_size=batch_size, progress=progress, k=k, draws=draws, seed=seed)
    assert found is not None
    order = found.nats.argsort(stable=True)
    ranked = order.tolist()
    return Scores(
        files=[own.files[i] for i in ranked],
        labels=None if own.labels is None else [own.labels[i] for i in ranked],
        images=own.images(order),
        nats=found.nats[order],
        bits_per_dim=-found.nats[order] * nats_to("bits/dim", own.data.event_shape) if own.data.levels == 256 else None,
        name=found.name,
        kind=found.estimate.kind,
    )


def compare(
    good: str | Path,
    new: str | Path,
    *,
    size: int | None = None,
    skip_corrupt: bool = False,
    false_alarms: float = 0.01,
    seed: int = 0,
) -> Comparison:
    """Finds the images that are unlike good ones, by densities that are fitted to the good ones in seconds.

    Args:
        good: A folder of good images of one kind, or a .npz or .npy file of 8-bit images.
        new: The images to judge, in the same form.
        size: Height and width to which the central square of each image is scaled; by default images stay as they are,
            and all must have one size.
        skip_corrupt: Whether to leave out files that cannot be decoded.
        false_alarms: Rate of false alarms among good images, in (0, 1).
        seed: Seed of the division of good images.

    Raises:
        ConfigError: `size` is for folders alone.
        DataError: Images are missing or damaged, too few, too large, or of several shapes.
    """
    x = []
    for path in (good, new):
        own = _images_at(expand(path).resolve(), size, skip_corrupt)
        whole = own.everything()
        if own.levels != 256 or whole.x.ndim != 4:
            raise DataError(f"{path}: expected 8-bit images, found other arrays; pass an array of uint8, [N, C, H, W]")
        if max(whole.x.shape[2:]) > LARGEST:
            height, width = whole.x.shape[2:]
            raise DataError(f"{path}: expected at most {LARGEST} pixels a side, found {height}x{width}; pass --size 64")
        x.append(whole.x.float() / 255)
    found = novelty(*x, false_alarms=false_alarms, seed=seed)
    order = found.scores.argsort(descending=True, stable=True)
    files, labels = titles(own, whole)
    new_files = [files[i] for i in order.tolist()]
    new_labels = None if labels is None else [labels[i] for i in order.tolist()]
    ranked = replace(found, scores=found.scores[order], p_values=found.p_values[order])
    return Comparison(new_files, new_labels, x[1][order], ranked)


def _images_at(path: Path, size: int | None, skip_corrupt: bool) -> ImageFolder | Arrays:
    section = own_section(path, (), skip_corrupt=skip_corrupt)
    if size is not None:
        if section["class"] != "ImageFolder":
            raise ConfigError(f"{path}: size is for a folder of images, found no folder; prepare arrays yourself")
        section["size"] = size
    own = build(section)
    assert isinstance(own, ImageFolder | Arrays)
    return own
