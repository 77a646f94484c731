"""Samples of a model, with the sampler of your choice."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

import gradio as gr
from PIL import Image

from zoo.capabilities import Conditional, GenerativeModel
from zoo.config import brief
from zoo.demo.models import Models
from zoo.demo.parts import answer, given, label_choice, model_choice, picture, seed_choice, sheet, source, whole
from zoo.errors import ConfigError
from zoo.latents import iter_clean
from zoo.plots import has_plot, plot
from zoo.samplers.names import named

POINTS = 500
"""Number of samples in a plot of points."""

OWN = "the model's own"
"""The sampler that a model draws with if none is chosen."""

_ARGUMENTS = ("steps", "temperature", "guidance", "eta")  # of samplers, those that the page offers


def add(models: Models) -> None:
    """Adds the tab to the page."""
    with gr.Tab("Draw"), gr.Row():
        with gr.Column(scale=1):
            name = model_choice(models.names(GenerativeModel, images=False), "conditional-edm-mnist")
            num = gr.Slider(1, 64, 16, step=1, label="Number of images")
            seed = seed_choice()
            label = label_choice(models, name)
            sampler = _samplers(models, str(name.value))
            steps = gr.Slider(1, 1000, 20, step=1, label="Steps", visible=False)
            temperature = gr.Slider(0.05, 2, 1, step=0.05, label="Temperature", visible=False)
            guidance = gr.Slider(0, 10, 1, step=0.5, label="Guidance by the class", visible=False)
            eta = gr.Slider(0, 1, 0, step=0.05, label="Fresh noise (eta)", visible=False)
            button = gr.Button("Draw", variant="primary")
        with gr.Column(scale=2):
            drawn = picture("Samples")
    arguments = [steps, temperature, guidance, eta]
    name.change(answer(_samplers, models), name, sampler, api_visibility="private")
    sampler.change(answer(_sliders, models), [name, sampler], arguments, api_visibility="private")
    button.click(answer(draw, models), [name, num, seed, label, sampler, *arguments], drawn, api_name="draw")


def draw(
    models: Models, name: str, num: int, seed: int, label: int | None, sampler: str = OWN, *arguments: float
) -> Image.Image:
    """Draws images in a grid, or points as a plot; `arguments` are those of the sampler that the page offers."""
    model = models.load(name)
    asked: dict[str, Any] = given(model, label, num)
    if sampler != OWN:
        taken = _defaults(models, name, sampler)
        values = dict(zip(_ARGUMENTS, arguments, strict=False))
        asked["sampler"] = named(
            sampler, **{key: type(taken[key])(values[key]) for key in taken.keys() & values.keys()}
        )
    if has_plot(model):
        return Image.open(io.BytesIO(plot(model, POINTS, whole(seed, "seed"), **asked)))
    (images,) = iter_clean(model, num, generator=source(seed), **asked)
    return sheet(images)


def _samplers(models: Models, name: str) -> gr.Dropdown:
    kinds = _kinds(models, name)
    return gr.Dropdown([OWN, *kinds], value=OWN, label="Sampler", visible=bool(kinds), allow_custom_value=True)


def _sliders(models: Models, name: str, sampler: str) -> list[gr.Slider]:
    defaults = {} if sampler == OWN else _defaults(models, name, sampler)
    return [
        gr.Slider(visible=True, value=defaults[key]) if key in defaults else gr.Slider(visible=False)
        for key in _ARGUMENTS
    ]


def _kinds(models: Models, name: str) -> dict[str, Any]:
    """The samplers of a model, by the names that `named` takes."""
    return {kind.__name__.lower(): kind for kind in getattr(models[name].model_class(), "samplers", ())}


def _defaults(models: Models, name: str, sampler: str) -> dict[str, Any]:
    """The arguments of a sampler that the page offers for a model, with their default values."""
    if sampler not in (kinds := _kinds(models, name)):
        known = f"one of {', '.join(kinds)}" if kinds else "none"
        raise ConfigError(f"sampler: {name} has {known}, found {brief(sampler)}")
    is_conditional = Conditional.__name__ in models[name].capabilities
    return {
        field.name: field.default
        for field in fields(kinds[sampler])
        if field.name in _ARGUMENTS and (is_conditional or field.name != "guidance")
    }
