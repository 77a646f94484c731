"""Pictures of tensors."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def pixels(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8 on the CPU, clamped and rounded; uint8 stays."""
    if images.dtype == torch.uint8:
        return images.cpu()
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def grid(images: Tensor, *, columns: int | None = None, scale: int = 2, gap: int = 2) -> Image:
    """Images [N, C, H, W] in [0, 1] or uint8, C one of 1 or 3, in `columns` columns, enlarged `scale` times."""
    from PIL import Image

    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = torch.full((channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 96, dtype=torch.uint8)
    for i, image in enumerate(pixels(images)):
        top, left = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    picture = Image.fromarray((sheet[0] if channels == 1 else sheet.permute(1, 2, 0).contiguous()).numpy())
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None, scale: int = 2) -> Path:
    """Writes `grid(images)` as a PNG and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(images, columns=columns, scale=scale).save(path)
    return path


def animation(frames: Sequence[Image]) -> bytes:
    """A GIF that repeats. Each frame is shown for 40 milliseconds, the last one for two seconds more."""
    file = io.BytesIO()
    durations = [40] * (len(frames) - 1) + [2040]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def field_of_sight(field: Tensor, before: Tensor, row: int, column: int) -> Tensor:
    """A receptive field as a coloured picture [3, H, W] in [0, 1].

    The pixel is red; what it sees is the brighter the more it matters; what comes before and is not seen is blue, what
    comes after is dark grey.

    Args:
        field, before: as `zoo.pixelwise.receptive_field` gives them, [C, H, W]; channels are taken together.
        row, column: of the pixel.
    """
    seen, is_before = field.sum(0).cpu(), before.any(0).cpu()  # [H, W]
    brightness = 0.25 + 0.75 * (seen / seen.max().clamp(min=1e-300)) ** 0.25
    picture = torch.where(seen > 0, brightness, 0).float().expand(3, -1, -1).clone()
    picture[:, (seen == 0) & is_before] = torch.tensor([0.1, 0.2, 0.7])[:, None]
    picture[:, (seen == 0) & ~is_before] = 0.12
    picture[:, row, column] = torch.tensor([0.9, 0.1, 0.1])
    return picture
