"""Pictures of rivers, drawn by a program of known entropy: what a model of them can reach at best."""

from __future__ import annotations

import torch

from zoo.data.base import DataModule, Split, Which

_SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
_FIRST_SEED = 1_751_742_834  # of the data; far from the seeds of samples, which would be these very images


class Rivers(DataModule):
    """Binary images from `zoo.density.rivers.Rivers` as it is by default: 50,000 / 10,000 / 10,000.

    No model has fewer nats on average than the program's entropy, and what it has more is its divergence from it.
    """

    name = "rivers"
    event_shape = (1, 28, 28)
    levels = 2

    def load(self, which: Which) -> Split:
        from zoo.density.rivers import Rivers as Program

        seed = _FIRST_SEED + self.seed * len(_SIZES) + list(_SIZES).index(which)
        generator = torch.Generator().manual_seed(seed % 2**32)  # its engine reads 32 bits
        return Split(Program().sample(_SIZES[which], generator=generator, batch_size=2000).to(torch.uint8), None)
