"""Methods of models that a graph of tensors can hold, for other programs; `zoo.export.graph` makes the graphs.

A graph draws no random numbers: they are among its inputs, such as the code z of `decode`, which the caller draws from
the prior, or the noise epsilon of `elbo`. The first dimension of all inputs and outputs is the batch, of any size.

Methods that a graph can hold use `x.shape[0]` instead of `len(x)`, which would fix the size of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.capabilities import (
    Classifier,
    Conditional,
    Decoder,
    Denoiser,
    Encoder,
    ImportanceWeighted,
    TractableDensity,
    UnnormalizedDensity,
)
from zoo.module import ZooModule


@dataclass(frozen=True)
class Method:
    """A method that a graph can hold.

    Attributes:
        capability: Capability that has it.
        inputs: Names of its inputs and what makes examples of them, (model, batch size) -> tensor.
        compute: The outputs from the inputs, (model, inputs) -> tensor.
        output: Name of the output.
        meaning: What the outputs are.
    """

    capability: type
    inputs: dict[str, Callable[[Any, int], Tensor]]
    compute: Callable[..., Tensor]
    output: str
    meaning: str


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _data(model: Any, num: int) -> Tensor:
    x = _normal(num, *model.event_shape)
    levels = getattr(model, "levels", None) or (256 if len(model.event_shape) == 3 else None)
    return x if levels is None else (x.sigmoid() * (levels - 1)).round() / (levels - 1)


def _codes(model: Any, num: int) -> Tensor:
    return _normal(num, *model.latent_shape)


def _sigma(model: Any, num: int) -> Tensor:
    return torch.linspace(0.3, 1.0, num).clamp(model.sigma_min, model.sigma_max)


METHODS: dict[str, Method] = {
    "logits": Method(
        Classifier, {"x": _data}, lambda model, x: model(x), "logits", "logits of the classes of images x"
    ),
    "denoise": Method(
        Denoiser,
        {"y": lambda model, num: model.to_state(_data(model, num)), "sigma": _sigma},
        lambda model, y, sigma, **given: model.denoise(y, sigma, **given),
        "clean",
        "E[state | state + sigma epsilon = y]; states of images are 2x - 1 or as `to_state` says",
    ),
    "decode": Method(
        Decoder,
        {"z": _codes},
        lambda model, z, **given: model.decode(z, **given),
        "x",
        "data decoded from codes z, which are drawn from the prior",
    ),
    "encode": Method(
        Encoder,
        {"x": _data},
        lambda model, x, **given: model.encode(x, **given).mean,
        "z",
        "means of the codes of data x",
    ),
    "log_prob": Method(
        TractableDensity,
        {"x": _data},
        lambda model, x, **given: model.log_prob(x, **given),
        "log_prob",
        "log p(x) in nats, exact",
    ),
    "elbo": Method(
        ImportanceWeighted,
        {"x": _data, "epsilon": _codes},
        lambda model, x, epsilon, **given: model.log_weights_at(x, epsilon[None], **given)[0],
        "elbo",
        "a lower bound of log p(x) in nats on average over standard normal epsilon",
    ),
    "energy": Method(
        UnnormalizedDensity,
        {"x": _data},
        lambda model, x, **given: model.energy(x, **given),
        "energy",
        "-log p(x) in nats, up to a constant",
    ),
}
"""Methods by name; a graph holds the first that a model has, unless told otherwise."""


def methods_of(cls: type[ZooModule]) -> list[str]:
    """Names of the methods of a class of models that a graph can hold, the default first."""
    no_graph = ("decode", "encode") if issubclass(cls, Denoiser) else cls.adaptive  # a sampler decodes and encodes
    return [name for name, method in METHODS.items() if issubclass(cls, method.capability) and name not in no_graph]


def inputs_of(cls: type[ZooModule], method: str) -> list[str]:
    """Names of the inputs of a method's graph."""
    return [*METHODS[method].inputs, *(["labels"] if issubclass(cls, Conditional) else [])]
