"""Pictures of rivers, drawn by a program of known entropy: what a model of them can reach at best."""

from __future__ import annotations

import torch

from zoo.data.base import DataModule, Split, Which

_SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}


class Rivers(DataModule):
    """Binary images from `zoo.density.rivers.Rivers` as it is by default: 50,000 / 10,000 / 10,000.

    No model has fewer nats on average than the program's entropy, and what it has more is its divergence from it.
    """

    name = "rivers"
    event_shape = (1, 28, 28)
    levels = 2

    def load(self, which: Which) -> Split:
        from zoo.density.rivers import Rivers as Program

        generator = torch.Generator().manual_seed((self.seed * len(_SIZES) + list(_SIZES).index(which)) % 2**32)
        return Split(Program().sample(_SIZES[which], generator=generator, batch_size=2000).to(torch.uint8), None)
