"""Draws the picture of the zoo, one row of samples for each family, from the samples that the checkpoints show.

python docs/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "Gaussian": "gaussian-mnist",
    "mixture of Bernoullis": "mixture-binarized-mnist",
    "MADE": "made-binarized-mnist",
    "gated PixelCNN": "gated-pixelcnn-binarized-mnist",
    "VAE": "vae-mnist",
    "conditional GAN": "conditional-gan-mnist",
    "DCGAN, clothes": "dcgan-fashion-mnist",
    "PixelCNN, photographs": "pixelcnn-cifar10",
}
SHOWN = 10


def first_row(name: str) -> list[Image.Image]:
    """The first images of the grid of samples of a checkpoint."""
    grid = Image.open(ROOT / "checkpoints" / name / "samples.png").convert("RGB")
    side = 32 if "cifar10" in name else 28
    step = side + 2  # the grid has two pixels between images
    scale = max(1, round(grid.width / (8 * step)))
    places = [(column, row) for row in range(2) for column in range(8)][:SHOWN]
    boxes = [((2 + c * step) * scale, (2 + r * step) * scale) for c, r in places]
    return [grid.crop((x, y, x + side * scale, y + side * scale)) for x, y in boxes]


def main() -> None:
    figure = Figure(figsize=(9, 0.78 * len(ROWS)), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS), SHOWN)
    for row, (title, name) in enumerate(ROWS.items()):
        for column, image in enumerate(first_row(name)):
            panel = axes[row][column]
            panel.imshow(image, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            for spine in panel.spines.values():
                spine.set_visible(False)
        axes[row][0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10, labelpad=10)
    figure.subplots_adjust(left=0.22, right=0.995, top=0.995, bottom=0.005, wspace=0.06, hspace=0.06)
    figure.savefig(ROOT / "docs" / "pictures" / "zoo.png")


if __name__ == "__main__":
    main()
