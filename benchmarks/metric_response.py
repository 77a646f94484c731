"""What the metrics of sample quality notice: corrupted training images of MNIST take the place of samples.

The corruptions are those of Heusel et al. 2017 (https://arxiv.org/abs/1706.08500, appendix A1). Three further sets have
only sound images: a memoriser, all classes but one, and one image per class, repeated. FID, KID, inception score,
precision and recall are measured against the test images on the features of lenet-mnist. The table and the figure are
written to benchmarks/results.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from report import ROOT
from torch import Tensor
from torch.nn import functional as F

from zoo.data import MNIST, FashionMNIST
from zoo.metrics import Table, load_extractor
from zoo.metrics.corruptions import Corruption, blur, foreign, noise, rectangles, salt_and_pepper, swirl
from zoo.metrics.quality import extract, reference_of, scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    """Measures every set of images; returns a row for each."""
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
    with torch.no_grad():  # the image of each class that the classifier is most certain of
        sure = torch.cat([extractor.features_and_logits(x)[1].log_softmax(-1) for x in images.split(500)])
    best = images[[int(sure[:, label].argmax()) for label in range(10)]]
    measure("one per class", 0.0, 0, best.repeat(math.ceil(num / 10), 1, 1, 1)[:num])
    minutes = (time.perf_counter() - start) / 60
    print(f"measured {len(rows)} sets in {minutes:.1f} minutes with {torch.get_num_threads()} threads")
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
        f"What the metrics notice: {num} corrupted training images of MNIST against {num} test images",
        {"images": "", "strength": ".2f", **forms},
        rows,
        [
            "Strength: standard deviation of the noise; pixels of the blur; side of the rectangles over the image's;",
            "radians of the swirl; share of the pixels for salt and pepper; share of the images for foreign, which are",
            f"from Fashion-MNIST. Class left out: {LEFT_OUT}. One per class: the image of each class that the",
            "classifier is most certain of, repeated.",
        ],
    )


# ------------------------------------------------------------------------------------------------------------- figure

COLOURS = ("#1f5fa8", "#c8501e", "#3c8c46", "#7a4fa3", "#b8860b", "#2a9d9d")
MARKERS = {
    "memoriser": ("o", "memoriser: training images drawn again"),
    "class left out": ("s", f"all classes but {LEFT_OUT}"),
    "one per class": ("^", "one image per class, repeated"),
}


def draw_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws an image at every strength of every corruption, and below them a panel for each metric."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(9.9, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 3))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    for axes, colour, (name, images) in zip(top.subplots(2, 3).flat, COLOURS, strips().items(), strict=True):
        axes.imshow(torch.cat([F.pad(image, (1, 1), value=1.0) for image in images], 1), cmap="gray", vmin=0, vmax=1)
        axes.set_title(name.replace("_", " "), color=colour, fontsize="small")
        axes.axis("off")
    *panels, last = bottom.subplots(2, 3).flat
    for axes, metric in zip(panels, METRICS, strict=True):
        draw_panel(axes, rows, metric)
    last.axis("off")
    last.legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False, fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    Image.open(content).convert("RGB").quantize(128).save(path, "PNG", optimize=True)


def strips() -> dict[str, list[Tensor]]:
    """Images [H, W] by corruption, each stronger than the one before; the foreign ones come last."""
    data = MNIST()
    images = images_of(data, data.subset("train", 12, 0))
    found = {}
    for name, corrupt in corruptions(12).items():
        levels = [0.0, *STRENGTHS[name]]
        if name == "foreign":  # a whole image is foreign or it is not
            found[name] = [corrupt(images, float(level > 2), 0)[level, 0] for level in range(len(levels))]
        else:
            found[name] = [corrupt(images, strength, 0)[0, 0] for strength in levels]
    return found


def draw_panel(axes: Axes, rows: list[dict[str, Any]], metric: str) -> None:
    """Draws a metric against the level of each corruption, and beside the lines a mark for each of `SETS`."""

    def values(name: str) -> list[float]:
        return [row[metric] for row in rows if row["images"] == name]

    start = values("training images")
    for name, colour in zip(STRENGTHS, COLOURS, strict=True):
        line = start + values(name)
        axes.plot(range(len(line)), line, color=colour, label=name.replace("_", " "))
    for i, name in enumerate(SETS):
        marker, label = MARKERS[name]
        axes.plot([4.3 + 0.3 * i], values(name), marker, color="black", label=label)
    axes.set_title(METRICS[metric], fontsize="small", loc="left")
    axes.set_yscale("log" if "log" in METRICS[metric] else "linear")
    axes.set_xticks(range(5))
    axes.set_xlabel("level of corruption", fontsize="small")
    axes.tick_params(labelsize="small")
    axes.grid(axis="y", color="#d8d8d8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=5000, help="number of images in every set (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the results (default %(default)s)"
    )
    parser.add_argument("--redraw", action="store_true", help="draw the figure of the recorded numbers")
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
