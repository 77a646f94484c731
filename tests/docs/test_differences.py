"""Model files name what their checkpoints' recipes add to the papers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from zoo.config import load_yaml

RECIPES = sorted((Path(__file__).parents[2] / "checkpoints").glob("*/recipe.yaml"))


def words(recipe: dict[str, Any]) -> list[str]:
    """Words that the list of differences must have."""
    optimization, trainer = recipe.get("optimization", {}), recipe.get("trainer", {})
    required = {
        "averaged": optimization and trainer.get("ema_decay", 0.999) is not None,
        "clipped gradients": optimization.get("gradient_clip"),
        "linearly": optimization.get("schedule") == "linear",
        "cosine": optimization.get("schedule") == "cosine",
    }
    return [word for word, is_required in required.items() if is_required]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_the_differences_from_the_paper_name_how_the_checkpoint_was_trained(path: Path) -> None:
    recipe = load_yaml(path)
    family, name = recipe["model"]["class"].split(".")
    module = getattr(importlib.import_module(f"zoo.{family}"), name).__module__
    docstring = " ".join((importlib.import_module(module).__doc__ or "").split())
    _, _, differences = docstring.partition("Differs from the ")
    assert differences, f"{module} does not say how it differs from its paper"
    assert not [word for word in words(recipe) if word not in differences]
