"""What several tabs have in common: the choice of a model, a seed and a class, and how results are shown."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import torch
from PIL.Image import Image
from torch import Tensor

from zoo.capabilities import Conditional, GenerativeModel
from zoo.config import brief
from zoo.demo.models import Models
from zoo.errors import ConfigError, ZooError
from zoo.given import Given
from zoo.pictures import animation, grid

IN_TURN = -1
"""The label that stands for all classes in turn."""

_LEAST_FRAMES = 50  # of a film, two seconds
_WIDTH, _LARGEST = 900, 224  # of a picture and of an image in it, in pixels of the screen


def answer(function: Callable[..., Any], *first: Any) -> Callable[..., Any]:
    """A function for an event: with its first arguments given, and errors of the zoo as messages on the page."""

    def answering(*values: Any) -> Any:
        try:
            return function(*first, *values)
        except ZooError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return answering


# --------------------------------------------------------------------------------------------------------- what to draw


def model_choice(names: Sequence[str], default: str) -> gr.Dropdown:
    """The choice of a model."""
    return gr.Dropdown(list(names), value=default, label="Model", filterable=True)


def seed_choice(value: int = 0, label: str = "Seed") -> gr.Number:
    """The choice of a seed."""
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=2**32 - 1)


def label_choice(models: Models, name: gr.Dropdown, *, in_turn: bool = True) -> gr.Dropdown:
    """The choice of a class, which is shown if the chosen model is conditional."""

    def labels_of(chosen: str) -> gr.Dropdown:
        classes = [(title, label) for label, title in enumerate(models.classes(chosen))]
        choices = [("all in turn", IN_TURN), *classes] if in_turn else classes
        value = choices[0][1] if classes else None
        # programs that call the API choose a model and its class at once: the list is still that of another model
        return gr.Dropdown(choices, value=value, label="Class", visible=bool(classes), allow_custom_value=True)

    label = labels_of(str(name.value))
    name.change(answer(labels_of), name, label, api_visibility="private")
    return label


def given(model: GenerativeModel, label: int | None, num: int) -> Given:
    """The labels of `num` examples as a keyword argument, none for a model that takes none."""
    if not isinstance(model, Conditional):
        return {}
    if label is None or label == IN_TURN:
        return {"labels": torch.arange(num) % model.num_classes}
    if not isinstance(label, int):
        raise ConfigError(f"class: expected a number from 0 to {model.num_classes - 1}, found {brief(label)}")
    return {"labels": torch.full((num,), label)}


def whole(value: int | None, what: str) -> int:
    """The value of a field of numbers, which may be empty."""
    if value is None:
        raise ConfigError(f"{what}: expected a whole number, found none; fill in the field")
    return int(value)


def source(seed: int | None) -> torch.Generator:
    """The source of all random draws of an answer."""
    return torch.Generator().manual_seed(whole(seed, "seed"))


# ---------------------------------------------------------------------------------------------------- how it is shown


def picture(label: str, **settings: Any) -> gr.Image:
    """The place of a picture that an answer fills."""
    return gr.Image(label=label, format="png", interactive=False, buttons=["download", "fullscreen"], **settings)


def sheet(images: Tensor, columns: int | None = None) -> Image:
    """Images [N, C, H, W] in [0, 1] in a grid, enlarged without blur."""
    across = columns or math.ceil(math.sqrt(len(images)))
    scale = max(1, min(_LARGEST // images.shape[3], _WIDTH // (across * (images.shape[3] + 2))))
    return grid(images, columns=across, scale=scale, gap=1)


def film(frames: Sequence[Image], what: str) -> str:
    """Pictures one after the other, as HTML; a few of them are shown for longer."""
    held = [frame for frame in frames for _ in range(-(-_LEAST_FRAMES // len(frames)))]
    content = base64.b64encode(animation(held)).decode()
    return f'<img alt="{what}" src="data:image/gif;base64,{content}" style="max-width: 100%">'
