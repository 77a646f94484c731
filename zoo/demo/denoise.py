"""Images that appear out of noise, step by step."""

from __future__ import annotations

import gradio as gr
import torch
from PIL.Image import Image

from zoo import denoising
from zoo.capabilities import Denoiser
from zoo.demo.models import Models
from zoo.demo.parts import answer, film, given, label_choice, model_choice, picture, seed_choice, sheet, source

Step = tuple[Image, Image, str]
"""Noisy images, what the model expects them to become, and a caption."""


def add(models: Models) -> None:
    """Adds the tab to the page."""
    with gr.Tab("Denoise"), gr.Row():
        with gr.Column(scale=1):
            name = model_choice(models.names(Denoiser), "conditional-edm-mnist")
            num = gr.Slider(1, 8, 4, step=1, label="Number of images")
            seed = seed_choice()
            label = label_choice(models, name)
            button = gr.Button("Remove noise", variant="primary")
            number = gr.Slider(1, 2, 1, step=1, label="Evaluation of the network", visible=False)
            caption = gr.Markdown()
        with gr.Column(scale=2):
            moving = gr.HTML(
                label="Noisy images, and below them what the model expects", show_label=True, container=True
            )
            noisy, expected = picture("Noisy images x_t"), picture("What the model expects, E[x | x_t]")
    steps = gr.State([], time_to_live=3600)
    button.click(
        answer(denoise, models),
        [name, num, seed, label],
        [moving, steps, number, noisy, expected, caption],
        api_name="denoise",
    )
    number.change(lambda steps, number: steps[number - 1], [steps, number], [noisy, expected, caption], api_name="step")


def denoise(
    models: Models, name: str, num: int, seed: int, label: int | None
) -> tuple[str, list[Step], gr.Slider, Image, Image, str]:
    """A film of the way from noise to images, its steps, the slider that chooses one, and the last step."""
    model = models.load(name)
    assert isinstance(model, Denoiser)
    x, moments = denoising.watch(model, num, generator=source(seed), **given(model, label, num))
    pairs = [(denoising.noisy_images(model, moment), moment.denoised) for moment in moments]
    captions = [f"noise level sigma = {moment.sigma:.3g}" for moment in moments]
    steps = [
        (sheet(noisy, columns=num), sheet(expected, columns=num), caption)
        for (noisy, expected), caption in zip(pairs, captions, strict=True)
    ]
    frames = [sheet(torch.cat(pair), columns=num) for pair in [*pairs, (x, x)]]
    slider = gr.Slider(1, len(steps), len(steps), visible=True)
    return film(frames, f"{num} images drawn from noise by {name}"), steps, slider, *steps[-1]
