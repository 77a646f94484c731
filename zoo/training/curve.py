"""The training curve of a run, drawn from the numbers that it logged."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = dict[int, float]
"""Values by step."""

_WIDTH, _HEIGHT = 4.2, 2.4  # of a panel, in inches of 100 pixels
_COLOURS = ("#1f5fa8", "#c8501e", "#3c8c46", "#7a4fa3")


def read_logs(run: str | Path) -> dict[str, Points]:
    """Reads the numbers that a run logged.

    Args:
        run: Folder of the run.

    Returns:
        Values by step under names such as `train/loss` and `valid/nll`. Where a resumed run repeats a step, its value
        replaces the earlier one.
    """
    logged: dict[str, Points] = defaultdict(dict)
    versions = sorted(Path(run).glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:]))
    for path in versions:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if "/" in name and value:
                        logged[name][int(row["step"]) + 1] = float(value)
    return dict(logged)


def _shown(run: str | Path) -> tuple[dict[str, Points], dict[str, Points]]:
    """The training losses and the validation numbers of a run that were logged more than once, by name."""
    logged = {name: points for name, points in read_logs(run).items() if len(points) > 1}
    losses = {name: points for name, points in logged.items() if name.startswith("train/") and "loss" in name}
    return losses, {name: points for name, points in logged.items() if name.startswith("valid/")}


def curve_table(run: str | Path) -> bytes:
    """The numbers that `draw_curve` draws, as CSV: a row for each step, and a column for each number.

    Args:
        run: Folder of the run.
    """
    losses, numbers = _shown(run)
    columns = losses | numbers
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    for step in sorted({step for points in columns.values() for step in points}):
        values = (points.get(step) for points in columns.values())
        writer.writerow([step, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue().encode()


def draw_curve(run: str | Path) -> bytes | None:
    """Draws the training losses of a run and its validation numbers against the steps.

    The vertical axes leave out the first tenth of the steps, in which losses fall from much larger values.

    Args:
        run: Folder of the run.

    Returns:
        A PNG with one panel for the losses and, if there are validation numbers, one for these; None if the run logged
        fewer than two losses.
    """
    losses, numbers = _shown(run)
    if not losses:
        return None
    from matplotlib.figure import Figure
    from PIL import Image

    panels = [losses, numbers] if numbers else [losses]
    figure = Figure(figsize=(_WIDTH * len(panels), _HEIGHT), layout="constrained")
    for axes, curves in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, curves)
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    Image.open(drawn).convert("RGB").quantize(128).save(content, "PNG", optimize=True)  # a third of the bytes
    return content.getvalue()


def _draw(axes: Axes, curves: dict[str, Points]) -> None:
    last = max(max(points) for points in curves.values())
    settled = [value for points in curves.values() for step, value in points.items() if step > last / 10]
    low, high = min(settled), max(settled)
    margin = 0.05 * (high - low) or 0.5
    for (name, points), colour in zip(curves.items(), _COLOURS, strict=False):
        steps = sorted(points)
        axes.plot(steps, [points[step] for step in steps], color=colour, linewidth=1.2, label=name)
    axes.set_xlim(0, last)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("step", fontsize="small")
    axes.tick_params(labelsize="small")
    axes.grid(color="#d8d8d8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    style = {"fontsize": "small", "handlelength": 1, "columnspacing": 1, "borderpad": 0, "frameon": False}
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, **style)  # above the panel
