"""How a benchmark says what it found: one sentence, or with --json one line for programs."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def options(text: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--repeats", type=int, default=repeats, help="of each side, in turn (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line for programs in place of the sentence")
    return parser


def in_turn(repeats: int, **sides: Callable[[], float]) -> dict[str, float]:
    """The median of what each side measures, the sides taking turns, so that a slow spell of the machine hits all."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def report(sentence: str, as_json: bool, **numbers: Any) -> None:
    print(json.dumps(numbers) if as_json else sentence)
