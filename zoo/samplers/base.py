"""The base of all samplers: plain arguments, and a call that draws from a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from zoo.random import Streams


@dataclass(frozen=True)
class Sampler(ABC):
    """A way to draw from a model that can be drawn from in several ways, such as a denoiser or an energy.

    A sampler is a frozen value with JSON-plain arguments, and holds no model. It is an argument of `sample`.
    Measurements with different samplers count as different measurements.
    """

    @abstractmethod
    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        """Draws one example per stream.

        Args:
            model: A model whose `samplers` include this class.
            streams: Noise, one stream per example.
            given: Conditions of the examples, such as labels.

        Returns:
            [len(streams), *event_shape].
        """

    def to_dict(self) -> dict[str, Any]:
        """The name of the class and the arguments, JSON-plain."""
        return {"sampler": type(self).__name__, **asdict(self)}
