"""How many samples of a checkpoint dissolve into noise: those on its card that are rougher than any test image.

The roughness of an image is the mean absolute difference of neighbouring pixels, in grey levels, in its roughest patch
of 8x8 pixels. Samples are read from `samples.png` of the checkpoint.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from zoo import Zoo
from zoo.store.checkpoint import SAMPLES

PATCH = 8  # pixels on a side
GAP, SCALE = 2, 2  # of the grid, as `zoo.pictures.grid` draws it


def roughness(x: Tensor) -> Tensor:
    """The largest mean difference of neighbours in a patch: images [B, C, H, W] -> [B]."""
    across = (x[..., 1:] - x[..., :-1]).abs().mean(1)[:, 1:]
    down = (x[..., 1:, :] - x[..., :-1, :]).abs().mean(1)[..., 1:]
    return F.avg_pool2d((across + down)[:, None] / 2, PATCH, 1).flatten(1).amax(1)


def samples_of(name: str, size: int) -> Tensor:
    """The samples on the card of a checkpoint, [B, 3, size, size]."""
    with Image.open(Zoo.info(name).folder / SAMPLES) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()
    pixels = pixels[:, ::SCALE, ::SCALE][:, GAP:, GAP:]  # each image, and the gap after it
    tiles = pixels.unfold(1, size + GAP, size + GAP).unfold(2, size + GAP, size + GAP)
    return tiles[..., :size, :size].permute(1, 2, 0, 3, 4).flatten(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="pixelcnn-cifar10", help="checkpoint (default %(default)s)")
    name = parser.parse_args().name
    test = Zoo.info(name).data().split("test").x
    samples = roughness(samples_of(name, test.shape[-1]))
    limit = max(roughness(part.float()).max().item() for part in test.split(500))
    print(
        f"{name}: {int((samples > limit).sum())} of {len(samples)} samples have a patch of {PATCH}x{PATCH} pixels that "
        f"is rougher than any in {len(test):,} test images ({limit:.1f} grey levels; samples have "
        f"{samples.median():.1f} in the middle and {samples.max():.1f} at most)."
    )


if __name__ == "__main__":
    main()
