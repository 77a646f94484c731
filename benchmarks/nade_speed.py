"""Training NADE by blocks of pixels, against a loop over the pixels: a likelihood and its gradients.

Images are random with as many pixels on as static binarised MNIST has, 13 %, in the middle of the frame. The loop is
equations 2 and 3 of the paper as one writes them in PyTorch, with gradients by autograd.
"""

from __future__ import annotations

import time

import torch
from report import in_turn, options, report
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from zoo.autoregressive.nade import NADE

REQUIRED = 20


def loop(model: NADE, x: Tensor) -> Tensor:
    a, logits = model.hidden_bias.expand(len(x), -1), []
    for d in range(model.size):
        logits.append(a.sigmoid() @ model.output[d] + model.bias[d])
        a = a + x[:, d, None] * model.weight[d]
    return torch.stack(logits, 1)


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--images", type=int, default=100, help="of a batch (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=500, help="units (default %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = NADE(hidden=arguments.hidden)
    x = torch.zeros(arguments.images, 28, 28)
    x[:, 4:24, 4:24] = (torch.rand(arguments.images, 20, 20) < 0.13 * 784 / 400).float()
    x = x.flatten(1)

    def gradients(by_loop: bool) -> list[Tensor]:
        logits = loop(model, x) if by_loop else model.logits(x)
        loss = binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return list(torch.autograd.grad(loss, list(model.parameters())))

    def seconds(by_loop: bool) -> float:
        start = time.perf_counter()
        gradients(by_loop)
        return time.perf_counter() - start

    pairs = zip(gradients(by_loop=False), gradients(by_loop=True), strict=True)
    error = max(((ours - theirs).abs().max() / theirs.abs().max()).item() for ours, theirs in pairs)
    found = in_turn(arguments.repeats, ours=lambda: seconds(by_loop=False), loop=lambda: seconds(by_loop=True))
    ratio, epoch = found["loop"] / found["ours"], found["ours"] * 50_000 / arguments.images
    report(
        f"NADE with {arguments.hidden} hidden units has the gradients of {arguments.images} images in "
        f"{found['ours']:.3f} s ({epoch:.0f} s for 50,000), {ratio:.1f} times as fast as a loop over the pixels, on "
        f"{torch.get_num_threads()} threads; they differ by {error:.1e} of the largest (required: {REQUIRED} times, "
        f"1e-05).",
        arguments.json,
        benchmark="nade_speed",
        ratio=ratio,
        required=REQUIRED,
        error=error,
        seconds=found,
        images=arguments.images,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
