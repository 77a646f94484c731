"""The fast way to sample pixel by pixel, against one likelihood evaluation and against one full pass per pixel.

A full pass costs the same at every pixel: as much as a likelihood evaluation, for a model in raster order. One pass
over the finished images gives the logit that every pixel was drawn from. So it shows whether passes would draw the same
bits. EoNADE, whose images have orderings of their own, is checked at some of its steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from report import in_turn, options, report

from zoo import Zoo
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.raster import RasterOrder
from zoo.random import Streams, rand

# goals for each model: (images, times as fast as one pass per pixel, most likelihood evaluations)
WANTED: dict[str, list[tuple[int, float | None, float | None]]] = {
    "nade": [(500, 15, None)],
    "eonade": [(500, None, None)],
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
    """Median seconds of sampling and of a full pass, and the part of the pixels that agree."""
    size = math.prod(model.event_shape)
    x = model.draw(Streams(0, range(num)))
    uniforms = rand((num, size), Streams(0, range(num)))
    same = ((uniforms < model.logits(x).sigmoid()) == x.flatten(1).bool()).double().mean().item()
    found = in_turn(
        repeats,
        ours=lambda: clock(lambda: model.draw(Streams(0, range(num)))),
        one_pass=lambda: clock(lambda: model.log_prob(x)),
    )
    return found, same


@torch.no_grad()
def compare_orderings(model: EoNADE, num: int, repeats: int, steps: int = 16) -> tuple[dict[str, float], float]:
    """The same for EoNADE, whose passes compute all outputs."""
    x, streams = model.draw(Streams(0, range(num))).flatten(1), Streams(0, range(num))
    choice = (rand((num, 1), streams)[:, 0] * model.num_orderings).long()  # what `draw` takes from the streams
    uniforms, order = rand((num, model.size), streams), model.orders[choice]
    rank, agree = order.argsort(1), []
    for step in torch.linspace(0, model.size - 1, steps).long().tolist():
        pixel = order[:, step, None]
        logits = model.logits(x, (rank < step).float()).gather(1, pixel)
        agree.append((uniforms.gather(1, pixel) < logits.sigmoid()) == x.gather(1, pixel).bool())
    found = in_turn(
        repeats,
        ours=lambda: clock(lambda: model.draw(Streams(0, range(num)))),
        one_pass=lambda: clock(lambda: model.logits(x, torch.ones_like(x))),
    )
    return found, torch.cat(agree).double().mean().item()


def main() -> None:
    parser = options(__doc__, repeats=3)
    parser.add_argument("--models", nargs="+", default=list(WANTED), choices=list(WANTED), metavar="MODEL")
    arguments = parser.parse_args()
    for name in arguments.models:
        model = Zoo.load(f"{name}-binarized-mnist")
        assert isinstance(model, RasterOrder | EoNADE)
        for num, times, evaluations in WANTED[name]:
            if isinstance(model, EoNADE):
                found, same = compare_orderings(model, num, arguments.repeats)
            else:
                found, same = compare(model, num, arguments.repeats)
            ratio = found["ours"] / found["one_pass"]
            faster = math.prod(model.event_shape) / ratio
            passes = "likelihood evaluations" if isinstance(model, RasterOrder) else "passes"
            report(
                f"{name} draws {num} images of 28x28 in {found['ours']:.2f} s: {faster:.0f} times as fast as one full "
                f"pass per pixel{f' (wanted: {times})' if times else ''}, in the time of {ratio:.2f} {passes} "
                f"of as many{f' (wanted: at most {evaluations})' if evaluations else ''}; "
                f"{same:.4%} of the pixels are the same; threads: {torch.get_num_threads()}.",
                arguments.json,
                benchmark="raster_speed",
                model=name,
                images=num,
                times_as_fast_as_passes=faster,
                passes=ratio,
                same=same,
                seconds=found,
                threads=torch.get_num_threads(),
            )


if __name__ == "__main__":
    main()
