"""What do the metrics notice? Training images of MNIST, spoiled more and more, in place of samples.

As in Heusel et al. 2017 (https://arxiv.org/abs/1706.08500, appendix A1); and three sets of which no image is at fault:
a memoriser, all classes but one, and one image per class, repeated. FID, KID, inception score, precision and recall
against the test images, over the features of lenet-mnist, as a table and a figure in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from report import ROOT
from torch import Tensor

from zoo.data import MNIST, FashionMNIST
from zoo.metrics import Table, load_extractor
from zoo.metrics.corruptions import Corruption, blur, foreign, noise, rectangles, salt_and_pepper, swirl
from zoo.metrics.quality import extract, reference_of, scores
from zoo.pictures import pixels

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

METRICS = {
    "fid": "FID (log)",
    "kid": "KID (log)",
    "inception_score": "inception score",
    "precision": "precision",
    "recall": "recall",
}
STRENGTHS = {
    "noise": (0.1, 0.2, 0.3, 0.5),
    "blur": (0.5, 1.0, 1.5, 2.0),
    "rectangles": (0.1, 0.2, 0.3, 0.4),
    "swirl": (0.5, 1.0, 2.0, 4.0),
    "salt_and_pepper": (0.02, 0.05, 0.1, 0.2),
    "foreign": (0.05, 0.1, 0.25, 0.5),
}
SETS = ("memoriser", "class left out", "one per class")
LEFT_OUT = 9


def images_of(data: MNIST | FashionMNIST, index: Tensor) -> Tensor:
    return torch.cat([batch.x for batch in data.batches("train", index=index)])


def study(num: int) -> list[dict[str, Any]]:
    """A row of numbers for each kind of image."""
    data, extractor = MNIST(), load_extractor("lenet-mnist")
    truth = reference_of(data, "test", extractor, num, seed=0)
    index = data.subset("train", num, 0)
    labels = data.split("train").labels
    assert labels is not None
    generator = torch.Generator().manual_seed(0)
    start, rows = time.perf_counter(), []

    def measure(name: str, strength: float, level: int, images: Tensor) -> None:
        features = extract(images.split(500), extractor, num, label=f"{name} {strength:g}")
        found = {title: value for title, (value, _) in scores(features, truth, seed=0).items()}
        rows.append({"images": name, "strength": strength, "level": level, **found})

    images = images_of(data, index)
    measure("training images", 0.0, 0, images)
    for name, corrupt in corruptions(num).items():
        for level, strength in enumerate(STRENGTHS[name], 1):
            measure(name, strength, level, corrupt(images, strength, 0))
    measure("memoriser", 0.0, 0, images_of(data, torch.randint(len(labels), (num,), generator=generator)))
    others = (labels != LEFT_OUT).nonzero()[:, 0]
    measure("class left out", 0.0, 0, images_of(data, others[torch.randperm(len(others), generator=generator)[:num]]))
    with torch.no_grad():  # of each class, the image of which the classifier is surest
        sure = torch.cat([extractor.features_and_logits(x)[1].log_softmax(-1) for x in images.split(500)])
    best = images[[int(sure[:, label].argmax()) for label in range(10)]]
    measure("one per class", 0.0, 0, best.repeat(math.ceil(num / 10), 1, 1, 1)[:num])
    print(f"{len(rows)} sets in {(time.perf_counter() - start) / 60:.1f} minutes on {torch.get_num_threads()} threads")
    return rows


@cache
def corruptions(num: int) -> dict[str, Corruption]:
    clothes = FashionMNIST()
    mixed = foreign(images_of(clothes, clothes.subset("train", num, 0)))
    return {c.__name__: c for c in (noise, blur, rectangles, swirl, salt_and_pepper)} | {"foreign": mixed}


def table(rows: list[dict[str, Any]], num: int) -> Table:
    forms = {"fid": ".4g", "kid": ".4g", "inception_score": ".3f", "precision": ".3f", "recall": ".3f"}
    return Table(
        "metric-response",
        f"What the metrics notice: {num} training images of MNIST, spoiled, against {num} test images",
        {"images": "", "strength": ".2f", **forms},
        rows,
        [
            "Strength: noise, standard deviation; blur, pixels; rectangles, side of five squares over the image's;",
            "swirl, radians; salt and pepper, share of the pixels; foreign, share of the images, from Fashion-MNIST.",
            f"Class left out: {LEFT_OUT}. One per class: the image of which the classifier is surest, repeated.",
        ],
    )


# ------------------------------------------------------------------------------------------------------------- figure

SHARP = 3  # drawn larger and shrunk, for smooth lines
INK, GRID = "#404040", "#d8d8d8"
COLOURS = ("#1f5fa8", "#c8501e", "#3c8c46", "#7a4fa3", "#b8860b", "#2a9d9d")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 330, 230, 48, 70, 26, 34


def draw_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Six rows of spoiled images beside their names, then a panel a metric: lines by level, and marks for the sets."""
    from PIL import Image, ImageDraw

    strips = _strips()
    size = (3 * WIDTH, 2 * HEIGHT + 12)
    picture = Image.new("RGB", (SHARP * size[0], SHARP * size[1]), "white")
    draw = ImageDraw.Draw(picture)
    for i, (metric, title) in enumerate(METRICS.items()):
        _panel(draw, rows, metric, title, i % 3 * WIDTH, i // 3 * HEIGHT)
    _legend(draw, 2 * WIDTH + 40, HEIGHT + 20)
    small = picture.resize(size, Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (size[0], size[1] + strips.height + 10), "white")
    whole.paste(strips, (LEFT, 4))
    whole.paste(small, (0, strips.height + 10))
    whole.quantize(128).save(path, "PNG", optimize=True)


def _strips() -> Any:
    """A digit at every strength of every corruption; images of MNIST and of Fashion-MNIST for the foreign ones."""
    from PIL import Image, ImageDraw, ImageFont

    data, font = MNIST(), ImageFont.load_default(11)
    index = data.subset("train", 12, 0)
    images, made = images_of(data, index), corruptions(12)
    cell, label = 42, 100
    strips = Image.new("RGB", (2 * (label + 5 * cell + 50), 3 * (cell + 4)), "white")
    draw = ImageDraw.Draw(strips)
    for i, (name, corrupt) in enumerate(made.items()):
        x, y = i // 3 * (label + 5 * cell + 50), i % 3 * (cell + 4)
        draw.text((x, y + cell / 2), name.replace("_", " "), COLOURS[i], font, "lm")
        for level, strength in enumerate((0.0, *STRENGTHS[name])):
            shown = [0, 0, 0, 0, 0] if name != "foreign" else [0, 1, 2, 3, 4]
            one = pixels(corrupt(images, strength if name != "foreign" else float(level > 2), 0))[shown[level], 0]
            digit = Image.fromarray(one.numpy()).resize((cell - 2, cell - 2), Image.Resampling.NEAREST)
            strips.paste(digit, (x + label + level * cell, y))
    return strips


def _panel(draw: ImageDraw, rows: list[dict[str, Any]], metric: str, title: str, x0: int, y0: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(11 * SHARP)
    is_log = "(log)" in title
    start = next(row for row in rows if row["images"] == "training images")

    def scale(value: float) -> float:
        return math.log10(max(value, 1.0)) if is_log else value

    values = [scale(row[metric]) for row in rows]
    linear = (0.0, 1.0) if max(values) <= 1 else (1.0, 10.0)
    low, high = (math.floor(min(values)), math.ceil(max(values))) if is_log else linear

    def place(level: float, value: float) -> tuple[float, float]:
        across = x0 + LEFT + (WIDTH - LEFT - RIGHT) * level / 4
        down = y0 + HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)
        return SHARP * across, SHARP * down

    for tick in _ticks(low, high, is_log):
        draw.line([place(0, tick), place(5, tick)], GRID, SHARP)
        text = f"{10**tick:g}" if is_log else f"{tick:g}"
        draw.text((place(0, tick)[0] - 5 * SHARP, place(0, tick)[1]), text, INK, font, "rm")
    for level in range(5):
        draw.text((place(level, low)[0], place(level, low)[1] + 5 * SHARP), str(level), INK, font, "mt")
    draw.text((place(2, low)[0], place(2, low)[1] + 18 * SHARP), "level of corruption", INK, font, "mt")
    draw.line([place(0, high), place(0, low), place(5, low)], INK, SHARP)
    draw.text((place(0, high)[0], SHARP * (y0 + 6)), title, INK, font, "lt")
    for name, colour in zip(STRENGTHS, COLOURS, strict=True):
        points = [place(0, scale(start[metric]))]
        points += [place(row["level"], scale(row[metric])) for row in rows if row["images"] == name]
        draw.line(points, colour, 2 * SHARP, "curve")
    for i, name in enumerate(SETS):
        value = next(row[metric] for row in rows if row["images"] == name)
        _mark(draw, *place(4.3 + 0.3 * i, scale(value)), i)


def _ticks(low: float, high: float, is_log: bool) -> Iterable[float]:
    if is_log:
        return range(int(low), int(high) + 1)
    return [low + (high - low) * i / 5 for i in range(6)] if high == 1 else range(1, 11, 3)


def _mark(draw: ImageDraw, x: float, y: float, kind: int) -> None:
    """A circle, a square or a triangle."""
    r = 5 * SHARP
    if kind == 0:
        draw.ellipse([x - r, y - r, x + r, y + r], "black")
    elif kind == 1:
        draw.rectangle([x - r, y - r, x + r, y + r], "black")
    else:
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], "black")


def _legend(draw: ImageDraw, x: int, y: int) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12 * SHARP)
    for i, (name, colour) in enumerate(zip(STRENGTHS, COLOURS, strict=True)):
        down = SHARP * (y + 18 * i)
        draw.line([(SHARP * x, down), (SHARP * (x + 22), down)], colour, 3 * SHARP)
        draw.text((SHARP * (x + 30), down), name.replace("_", " "), colour, font, "lm")
    names = ("memoriser: training images drawn again", f"all classes but {LEFT_OUT}", "one image per class, repeated")
    for i, name in enumerate(names):
        down = SHARP * (y + 18 * (len(STRENGTHS) + i) + 4)
        _mark(draw, SHARP * (x + 11), down, i)
        draw.text((SHARP * (x + 30), down), name, INK, font, "lm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=5000, help="images of every set (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder (default %(default)s)")
    parser.add_argument("--redraw", action="store_true", help="draw the figure of the numbers that are there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    place = arguments.out / "metric_response.json"
    if not arguments.redraw:
        found = {"num": arguments.num, "seed": 0, "extractor": load_extractor("lenet-mnist").details()}
        found["command"] = f"python benchmarks/metric_response.py --num {arguments.num}"
        place.write_text(json.dumps({**found, "rows": study(arguments.num)}, indent=1) + "\n")
    record = json.loads(place.read_text())
    text = str(table(record["rows"], record["num"]))
    place.with_suffix(".txt").write_text(text + "\n")
    draw_figure(record["rows"], place.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
