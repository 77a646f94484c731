"""Training NADE and EoNADE against loops over the pixels: objectives and their gradients.

Images are random with as many pixels on as static binarised MNIST has, 13 %, in the middle of the frame. The loop of
NADE is equations 2 and 3 of the paper as one writes them in PyTorch, with gradients by autograd; ours goes by blocks of
pixels and has the same gradients. The loop of EoNADE is the likelihood of one ordering, a pass for each pixel; ours has
one pass an image, which tells in the mean over its draws the same (`tests/models/test_eonade.py` takes that mean).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from report import in_turn, options, report
from torch import Tensor

from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.nade import NADE
from zoo.autoregressive.raster import log_likelihood
from zoo.random import Streams

REQUIRED = 20


def loop(model: NADE, x: Tensor) -> Tensor:
    a, logits = model.hidden_bias.expand(len(x), -1), []
    for d in range(model.size):
        logits.append(a.sigmoid() @ model.output[d] + model.bias[d])
        a = a + x[:, d, None] * model.weight[d]
    return log_likelihood(torch.stack(logits, 1), x).sum(1)


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--images", type=int, default=100, help="of a batch (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=500, help="units of a layer (default %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.zeros(arguments.images, 1, 28, 28)
    x[..., 4:24, 4:24] = (torch.rand(arguments.images, 1, 20, 20) < 0.13 * 784 / 400).float()

    def compare(model: NADE | EoNADE, ours: Callable[[], Tensor], loop: Callable[[], Tensor]) -> None:
        def gradients(log_probs: Callable[[], Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(-log_probs().sum(), list(model.parameters()))

        def seconds(log_probs: Callable[[], Tensor]) -> float:
            start = time.perf_counter()
            gradients(log_probs)
            return time.perf_counter() - start

        error = None
        if isinstance(model, NADE):
            pairs = zip(gradients(ours), gradients(loop), strict=True)
            error = max(((mine - theirs).abs().max() / theirs.abs().max()).item() for mine, theirs in pairs)
        found = in_turn(arguments.repeats, ours=lambda: seconds(ours), loop=lambda: seconds(loop))
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


if __name__ == "__main__":
    main()
