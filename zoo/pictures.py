"""Pictures of tensors."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.files import encoded, expand, write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY = 96  # of the lines between images


def pixels(images: Tensor) -> Tensor:
    """Converts images in [0, 1] to uint8 on the CPU. Values are clamped and rounded; uint8 images stay as they are."""
    if images.dtype == torch.uint8:
        return images.cpu()
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def grid(images: Tensor, *, columns: int | None = None, scale: int = 2, gap: int = 2) -> Image:
    """Arranges images in a grid, row by row.

    Args:
        images: Images in [0, 1] or uint8, [N, C, H, W] with C = 1 (grey) or C = 3 (RGB).
        columns: Number of images per row; by default, the grid is about square.
        scale: Factor by which the grid is enlarged.
        gap: Width of the grey lines around the images in pixels, before the grid is enlarged.
    """
    from PIL.Image import Resampling
    from torchvision.transforms.functional import to_pil_image
    from torchvision.utils import make_grid

    columns = columns or math.ceil(math.sqrt(len(images)))
    tiles = F.pad(pixels(images), (gap, 0, gap, 0), value=_GREY)  # make_grid would not pad a single image
    sheet = make_grid(tiles, columns, padding=0, pad_value=_GREY)[: tiles.shape[1]]  # it makes grey images RGB
    picture = to_pil_image(F.pad(sheet, (0, gap, 0, gap), value=_GREY))
    return picture.resize((picture.width * scale, picture.height * scale), Resampling.NEAREST)


def save_grid(images: Tensor, path: str | Path, *, columns: int | None = None, scale: int = 2) -> Path:
    """Writes the `grid` of some images to a file and returns its path.

    Raises:
        ConfigError: The suffix of the file is not that of a format of pictures.
        OSError: The file cannot be written. An old one is as it was.
    """
    path = expand(path)
    write_atomically(path, encoded(grid(images, columns=columns, scale=scale), path))
    return path


def animation(frames: Sequence[Image]) -> bytes:
    """A GIF that repeats. Each frame is shown for 40 milliseconds, the last one for two seconds more."""
    file = io.BytesIO()
    durations = [40] * (len(frames) - 1) + [2040]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return file.getvalue()


def filter_sheet(filters: Tensor, num: int) -> Tensor:
    """The filters with the largest weights as images; mid-grey is zero, and each has its own scale.

    Args:
        filters: Weights of hidden units, [H, C, H, W].
        num: Number of filters to show.

    Returns:
        [min(num, H), C, H, W] in [0, 1], those of the largest norm first.
    """
    chosen = filters.detach().float()[filters.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:num]]
    return 0.5 + 0.5 * chosen / chosen.flatten(1).abs().amax(1).clamp(min=1e-12).view(-1, 1, 1, 1)


def field_of_sight(field: Tensor, before: Tensor, row: int, column: int) -> Tensor:
    """Colours the receptive field of a pixel.

    The pixel itself is red. Pixels that it depends on are grey to white, and brighter where it depends on them more.
    Blue pixels come before it, but it does not depend on them. Dark grey pixels come after it.

    Args:
        field: Receptive field from `zoo.pixelwise.receptive_field`, [C, H, W]. The channels are added up.
        before: Which values come before the pixel, from the same function, [C, H, W].
        row: Row of the pixel.
        column: Column of the pixel.

    Returns:
        The picture, [3, H, W] in [0, 1].
    """
    seen, is_before = field.sum(0).cpu(), before.any(0).cpu()  # [H, W]
    brightness = 0.25 + 0.75 * (seen / seen.max().clamp(min=1e-300)) ** 0.25
    picture = torch.where(seen > 0, brightness, 0).float().expand(3, -1, -1).clone()
    picture[:, (seen == 0) & is_before] = torch.tensor([0.1, 0.2, 0.7])[:, None]
    picture[:, (seen == 0) & ~is_before] = 0.12
    picture[:, row, column] = torch.tensor([0.9, 0.1, 0.1])
    return picture
