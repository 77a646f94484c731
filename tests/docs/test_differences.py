"""Model files name what their checkpoints' recipes add to the papers."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from zoo.config import load_yaml

RECIPES = sorted((Path(__file__).parents[2] / "checkpoints").glob("*/recipe.yaml"))


UNUSUAL = {"adamw": "AdamW", "muon": "Muon"}
"""Optimisers that the papers do not use."""


def words(recipe: dict[str, Any], cls: type) -> list[str]:
    """Patterns that the list of differences must have."""
    optimization, trainer, model = recipe.get("optimization") or {}, recipe.get("trainer", {}), recipe["model"]
    critic_steps = inspect.signature(cls).parameters.get("critic_steps")
    required = {
        "averaged": optimization and trainer.get("ema_decay", 0.999) is not None,
        "clipped gradients": optimization.get("gradient_clip"),
        "linearly": optimization.get("schedule") == "linear",
        "cosine": optimization.get("schedule") == "cosine",
        "warm-?up|rises|warms up": optimization.get("warmup"),
        "beta|momentum": optimization.get("beta1") == 0 and optimization["optimizer"] == "adam",
        "steps of the critic": critic_steps and model.get("critic_steps", critic_steps.default) != critic_steps.default,
        "dropout": model.get("dropout"),
        "shifted images": model.get("max_shift"),
        "mirrored": recipe["data"].get("mirror"),
        "begins with|several runs|two runs|go on": recipe.get("start"),
        "teachers": recipe.get("teachers"),
        "prior": model.get("prior"),
        UNUSUAL.get(optimization.get("optimizer", ""), ""): optimization,
    }
    return [word for word, is_required in required.items() if is_required]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_the_differences_from_the_paper_name_how_the_checkpoint_was_trained(path: Path) -> None:
    recipe = load_yaml(path)
    family, name = recipe["model"]["class"].split(".")
    cls = getattr(importlib.import_module(f"zoo.{family}"), name)
    module = cls.__module__
    docstring = " ".join((importlib.import_module(module).__doc__ or "").split())
    _, _, differences = docstring.partition("Differs from the ")
    assert differences, f"{module} does not say how it differs from its paper"
    assert not [word for word in words(recipe, cls) if not re.search(word, differences)]
