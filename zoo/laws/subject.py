"""A model under test: its class, its arguments, and small data of the kind that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zoo.batch import Batch
from zoo.capabilities import ClosedForm, Conditional, Dequantized, TractableDensity
from zoo.laws.law import seeded, state_numbers
from zoo.module import ZooModule

MOST_STATES = 2**16
"""Largest number of states that are enumerated."""


@dataclass(frozen=True)
class Subject:
    """A model small enough to enumerate, integrate and differentiate by brute force.

    Attributes:
        cls: The class.
        arguments: Arguments of its constructor.
        levels: Its data are {0, ..., levels - 1}/(levels - 1), or real numbers if this is None.
        differentiable: Whether `log_prob` changes smoothly with x; it does not if most x are impossible.
    """

    cls: type[ZooModule]
    arguments: dict[str, Any]
    levels: int | None
    differentiable: bool = field(default=True, kw_only=True)

    @classmethod
    def of(cls, kind: type[ZooModule], arguments: dict[str, Any]) -> Subject:
        """A model whose constructor tells the kind of its data."""
        unknown = cls(kind, arguments, None)
        levels = getattr(unknown.plain, "levels", None)
        if levels is None and len(unknown.event_shape) == 3 and not issubclass(kind, TractableDensity):
            levels = 256
        smooth = cls(kind, arguments, levels)
        if not issubclass(kind, TractableDensity) or smooth.why_not_enumerable:
            return smooth
        try:
            with torch.no_grad():
                is_possible = smooth.build().log_prob(smooth.data(20), **smooth.given(20)).isfinite()
        except Exception:  # of a model that may do anything; the laws will say what
            return smooth
        return cls(kind, arguments, levels, differentiable=bool(is_possible.all()))

    @cached_property
    def plain(self) -> Any:
        """The model as its constructor makes it."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.cls(**self.arguments).eval()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        shape = self.arguments.get("event_shape")
        return tuple(self.plain.event_shape if shape is None else shape)

    @property
    def num_classes(self) -> int:
        """Number of classes of a model with labels, else 1."""
        return int(getattr(self.plain, "num_classes", 1))

    def build(self, seed: int = 0) -> Any:
        """The model in evaluation mode, with every parameter away from where it starts."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.cls(**self.arguments)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
                if isinstance(model, ClosedForm):
                    for _ in range(3 if model.iterative else 1):
                        model.statistics = model.gather(self.data(100, seed))
                        model.finish(model.statistics)
        return model.eval()

    def data(self, num: int, seed: int = 0) -> Tensor:
        """Examples [num, *event_shape], correlated, so that there is something to model.

        They are draws of the model itself if most x are impossible.
        """
        generator = seeded(seed)
        if not self.differentiable:
            model: Any = self.cls(**self.arguments)
            return model.sample(num, generator=generator)
        size = math.prod(self.event_shape)
        x = torch.randn(num, size, generator=generator) @ torch.randn(size, size, generator=generator) / size**0.5
        if self.levels is not None:
            x = (x.sigmoid() * self.levels).floor().clamp(max=self.levels - 1) / (self.levels - 1)
        return x.view(num, *self.event_shape)

    def batch(self, num: int = 6) -> Batch:
        """Examples with labels, as training sees them."""
        return Batch(self.data(num), torch.arange(num) % self.num_classes, torch.arange(num))

    def given(self, num: int) -> dict[str, Tensor]:
        """Labels of `num` examples in turn as a keyword; nothing for a model that takes none."""
        return {"labels": torch.arange(num) % self.num_classes} if self._is_conditional else {}

    def same_label(self, num: int) -> dict[str, Tensor]:
        """One label for `num` examples as a keyword; nothing for a model that takes none."""
        return {"labels": torch.ones(num, dtype=torch.long)} if self._is_conditional else {}

    @property
    def _is_conditional(self) -> bool:
        return issubclass(self.cls, Conditional)

    @property
    def why_not_enumerable(self) -> str:
        """Why not all examples can be enumerated; empty if they can."""
        size = math.prod(self.event_shape)
        if self.levels is None:
            return "its data are real numbers, which cannot be enumerated"
        if issubclass(self.cls, Dequantized):
            return "its density is that of dequantised data, which are real numbers"
        if self.levels**size > MOST_STATES:
            return f"{self.levels}^{size} examples cannot be enumerated; try arguments of a smaller event_shape"
        return ""

    def states(self) -> Tensor:
        """Everything that there is: [levels^D, *event_shape]."""
        assert self.levels is not None
        values = torch.arange(self.levels) / (self.levels - 1)
        size = math.prod(self.event_shape)
        return torch.cartesian_prod(*[values] * size).view(-1, *self.event_shape)

    def counts(self, x: Tensor) -> Tensor:
        """How often each of `states` occurs among examples [B, *event_shape]: [levels^D]."""
        assert self.levels is not None
        return torch.bincount(state_numbers(x, self.levels), minlength=self.levels ** math.prod(self.event_shape))
