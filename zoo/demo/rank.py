"""Your own images, ranked by how likely they are under a model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from PIL.Image import Image

from zoo.capabilities import Unnormalized
from zoo.demo.models import Models
from zoo.demo.parts import answer, model_choice, seed_choice, sheet, whole
from zoo.errors import ConfigError, DataError
from zoo.files import write_new
from zoo.metrics.estimators import estimators_of
from zoo.metrics.own import own_image
from zoo.metrics.score import score

MOST = 64
"""Largest number of images that are ranked at once."""

_COLUMNS = ["image", "log p(x) in nats", "bits/dim", "kind"]


def add(models: Models) -> None:
    """Adds the tab to the page."""
    energies = models.names(Unnormalized)  # whose normalising constant takes minutes
    measured = [n for n in models.names() if n not in energies and estimators_of(models[n].model_class())]
    with gr.Tab("Rank"):
        gr.Markdown("Images are brought to the size and channels of the model, and the least likely comes first.")
        with gr.Row():
            with gr.Column(scale=1):
                name = model_choice(measured, "gated-pixelcnn-binarized-mnist")
                files = gr.File(label="Images", file_count="multiple", file_types=["image"])
                seed = seed_choice()
                button = gr.Button("Rank", variant="primary")
            with gr.Column(scale=2):
                ranked = gr.Gallery(label="Least likely first", format="png", columns=4, object_fit="contain")
                table = gr.Dataframe(headers=_COLUMNS, interactive=False)
    button.click(answer(rank, models), [name, files, seed], [ranked, table], api_name="rank")


def rank(
    models: Models, name: str, files: list[str] | None, seed: int
) -> tuple[list[tuple[Image, str]], list[list[str]]]:
    """Images with captions, the least likely first, and the rows of a table."""
    if not files or len(files) > MOST:
        raise ConfigError(f"rank: expected 1 to {MOST} images, found {len(files or [])}; upload some")
    model = models.load(name)
    for file in files:
        try:
            own_image(Path(file), model)
        except DataError as error:
            raise ConfigError(f"rank: {Path(file).name} cannot be decoded as an image; leave it out") from error
    with TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            write_new(Path(folder) / f"{number:02} {Path(file).name}", Path(file).read_bytes())
        scores = score(
            models[name], folder, resize=True, binarize=model.levels == 2, seed=whole(seed, "seed"), progress=False
        )
    titles = [file.partition(" ")[2] for file in scores.files]
    nats, bits = scores.nats.tolist(), [""] * len(titles)
    if scores.bits_per_dim is not None:
        bits = [f"{value:.3f}" for value in scores.bits_per_dim.tolist()]
    pictures = [
        (sheet(image[None]), f"{title}: {value:.1f} nats")
        for image, title, value in zip(scores.images, titles, nats, strict=True)
    ]
    kind = f"{scores.name}, {scores.kind}"
    return pictures, [[title, f"{value:.2f}", b, kind] for title, value, b in zip(titles, nats, bits, strict=True)]
