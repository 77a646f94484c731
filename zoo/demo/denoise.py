"""Images that appear out of noise, step by step."""

from __future__ import annotations

import gradio as gr
import torch
from PIL.Image import Image
from torch import Tensor

from zoo import denoising
from zoo.capabilities import Denoiser
from zoo.demo.models import Models
from zoo.demo.parts import answer, film, given, label_choice, model_choice, picture, seed_choice, sheet, source
from zoo.errors import ConfigError
from zoo.pictures import pixels

Step = tuple[Tensor, Tensor, float]
"""Noisy images and what the model expects them to become, uint8 [N, C, H, W], and the noise level."""


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
    number.change(answer(step), [steps, number], [noisy, expected, caption], api_name="step")


def denoise(
    models: Models, name: str, num: int, seed: int, label: int | None
) -> tuple[str, list[Step], gr.Slider, Image, Image, str]:
    """A film of the way from noise to images, its steps, the slider that chooses one, and the middle one."""
    model = models.load(name)
    assert isinstance(model, Denoiser)
    x, moments = denoising.watch(model, num, generator=source(seed), **given(model, label, num))
    steps = [
        (pixels(denoising.noisy_images(model, moment)), pixels(moment.denoised), moment.sigma) for moment in moments
    ]
    pairs = [*((noisy, expected) for noisy, expected, _ in steps), (pixels(x), pixels(x))]
    frames = [sheet(torch.cat(pair), columns=num) for pair in pairs]
    middle = -(-len(steps) // 2)
    slider = gr.Slider(1, len(steps), middle, visible=True)
    return film(frames, f"{num} images drawn from noise by {name}"), steps, slider, *step(steps, middle)


def step(steps: list[Step], number: int) -> tuple[Image, Image, str]:
    """Noisy images, what the model expects of them, and a caption; `number` counts from 1."""
    if not 1 <= number <= len(steps):
        raise ConfigError("denoise: expected steps to choose from, found none; remove noise first")
    noisy, expected, sigma = steps[number - 1]
    return sheet(noisy, columns=len(noisy)), sheet(expected, columns=len(noisy)), f"noise level sigma = {sigma:.3g}"
