"""Codes of a model: move along single dimensions, and walk from one image to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import torch
from PIL.Image import Image
from torch import Tensor

from zoo import latents
from zoo.capabilities import Decoder, Encoder, GenerativeModel
from zoo.demo.models import Models
from zoo.demo.parts import answer, given, label_choice, model_choice, picture, seed_choice, sheet, source, whole
from zoo.errors import ConfigError
from zoo.given import Given
from zoo.metrics.own import own_image

SLIDERS, STEPS = 8, 9
"""Number of dimensions with a slider, and of images on a walk."""


def add(models: Models) -> None:
    """Adds the tab to the page."""
    with gr.Tab("Walk") as tab:
        gr.Markdown(
            "The sliders add to dimensions of the code of image A, in standard deviations of the prior. "
            "The walk leads from there to image B."
        )
        with gr.Row():
            with gr.Column(scale=1):
                name = model_choice(models.names(Decoder), "vae-mnist")
                label = label_choice(models, name, in_turn=False)
                with gr.Row():
                    seeds = [seed_choice(i, f"Seed of image {end}") for i, end in enumerate("AB")]
                with gr.Row() as row:
                    own = [_upload(f"or your own image {end}") for end in "AB"]
                button = gr.Button("Walk from A to B", variant="primary")
            with gr.Column(scale=1):
                first = gr.Number(0, label="First dimension with a slider", precision=0, minimum=0)
                moves = [gr.Slider(-3, 3, 0, step=0.1, label=f"Dimension {i}") for i in range(SLIDERS)]
            with gr.Column(scale=1):
                here = picture("Image A")
        way = picture("Walk")
    inputs = [name, label, seeds[0], own[0], first, *moves]
    changes = [name.change, label.change, seeds[0].change, own[0].change, *(move.release for move in moves)]
    step = answer(decode, models)
    gr.on([tab.select, *changes], step, inputs, here, api_name="decode")
    first.change(answer(_sliders), first, moves, api_visibility="private").then(
        step, inputs, here, api_visibility="private"
    )
    name.change(lambda chosen: gr.Row(visible=_encodes(models, chosen)), name, row, api_visibility="private")
    button.click(answer(walk, models), [*inputs, seeds[1], own[1]], way, api_name="walk")


def decode(
    models: Models, name: str, label: int | None, seed: int, own: Image | None, first: int, *moves: float
) -> Image:
    """The image of a code: that of a seed or of an own image, moved along some dimensions from `first`."""
    model = models.load(name)
    labels = given(model, label, 1)
    return sheet(latents.decode(model, _code(model, labels, seed, own, first, moves), **labels))


def walk(models: Models, name: str, label: int | None, seed: int, own: Image | None, first: int, *rest: Any) -> Image:
    """A walk from the image that `decode` shows to that of another seed, or to another own image."""
    *moves, seed_b, own_b = rest
    model = models.load(name)
    labels = given(model, label, 1)
    start, end = _code(model, labels, seed, own, first, moves), _code(model, labels, seed_b, own_b)
    return sheet(latents.interpolate(model, start, end, STEPS, **labels).flatten(0, 1), columns=STEPS)


def _code(
    model: GenerativeModel, labels: Given, seed: int, own: Image | None, first: int = 0, moves: Sequence[float] = ()
) -> Tensor:
    """The code of a seed or an own image, [1, *latent_shape], with `moves` added from dimension `first` on."""
    if own is None or not isinstance(model, Encoder):
        z = latents.prior_codes(model, 1, source(seed))
    else:
        z = latents.encode(model, own_image(own, model)[None], **labels)
    assert isinstance(model, Decoder)
    code, units = z.flatten(1), model.prior().stddev.flatten().to(z.device)
    if not 0 <= (first := whole(first, "first dimension")) < len(units):
        raise ConfigError(f"first dimension: expected one from 0 to {len(units) - 1}, found {first}")
    moved = torch.tensor(moves[: len(units) - first])
    code[:, first : first + len(moved)] += moved.to(z.device) * units[first : first + len(moved)]
    return code.view_as(z)


def _upload(label: str) -> gr.Image:
    sources: list[Any] = ["upload", "clipboard"]
    return gr.Image(label=label, type="pil", image_mode=None, sources=sources, height=180)


def _sliders(first: int | None) -> list[gr.Slider]:
    first = whole(first, "first dimension")
    return [gr.Slider(value=0, label=f"Dimension {first + i}") for i in range(SLIDERS)]


def _encodes(models: Models, name: str) -> bool:
    return Encoder.__name__ in models[name].capabilities
