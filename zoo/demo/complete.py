"""Erase a part of an image with the brush, and let a model draw it anew given the rest."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo import latents
from zoo.capabilities import Completable
from zoo.demo.models import Models
from zoo.demo.parts import answer, model_choice, picture, seed_choice, sheet, source
from zoo.errors import ConfigError
from zoo.metrics.own import own_image
from zoo.pictures import grid

SIDE = 448
"""Height and width of the canvas: a multiple of 28 and of 32, the sizes of the models' images."""


def add(models: Models) -> None:
    """Adds the tab to the page."""
    names = sorted(models.names(Completable), key=lambda name: not _takes_any_mask(models, name))
    with gr.Tab("Complete"):
        gr.Markdown(
            "Upload an image, or let the model draw one. Then paint over the part that shall be drawn anew. The last "
            "models of the list draw from the top to the bottom: with them, paint over everything below."
        )
        with gr.Row():
            with gr.Column(scale=1):
                name = model_choice(names, "eonade-binarized-mnist")
                seed = seed_choice(5)
                num = gr.Slider(1, 8, 4, step=1, label="Number of completions")
                start = gr.Button("Draw an image")
                button = gr.Button("Complete", variant="primary")
            with gr.Column(scale=2):
                canvas = gr.ImageEditor(
                    label="Image",
                    type="pil",
                    format="png",
                    sources=("upload", "clipboard"),
                    transforms=(),
                    layers=False,
                    brush=gr.Brush(default_size=40, colors=["#e4572e"], color_mode="fixed"),
                    canvas_size=(SIDE, SIDE),
                    height=SIDE + 80,
                    elem_id="canvas",
                )
        completed = picture("What is known, and completions")
    start.click(answer(example, models), [name, seed], canvas, api_name="example")
    button.click(answer(complete, models), [name, canvas, num, seed], completed, api_name="complete")


def _takes_any_mask(models: Models, name: str) -> bool:
    return getattr(models[name].model_class(), "check_known", None) is Completable.check_known


def example(models: Models, name: str, seed: int) -> Image.Image:
    """A sample of a model, as large as the canvas."""
    x = models.load(name).sample(1, generator=source(seed))
    return grid(x, scale=SIDE // x.shape[3], gap=0)


def complete(models: Models, name: str, canvas: dict[str, Any], num: int, seed: int) -> Image.Image:
    """The image without what is painted over, and `num` completions of it."""
    model = models.load(name)
    if canvas["background"] is None:
        raise ConfigError("complete: expected an image, found none; upload one, or let the model draw one")
    x = own_image(_reduced(canvas["background"], model.event_shape), model)
    known = ~_painted(canvas["layers"], model.event_shape)
    if known.all():
        raise ConfigError("complete: expected a part that is painted over, found none; use the brush")
    drawn = latents.complete(model, x.repeat(num, 1, 1, 1), known, generator=source(seed)).cpu()
    return sheet(torch.cat([x.where(known, 0.5)[None], drawn]), columns=num + 1)


def _reduced(image: Image.Image, event_shape: tuple[int, ...]) -> Image.Image:
    """An image whose pixels are blocks, such as `example`, in its own size; another image as it is."""
    height, width = event_shape[1:]
    factor = image.height // height
    return image.reduce(factor) if factor and image.size == (factor * width, factor * height) else image


def _painted(layers: list[Image.Image], event_shape: tuple[int, ...]) -> Tensor:
    """The pixels that are painted over, bool [*event_shape]: those that the brush covers for the greater part."""
    height, width = event_shape[1:]
    covered = np.zeros((height, width), bool)
    for layer in layers:
        alpha = layer.convert("RGBA").getchannel("A")
        covered |= np.asarray(alpha.resize((width, height), Image.Resampling.BOX)) > 127
    return torch.from_numpy(covered).expand(event_shape)
