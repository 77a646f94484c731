"""A page in the browser that shows what the pretrained models can do: `zoo demo`, or `app().launch()`.

One file per tab. A tab offers the checkpoints whose models have the capabilities that it needs, and calls the same
functions as the command line.
"""

from __future__ import annotations

from zoo.errors import ZooError

try:
    import gradio as gr
except ImportError as error:
    raise ZooError("gradio is not installed; run `pip install 'generative-zoo[demo]'`") from error

from zoo.demo import complete, denoise, draw, gallery, pixels, rank, walk
from zoo.demo.models import Models

__all__ = ["app"]

_TABS = (gallery, draw, walk, complete, pixels, denoise, rank)
_HOUR = 3600


def app(device: str = "cpu") -> gr.Blocks:
    """Makes the page; it needs no network. Its `launch` serves it.

    Args:
        device: Where to put the models, such as "cuda".

    Returns:
        The page. Pictures that it has shown are deleted after an hour.
    """
    models = Models(device)
    with gr.Blocks(title="The zoo of generative models", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        gr.Markdown("# The zoo of generative models")
        for tab in _TABS:
            tab.add(models)
    return page
