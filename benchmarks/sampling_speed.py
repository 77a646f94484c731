"""Sampling against the bare network.

By default, samples of MADE: each hidden unit computed once, against one full pass per pixel with the same uniforms.
With --gan, samples of a GAN: `sample`, with a stream of noise for each example, against passes of the generator over
torch's own noise, in batches of the same size.

A pass costs the same at every pixel. So only some passes, evenly spread, are timed, and their time is scaled to all.
The masks are multiplied into the weights before the clock of the passes starts. One pass over the finished images gives
the logit that every pixel was drawn from. So it shows whether passes would draw the same bits.
"""

from __future__ import annotations

import time

import torch
from report import in_turn, options, report
from torch import Tensor
from torch.nn import functional as F

from zoo import Zoo
from zoo.autoregressive.made import MADE
from zoo.gan.game import Game
from zoo.random import Streams, rand

REQUIRED, REQUIRED_OF_GAN = 100, 0.9


class Passes:
    """One full pass per pixel."""

    def __init__(self, model: MADE, uniforms: Tensor, masks: Tensor) -> None:
        self.model, self.uniforms = model, uniforms
        self.rows = [(masks == k).nonzero()[:, 0] for k in range(model.num_masks)]
        self.weights = [model._matrices(k) for k in range(model.num_masks)]
        self.biases = model.biases

    def logits(self, x: Tensor, mask: int) -> Tensor:
        w, biases = self.weights[mask], self.biases
        h1 = F.linear(x, w["first"], biases["first"]).relu_()
        h2 = F.linear(x, w["pixels_to_second"], biases["second"]).add_(F.linear(h1, w["second"])).relu_()
        return (
            F.linear(h2, w["output"], biases["output"]) + F.linear(h1, w["first_to_output"]) + F.linear(x, w["direct"])
        )

    def seconds(self, pixels: list[int]) -> float:
        """Time to draw these pixels, scaled to all."""
        x = torch.zeros_like(self.uniforms)
        start = time.perf_counter()
        for d in pixels:
            for mask, rows in enumerate(self.rows):
                logits = self.logits(x[rows], mask)
                x[rows, d] = (self.uniforms[rows, d] < logits[:, d].sigmoid()).to(x.dtype)
        return (time.perf_counter() - start) * self.model.size / len(pixels)

    def same(self, x: Tensor) -> float:
        """The part of the pixels of x, [B, D], that one pass per pixel would draw, too."""
        found = [
            (self.uniforms[rows] < self.logits(x[rows], mask).sigmoid()).to(x.dtype) == x[rows]
            for mask, rows in enumerate(self.rows)
        ]
        return torch.cat(found).double().mean().item()


def gan(name: str, num: int, repeats: int, as_json: bool) -> None:
    """Compares `sample` of a GAN with bare passes of its generator."""
    model, size = Zoo.load(name), 250
    assert isinstance(model, Game)

    def ours() -> float:
        start = time.perf_counter()
        model.sample(num, batch_size=size)
        return time.perf_counter() - start

    def bare() -> float:
        start = time.perf_counter()
        torch.cat([model.generator(torch.randn(size, *model.latent_shape)) for _ in range(num // size)])
        return time.perf_counter() - start

    found = in_turn(repeats, ours=ours, bare=bare)
    ratio = found["bare"] / found["ours"]
    report(
        f"{name} draws {num} images in {found['ours']:.2f} s, its bare generator in {found['bare']:.2f} s: {ratio:.2f} "
        f"of its speed, on {torch.get_num_threads()} threads (required: {REQUIRED_OF_GAN}).",
        as_json,
        benchmark="gan_sampling_speed",
        ratio=ratio,
        required=REQUIRED_OF_GAN,
        seconds=found,
        images=num,
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--gan", metavar="NAME", help="sample from this checkpoint, 10,000 images")
    parser.add_argument("--images", type=int, default=500, help="drawn at once (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=1000, help="units of each hidden layer (default %(default)s)")
    parser.add_argument("--masks", type=int, default=8, help="masks of the model (default %(default)s)")
    parser.add_argument("--passes", type=int, default=14, help="pixels whose passes are timed (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.gan:
        gan(arguments.gan, 10_000, arguments.repeats, arguments.json)
        return

    torch.manual_seed(0)
    model = MADE(hidden=arguments.hidden, num_masks=arguments.masks).eval()
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))

    def draw() -> Tensor:
        return model.draw(Streams(0, range(arguments.images)))

    def seconds() -> float:
        start = time.perf_counter()
        draw()
        return time.perf_counter() - start

    streams = Streams(0, range(arguments.images))  # what `draw` takes from them
    masks = (rand((arguments.images, 1), streams)[:, 0] * model.num_masks).long()
    passes = Passes(model, rand((arguments.images, model.size), streams), masks)
    pixels = torch.linspace(0, model.size - 1, arguments.passes).long().tolist()
    same = passes.same(draw().flatten(1))
    found = in_turn(arguments.repeats, ours=seconds, passes=lambda: passes.seconds(pixels))
    ratio = found["passes"] / found["ours"]
    report(
        f"MADE with 2 x {arguments.hidden} hidden units and {arguments.masks} masks draws {arguments.images} images of "
        f"28x28 in {found['ours']:.2f} s, {ratio:.0f} times as fast as one full pass per pixel, which takes "
        f"{found['passes']:.1f} s (scaled up from {len(pixels)} of {model.size} pixels, evenly spread), on "
        f"{torch.get_num_threads()} threads; {same:.4%} of the pixels are the same (required: {REQUIRED} times, all).",
        arguments.json,
        benchmark="sampling_speed",
        ratio=ratio,
        required=REQUIRED,
        same=same,
        seconds=found,
        images=arguments.images,
        timed_pixels=len(pixels),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
