"""Sampling pixel by pixel, each activation once, against one likelihood evaluation and one full pass per pixel.

The models are those of `recipes/`, before training. A full pass costs the same at every pixel, as much as a likelihood
evaluation; one per pixel is as many of these. That it would draw the same bits is checked by one pass over the finished
images: it gives every pixel the logit that it was drawn from.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from report import ROOT, in_turn, options, report

from zoo.autoregressive.raster import RasterOrder
from zoo.random import Streams, rand
from zoo.training.recipe import build_model, load_recipe

# what is wanted of a recipe's model: (images, times as fast as one pass per pixel, likelihood evaluations at most)
WANTED: dict[str, list[tuple[int, float | None, float | None]]] = {
    "gated-pixelcnn": [(1, 40, None), (16, 300, None)],
    "pixelcnn": [(1, None, None), (16, None, None)],
    "row-lstm": [(1, None, 5), (16, None, 5)],
    "diagonal-bilstm": [(1, None, 5), (16, None, 5)],
    "rnn": [(1, None, 5), (16, None, 5)],
}


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.no_grad()
def compare(model: RasterOrder, num: int, repeats: int) -> tuple[dict[str, float], float]:
    """Median seconds of sampling and of a likelihood evaluation; the part of the pixels that agree."""
    size = math.prod(model.event_shape)
    x = model.draw(Streams(0, range(num)))
    uniforms = rand((num, size), Streams(0, range(num)))
    same = ((uniforms < model.logits(x).sigmoid()) == x.flatten(1).bool()).double().mean().item()
    found = in_turn(
        repeats,
        ours=lambda: clock(lambda: model.draw(Streams(0, range(num)))),
        likelihood=lambda: clock(lambda: model.log_prob(x)),
    )
    return found, same


def main() -> None:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--models", nargs="+", default=list(WANTED), choices=list(WANTED), metavar="MODEL")
    arguments = parser.parse_args()
    for name in arguments.models:
        recipe = load_recipe(ROOT / "recipes" / f"{name}-binarized-mnist.yaml")
        model = build_model(recipe["model"]).eval()
        assert isinstance(model, RasterOrder)
        for num, times, evaluations in WANTED[name]:
            found, same = compare(model, num, arguments.repeats)
            ratio = found["ours"] / found["likelihood"]
            faster = math.prod(model.event_shape) / ratio
            report(
                f"{name} draws {num} images of 28x28 in {found['ours']:.2f} s: {faster:.0f} times as fast as one full "
                f"pass per pixel{f' (wanted: {times})' if times else ''}, in the time of {ratio:.2f} likelihood "
                f"evaluations of as many{f' (wanted: at most {evaluations})' if evaluations else ''}; "
                f"{same:.4%} of the pixels are the same; threads: {torch.get_num_threads()}.",
                arguments.json,
                benchmark="raster_speed",
                model=name,
                images=num,
                times_as_fast_as_passes=faster,
                likelihood_evaluations=ratio,
                same=same,
                seconds=found,
                threads=torch.get_num_threads(),
            )


if __name__ == "__main__":
    main()
