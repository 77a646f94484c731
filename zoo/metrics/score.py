"""The likelihood of a user's own images under a model, image by image, and a sheet of them from odd to typical."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from zoo.data.base import DataModule, Split, Which
from zoo.errors import ConfigError, DataError
from zoo.files import expand
from zoo.measurement import nats_to
from zoo.metrics.likelihood import log_likelihood

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.store.checkpoint import Checkpoint

SHOWN = 64
"""Images of the sheet."""


@dataclass(frozen=True)
class Scores:
    """Images and their log-likelihoods, the least likely first.

    Attributes:
        files: where each image came from: a path below the folder, or its number in the array.
        labels: names of their folders, or numbers; None where there are none.
        images: [N, *event_shape], as the model saw them: values in [0, 1].
        nats: log p(x), or its bound: [N], float64.
        bits_per_dim: -log p(x)/(D ln 2) of 8-bit images, else None.
        name, kind: what `nats` is: `log_prob` or `elbo`; exact, a bound or an estimate.
    """

    files: list[str]
    labels: list[str] | None
    images: Tensor
    nats: Tensor
    bits_per_dim: Tensor | None
    name: str
    kind: str

    def to_csv(self) -> str:
        """One line an image, the least likely first: file, label, nats, bits_per_dim, kind; empty where unknown."""
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
        """Whether the examples are images, grey or in colour, of which there can be a sheet."""
        return self.images.ndim == 4 and self.images.shape[1] in (1, 3)

    def sheet(self, num: int = SHOWN, columns: int = 8) -> Image:
        """The images in reading order, the least likely first, each above its nats.

        Of more than `num` images, the first half and the last half, with a gap between them.

        Raises:
            DataError: what was ranked are no images, grey or in colour.
        """
        if not self.is_visible:
            shape = list(self.images.shape[1:])
            raise DataError(f"score: a sheet shows images of one channel or three, found examples of shape {shape}")
        from PIL import Image, ImageDraw, ImageFont

        from zoo.pictures import pixels

        total, half = len(self.files), -(-num // 2)
        halves = [list(range(total))] if total <= num else [list(range(half)), list(range(total - half, total))]
        font, ink, margin, caption = ImageFont.load_default(11), "#404040", 8, 16
        height, width = self.images.shape[-2:]
        scale = max(1, round(56 / width))
        across, down = max(width * scale, 56) + margin, height * scale + caption + margin
        rows = [-(-len(part) // columns) for part in halves]
        titles = ["least likely first"] if len(halves) == 1 else [f"the {half} least likely", f"the {half} most likely"]
        size = (columns * across + margin, sum(row * down + 24 for row in rows) + margin)
        sheet = Image.new("RGB", size, "white")
        draw, top = ImageDraw.Draw(sheet), margin
        for part, title, row in zip(halves, titles, rows, strict=True):
            draw.text((margin, top), f"{title} of {total} ({self.name} in nats, {self.kind})", ink, font)
            for place, i in enumerate(part):
                x, y = margin + place % columns * across, top + 20 + place // columns * down
                image = pixels(self.images[i]).movedim(0, -1).squeeze(-1).numpy()
                picture = Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.NEAREST)
                sheet.paste(picture, (x, y))
                draw.text((x, y + height * scale + 2), f"{self.nats[i]:.1f}", ink, font)
            top += row * down + 24
        return sheet


class _Everything(DataModule):
    """All examples of a user's data, as one split."""

    def __init__(self, data: DataModule, whole: Split) -> None:
        super().__init__()
        self.name, self.levels, self.num_classes = data.name, data.levels, data.num_classes
        self.event_shape, self.whole = tuple(whole.x.shape[1:]), whole

    def load(self, which: Which) -> Split:
        return self.whole


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
    """log p(x) of each image of a folder or array under a checkpoint, or its tightest bound.

    Args:
        checkpoint: The checkpoint.
        data: a folder of images (folders inside it are labels), or an .npz or .npy file.
        resize, binarize, skip_corrupt: as in `zoo.training.finetune.finetune`.
        k, draws, seed, batch_size: as in `log_likelihood`.

    Raises:
        ConfigError: the model has neither a density nor a bound.
        DataError: the data are missing, damaged, or do not have the model's shape and grey levels.
    """
    from zoo.capabilities import Classifier, GenerativeModel
    from zoo.data import build
    from zoo.data.own import ImageFolder, _Own
    from zoo.training.finetune import check_fit, own_section

    model, source = checkpoint.load(device=device), checkpoint.source
    if isinstance(model, Classifier) or not isinstance(model, GenerativeModel):
        raise ConfigError(f"{source}: {type(model).__name__} has no density; {_ADVICE}")
    own = build(own_section(model, expand(data).resolve(), resize, binarize, skip_corrupt))
    assert isinstance(own, _Own)
    whole = own.everything()
    module = _Everything(own, whole)
    check_fit(checkpoint, model, module)
    found = log_likelihood(model, module, k=k, draws=draws, seed=seed, batch_size=batch_size, progress=progress)
    if found is None:
        raise ConfigError(f"{source}: {type(model).__name__} has neither a density nor a bound; {_ADVICE}")
    order = found.nats.argsort(stable=True)
    files = [str(path) for path in own.used] if isinstance(own, ImageFolder) else [str(i) for i in range(len(whole))]
    names = own.classes if isinstance(own, ImageFolder) else None
    labels = None
    if whole.labels is not None:
        labels = [names[label] if names else str(label) for label in whole.labels[order].tolist()]
    return Scores(
        files=[files[i] for i in order.tolist()],
        labels=labels,
        images=module.convert(whole.x[order], order, 0),
        nats=found.nats[order],
        bits_per_dim=-found.nats[order] * nats_to("bits/dim", module.event_shape) if own.levels == 256 else None,
        name=found.name,
        kind=found.kind,
    )


_ADVICE = "choose a checkpoint of `zoo list --capability TractableDensity` or EvidenceLowerBound"
