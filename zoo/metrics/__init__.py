"""Numbers that say how good a model is, each with its error, its unit, and whether it is exact, a bound or an estimate.

    from zoo.metrics import evaluate_checkpoint, nll, evaluate_quality, reproduce

Names are imported on first use, because recorded numbers are read without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ClassifierFeatures": "extractors",
    "Difference": "measurement",
    "Evaluation": "evaluate",
    "Extractor": "extractors",
    "Inception": "extractors",
    "Measurement": "measurement",
    "Table": "tables",
    "accuracy": "classification",
    "class_accuracy": "conditional",
    "code_accuracy": "codes",
    "compare": "measurement",
    "evaluate_checkpoint": "evaluate",
    "evaluate_quality": "quality",
    "load_extractor": "extractors",
    "nll": "likelihood",
    "quality_floor": "quality",
    "reproduce": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
