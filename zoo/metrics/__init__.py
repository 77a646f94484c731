"""Numbers that say how good a model is, each with its error, its unit, and whether it is exact, a bound or an estimate.

    from zoo.metrics import evaluate_checkpoint, nll, evaluate_quality, reproduce

Names are imported on first use, because recorded numbers are read without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ClassifierFeatures": "zoo.metrics.extractors",
    "Difference": "zoo.measurement",
    "Evaluation": "zoo.metrics.evaluate",
    "Extractor": "zoo.metrics.extractors",
    "Inception": "zoo.metrics.extractors",
    "Measurement": "zoo.measurement",
    "Table": "zoo.metrics.tables",
    "accuracy": "zoo.metrics.classification",
    "class_accuracy": "zoo.metrics.conditional",
    "code_accuracy": "zoo.metrics.codes",
    "compare": "zoo.measurement",
    "evaluate_checkpoint": "zoo.metrics.evaluate",
    "evaluate_quality": "zoo.metrics.quality",
    "load_extractor": "zoo.metrics.extractors",
    "nll": "zoo.metrics.likelihood",
    "quality_floor": "zoo.metrics.quality",
    "reproduce": "zoo.metrics.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
