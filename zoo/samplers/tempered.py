"""Sampling at a temperature from a bijection (Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039, section 6).

x = f^-1(z),    z ~ N(0, T^2 I)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from torch import Tensor

from zoo.config import Between, bind
from zoo.random import Streams, randn
from zoo.samplers.base import Sampler


@dataclass(frozen=True)
class Tempered(Sampler):
    """Decodes normal codes with a standard deviation other than 1.

    Args:
        temperature: Standard deviation T of the codes. 1 draws from the model; smaller values give likelier and less
            varied examples.

    Raises:
        ConfigError: The temperature is out of range.
    """

    temperature: Annotated[float, Between(0, 100)] = 1.0

    def __post_init__(self) -> None:
        bind(type(self), asdict(self), type(self).__name__)

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        z = randn((len(streams), *model.latent_shape), streams, model.device)
        return model.decode((self.temperature * z).to(model.dtype), **given)
