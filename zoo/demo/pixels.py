"""Images drawn one pixel after another, beside what the model expected of each."""

from __future__ import annotations

import gradio as gr
import torch
from PIL.Image import Image

from zoo import pixelwise
from zoo.capabilities import Autoregressive
from zoo.demo.models import Models
from zoo.demo.parts import answer, film, model_choice, picture, seed_choice, sheet, source

FRAMES = 57
"""Number of pictures of a film: for digits, two for each row."""


def add(models: Models) -> None:
    """Adds the tab to the page."""
    with gr.Tab("Pixel by pixel"):
        gr.Markdown(
            "Below each image is what the model expected of its pixels, given those drawn before: the probability of "
            "white if pixels are binary, else the mean."
        )
        with gr.Row():
            with gr.Column(scale=1):
                name = model_choice(models.names(Autoregressive), "gated-pixelcnn-binarized-mnist")
                num = gr.Slider(1, 8, 4, step=1, label="Number of images")
                seed = seed_choice()
                button = gr.Button("Draw", variant="primary")
            with gr.Column(scale=2):
                moving = gr.HTML(label="Drawing", show_label=True, container=True)
                still = picture("Samples and expectations")
    button.click(answer(draw, models), [name, num, seed], [moving, still], api_name="pixels")


def draw(models: Models, name: str, num: int, seed: int) -> tuple[str, Image]:
    """A film of images as they are drawn, with the expectations below them; and its last picture."""
    model = models.load(name)
    x, order = pixelwise.draw(model, num, generator=source(seed))
    both = torch.cat([x, pixelwise.probabilities(model, x, order)])
    frames = pixelwise.drawing(both, FRAMES, torch.cat([order, order]))
    pictures = [sheet(frame, columns=num) for frame in frames]
    return film(pictures, f"{num} images drawn pixel by pixel by {name}"), pictures[-1]
