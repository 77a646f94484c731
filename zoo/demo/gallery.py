"""All checkpoints, with their samples and numbers. No weights are read."""

from __future__ import annotations

import gradio as gr

from zoo.demo.models import Models
from zoo.demo.parts import answer
from zoo.measurement import headlines
from zoo.module import usage_of
from zoo.store.card import about
from zoo.store.checkpoint import SAMPLES

ALL = "all"
_COLUMNS = ["checkpoint", "class", "data", "MB", "numbers"]
_WIDTHS: list[str | int] = ["26%", "20%", "14%", "6%", "34%"]


def add(models: Models) -> None:
    """Adds the tab to the page."""
    families, data = ({getattr(c, key) for c in models.all.values()} for key in ("family", "data_name"))
    samples = [c.folder / SAMPLES for c in models.all.values() if (c.folder / SAMPLES).exists()]
    gr.set_static_paths([str(path) for path in samples])  # the server may send these files
    with gr.Tab("Checkpoints"):
        with gr.Row():
            family = gr.Dropdown([ALL, *sorted(families)], value=ALL, label="Family")
            trained_on = gr.Dropdown([ALL, *sorted(data)], value=ALL, label="Data")
        pictures, rows = find(models, ALL, ALL)
        with gr.Row():
            with gr.Column(scale=3):
                gallery = gr.Gallery(
                    pictures,
                    show_label=False,
                    columns=3,
                    height=640,
                    object_fit="contain",
                    allow_preview=False,
                    buttons=[],
                )
            with gr.Column(scale=2):
                facts = gr.Markdown("Choose a picture or a row to read about a checkpoint.", elem_id="facts")
        table = gr.Dataframe(
            rows, headers=_COLUMNS, interactive=False, wrap=True, column_widths=_WIDTHS, max_height=560, buttons=[]
        )
    show = answer(describe, models)

    def show_picture(event: gr.SelectData) -> str:
        return str(show(event.value["caption"]))

    def show_row(event: gr.SelectData) -> str:
        return str(show(event.row_value[0]))

    choices = [family, trained_on]
    gr.on([choice.change for choice in choices], answer(find, models), choices, [gallery, table], api_name="find")
    gallery.select(show_picture, None, facts, api_visibility="private")
    table.select(show_row, None, facts, api_visibility="private")


def find(models: Models, family: str, data: str) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The checkpoints of a family that were trained on some data: samples with captions, and rows of a table."""
    found = [
        checkpoint
        for checkpoint in models.all.values()
        if family in (ALL, checkpoint.family) and data in (ALL, checkpoint.data_name)
    ]
    pictures = [(str(c.folder / SAMPLES), c.name) for c in found if (c.folder / SAMPLES).exists()]
    rows = [[c.name, c.class_name, c.data_name, f"{c.size / 1e6:.1f}", headlines(c.numbers)] for c in found]
    return pictures, rows


def describe(models: Models, name: str) -> str:
    """What is known of a checkpoint, as Markdown."""
    checkpoint = models[name]
    numbers = "\n".join(f"- {number}" for number in checkpoint.numbers)
    usage = "\n".join([f'model = Zoo.load("{name}")', *usage_of(checkpoint.model_class())])
    return f"### {name}\n\n{about(checkpoint)}\n\n{numbers}\n\n```python\n{usage}\n```"
