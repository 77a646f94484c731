"""Pictures of rivers, drawn by a program of known entropy, which is the best value that a model of them can reach."""

from __future__ import annotations

import torch

from zoo.data.base import DataModule, Split, Which

_SIZES = {"train": 50_000, "valid": 10_000, "test": 10_000}
_FIRST_SEED = 1_751_742_834  # far from the usual seeds of samples, which would give the same images


class Rivers(DataModule):
    """Binary images from `zoo.density.rivers.Rivers` with its default arguments: 50,000 / 10,000 / 10,000 images.

    The average negative log-likelihood of a model is the entropy of the program plus the divergence of the model from
    it.
    """

    name = "rivers"
    event_shape = (1, 28, 28)
    levels = 2

    def load(self, which: Which) -> Split:
        from zoo.density.rivers import Rivers as Program

        seed = _FIRST_SEED + self.seed * len(_SIZES) + list(_SIZES).index(which)
        generator = torch.Generator().manual_seed(seed % 2**32)  # the engine takes 32 bits
        return Split(Program().sample(_SIZES[which], generator=generator, batch_size=2000).to(torch.uint8), None)
