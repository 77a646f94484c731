"""NADE and EoNADE against plain loops over the pixels: objectives with their gradients, and samples of NADE.

In the objectives' images, 13 % of the pixels are on, as in static binarised MNIST. NADE's loop is equations 2 and 3 of
the paper as one writes them in PyTorch, with gradients by autograd. EoNADE's loop is the likelihood of one ordering,
with a pass for each pixel. Its training takes one pass for each image, whose mean over the noise is the same
(`tests/models/test_eonade.py` takes it).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from report import in_turn, options, report
from torch import Tensor

from zoo import Zoo
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.nade import NADE
from zoo.autoregressive.raster import log_likelihood
from zoo.random import Streams, rand

REQUIRED = 20


def loop(model: NADE, x: Tensor) -> Tensor:
    """log p(x) of images, [B, D]."""
    a, logits = model.hidden_bias.expand(len(x), -1), []
    for d in range(model.size):
        logits.append(a.sigmoid() @ model.output[d] + model.bias[d])
        a = a + x[:, d, None] * model.weight[d]
    return log_likelihood(torch.stack(logits, 1), x).sum(1)


@torch.no_grad()
def drawing_loop(model: NADE, uniforms: Tensor) -> Tensor:
    """Images, [B, D], drawn with these uniforms."""
    a, pixels = model.hidden_bias.expand(len(uniforms), -1), []
    for d in range(model.size):
        pixels.append((uniforms[:, d] < (a.sigmoid() @ model.output[d] + model.bias[d]).sigmoid()).float())
        a = a + pixels[-1][:, None] * model.weight[d]
    return torch.stack(pixels, 1)


def clock(run: Callable[[], object]) -> float:
    """Seconds that a run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare_draws(model: NADE, num: int, repeats: int, as_json: bool) -> None:
    uniforms = rand((num, model.size), Streams(0, range(num)))
    same = (model.draw(Streams(0, range(num))).flatten(1) == drawing_loop(model, uniforms)).double().mean().item()
    found = in_turn(
        repeats,
        ours=lambda: clock(lambda: model.draw(Streams(0, range(num)))),
        loop=lambda: clock(lambda: drawing_loop(model, uniforms)),
    )
    ratio, hidden, threads = found["loop"] / found["ours"], len(model.hidden_bias), torch.get_num_threads()
    report(
        f"The shipped NADE, with {hidden} hidden units, draws {num} images in {found['ours']:.3f} s, {ratio:.1f} times "
        f"as fast as a loop over the pixels, on {threads} threads; {same:.4%} of the pixels are the same.",
        as_json,
        benchmark="nade_sampling_speed",
        ratio=ratio,
        same=same,
        seconds=found,
        images=num,
        threads=threads,
    )


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--images", type=int, default=100, help="images of a batch (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=500, help="units of a layer (default %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.zeros(arguments.images, 1, 28, 28)
    x[..., 4:24, 4:24] = (torch.rand(arguments.images, 1, 20, 20) < 0.13 * 784 / 400).float()

    def compare(model: NADE | EoNADE, ours: Callable[[], Tensor], loop: Callable[[], Tensor]) -> None:
        def gradients(log_probs: Callable[[], Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(-log_probs().sum(), list(model.parameters()))

        error = None
        if isinstance(model, NADE):
            pairs = zip(gradients(ours), gradients(loop), strict=True)
            error = max(((mine - theirs).abs().max() / theirs.abs().max()).item() for mine, theirs in pairs)
        found = in_turn(
            arguments.repeats,
            ours=lambda: clock(lambda: gradients(ours)),
            loop=lambda: clock(lambda: gradients(loop)),
        )
        ratio, epoch = found["loop"] / found["ours"], found["ours"] * 50_000 / arguments.images
        name, threads = type(model).__name__, torch.get_num_threads()
        differ = f"; gradients differ by {error:.1e} of the largest (required: 1e-05)" if error is not None else ""
        report(
            f"{name} with {arguments.hidden} hidden units learns from {arguments.images} images in {found['ours']:.3f} "
            f"s ({epoch:.0f} s for 50,000), {ratio:.1f} times as fast as by a loop over the pixels (required: "
            f"{REQUIRED} times), on {threads} threads{differ}.",
            arguments.json,
            benchmark="nade_speed",
            model=name,
            ratio=ratio,
            required=REQUIRED,
            error=error,
            seconds=found,
            images=arguments.images,
            threads=threads,
        )

    nade = NADE(hidden=arguments.hidden)
    compare(nade, lambda: nade.log_prob(x), lambda: loop(nade, x.flatten(1)))
    eonade, streams = EoNADE(hidden=arguments.hidden), Streams(0, range(arguments.images))
    order = eonade.orders[0]
    compare(eonade, lambda: eonade.training_log_prob(x, streams), lambda: eonade.log_prob_given(x, order))
    compare_draws(cast(NADE, Zoo.load("nade-binarized-mnist")), arguments.images, arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
