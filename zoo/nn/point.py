"""The distribution of a deterministic code: all its mass is at one point."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution


class Point(Distribution):
    """P(value) = 1 at `loc`.

    Args:
        loc: Points, [B, *event_shape].
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape[:1], loc.shape[1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc.expand(*sample_shape, *self.loc.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 at the point and -inf elsewhere: [..., B, *event_shape] -> [..., B]."""
        is_there = (value == self.loc).flatten(-len(self.event_shape)).all(-1)
        return torch.zeros_like(is_there, dtype=self.loc.dtype).masked_fill(~is_there, -torch.inf)
