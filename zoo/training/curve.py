"""The training curve of a run, drawn from the numbers that it logged."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Points = dict[int, float]
"""Values by step."""

_WIDTH, _HEIGHT = 420, 240  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 24, 26  # around the lines
_COLOURS = ("#1f5fa8", "#c8501e", "#3c8c46", "#7a4fa3")
_INK, _GRID = "#404040", "#d8d8d8"
_SHARPNESS = 3  # drawn larger and shrunk, for smooth lines


def read_logs(run: str | Path) -> dict[str, Points]:
    """What a run logged, by name: `train/loss`, `valid/nll`, ...; a resumed run goes over what came before it."""
    logged: dict[str, Points] = defaultdict(dict)
    versions = sorted(Path(run).glob("logs/version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:]))
    for path in versions:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if "/" in name and value:
                        logged[name][int(row["step"]) + 1] = float(value)
    return dict(logged)


def draw_curve(run: str | Path) -> bytes | None:
    """A PNG of the training losses of a run beside its validation numbers, against steps; None where it has none.

    The scale is that of all but the first tenth of the steps, in which losses fall from far above.
    """
    logged = read_logs(run)
    losses = {name: points for name, points in logged.items() if name.startswith("train/") and "loss" in name}
    numbers = {name: points for name, points in logged.items() if name.startswith("valid/")}
    panels = [panel for panel in (_lines(losses), _lines(numbers)) if panel]
    if not _lines(losses):
        return None
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (_SHARPNESS * _WIDTH * len(panels), _SHARPNESS * _HEIGHT), "white")
    for i, panel in enumerate(panels):
        _draw_panel(ImageDraw.Draw(picture), panel, _SHARPNESS * _WIDTH * i)
    small = picture.resize((_WIDTH * len(panels), _HEIGHT), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.quantize(64).save(content, "PNG", optimize=True)
    return content.getvalue()


def _lines(curves: dict[str, Points]) -> dict[str, Points]:
    """Those that are lines: of two points or more."""
    return {name: points for name, points in curves.items() if len(points) > 1}


def _draw_panel(draw: ImageDraw, curves: dict[str, Points], offset: int) -> None:
    from PIL import ImageFont

    size, font = _SHARPNESS, ImageFont.load_default(11 * _SHARPNESS)
    last = max(max(points) for points in curves.values())
    settled = [value for points in curves.values() for step, value in points.items() if step > last / 10]
    low, high = min(settled), max(settled)
    high = high if high > low else low + 1

    def place(step: float, value: float) -> tuple[float, float]:
        across = _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last
        down = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low)
        return offset + size * across, size * down

    for value in _ticks(low, high):
        draw.line([place(0, value), place(last, value)], _GRID, size)
        draw.text((place(0, value)[0] - 5 * size, place(0, value)[1]), f"{value:g}", _INK, font, "rm")
    for step in _ticks(0, last):
        draw.text((place(step, low)[0], place(step, low)[1] + 6 * size), f"{step:g}", _INK, font, "mt")
    draw.line([place(0, high), place(0, low), place(last, low)], _INK, size)
    start = offset + size * _LEFT
    for (name, points), colour in zip(curves.items(), _COLOURS, strict=False):
        inside = [place(*point) for point in sorted(points.items()) if low <= point[1] <= high]
        draw.line(inside, colour, 2 * size, "curve")
        draw.text((start, 6 * size), name, colour, font, "lt")
        start += round(draw.textlength(f"{name}   ", font))
    draw.text((offset + size * (_WIDTH - _RIGHT), 6 * size), "against steps", _INK, font, "rt")


def _ticks(low: float, high: float) -> Iterable[float]:
    """Round numbers between the two, four to eight of them."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(unit * factor for factor in (5, 2, 1) if (high - low) / (unit * factor) >= 3 or factor == 1)
    return (step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1))
