"""A picture of what fine-tuning changed: training images, samples before, and samples after from the same noise."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from zoo import latents
from zoo.capabilities import Conditional, GenerativeModel
from zoo.data.base import DataModule
from zoo.metrics.examples import measuring
from zoo.pictures import grid
from zoo.random import Streams

COLUMNS, ROWS = 5, 5
_GAP, _CAPTION = 12, 18  # in pixels


def before_after(before: GenerativeModel, after: GenerativeModel, data: DataModule, seed: int = 0) -> bytes:
    """Draws training images and samples of both models side by side.

    Conditional models draw each class in turn, and a VAE draws E[x | z] instead of grainy pixels.

    Args:
        before, after: The models.
        data: The data set of the training images, which are images of one channel or three.
        seed: Seed for all random draws.

    Returns:
        A PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    num = COLUMNS * ROWS
    index = data.subset("train", min(num, len(data.split("train"))), seed)
    images = next(data.batches("train", index=index)).x
    panels = {"your images": images, "before": _samples(before, num, seed), "after": _samples(after, num, seed)}
    scale = max(1, round(56 / images.shape[-1]))
    pictures = {title: grid(x, columns=COLUMNS, scale=scale) for title, x in panels.items()}
    width, height = (max(picture.size[side] for picture in pictures.values()) for side in (0, 1))
    whole = Image.new("RGB", (3 * (width + _GAP) + _GAP, height + _CAPTION + 2 * _GAP), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(12)
    for place, (title, picture) in enumerate(pictures.items()):
        left = _GAP + place * (width + _GAP)
        draw.text((left, _GAP - 4), title, "#404040", font)
        whole.paste(picture, (left, _GAP + _CAPTION))
    content = io.BytesIO()
    whole.save(content, "PNG", optimize=True)
    return content.getvalue()


def _samples(model: GenerativeModel, num: int, seed: int) -> Tensor:
    labels = torch.arange(num) % model.num_classes if isinstance(model, Conditional) else None
    with measuring(model):
        if latents.has_pixel_noise(model):
            return latents.decode(model, latents.draw_codes(model, Streams(seed, range(num))), labels=labels).cpu()
        return model.sample(num, generator=torch.Generator().manual_seed(seed), labels=labels).cpu()
