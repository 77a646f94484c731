"""Pictures of tensors."""

from __future__ import annotations

import math
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


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None) -> Path:
    """Writes `grid(images)` as a PNG and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(images, columns=columns).save(path)
    return path
