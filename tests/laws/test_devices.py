"""Devices without double precision, such as Apple's MPS: nothing that lives on the model's device becomes float64.

There is no such device here. A subclass of tensors marks what would lie there: weights, noise, and all that is computed
of them, until it is brought to the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from instances import INSTANCES, Instance
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import zoo
from zoo.batch import Batch
from zoo.boltzmann.rbm import RBM
from zoo.capabilities import (
    Adversarial,
    Classifier,
    ClosedForm,
    Completable,
    Encoder,
    EvidenceLowerBound,
    GenerativeModel,
    TractableDensity,
    UnnormalizedDensity,
)
from zoo.nn import precision
from zoo.random import Streams

KINDS = {instance.cls: instance for instance in reversed(INSTANCES)}


class OnDevice(Tensor):
    """A tensor on a device without double precision."""


class NoDouble(TorchFunctionMode):
    """Notes where a tensor on the device becomes float64."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_there = any(isinstance(leaf, OnDevice) for leaf in tree_leaves((args, kwargs)))
        result = func(*args, **kwargs)
        if func is Tensor.cpu:
            return result.as_subclass(Tensor)
        is_there |= kwargs.get("device") is not None and func is not Tensor.to
        if is_there and any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in tree_leaves(result)):
            self.found.add(self._place())
        return result

    def _place(self) -> str:
        frame, root = sys._getframe(2), str(Path(zoo.__file__).parent)
        while frame is not None and not frame.f_code.co_filename.startswith(root):
            frame = frame.f_back  # type: ignore[assignment]
        return f"{frame.f_code.co_filename.removeprefix(root)}:{frame.f_lineno}" if frame else "a test"


def moved(model: nn.Module) -> nn.Module:
    """The model with its weights on the device."""
    for module in model.modules():
        for name, value in [*module._parameters.items()]:
            if value is not None:
                module._parameters[name] = nn.Parameter(value.data.as_subclass(OnDevice), value.requires_grad)
        for name, buffer in [*module._buffers.items()]:
            if buffer is not None:
                module._buffers[name] = buffer.as_subclass(OnDevice)
    return model


@contextmanager
def no_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[NoDouble]:
    uniform = Streams._uniform
    monkeypatch.setattr(precision, "NO_DOUBLE", frozenset({"mps", "cpu"}))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # leaves out the fast ways of the CPU
    monkeypatch.setattr(Streams, "_uniform", lambda *args: uniform(*args).as_subclass(OnDevice))
    with NoDouble() as mode:
        yield mode


def learn(model: Any, batch: Batch) -> None:
    """A step of training, as far as it can go without a Trainer."""
    if isinstance(model, ClosedForm):
        model.statistics = model.gather(batch.x, generator=model.streams(batch))
        model.finish(model.statistics)
    elif isinstance(model, Adversarial):
        streams, given = model.streams(batch), model.given(batch)
        real, fake = model.pair(batch.x, streams, **given)
        model.critic_loss(real.detach(), fake.detach(), streams, **given)["loss"].backward()
        model.generator_loss(real, fake, streams, **given).backward()
    else:
        model.training_step(batch, 0)["loss"].backward()


def use(model: Any, x: Tensor, given: dict[str, Tensor]) -> None:
    """What a model computes of data and noise."""
    if isinstance(model, GenerativeModel):
        quick = {"sampler": type(model.sampler)(2)} if "steps" in vars(getattr(model, "sampler", object)) else {}
        model.sample(3, generator=torch.Generator().manual_seed(0), **quick)
    with torch.no_grad():
        if isinstance(model, TractableDensity):
            model.log_prob(x, **given)
        if isinstance(model, EvidenceLowerBound):
            model.elbo(x, generator=Streams(0, range(len(x))), **given)
        if isinstance(model, UnnormalizedDensity):
            model.energy(x, **given)
        if isinstance(model, Encoder):
            model.encode(x, **given)
        if isinstance(model, Classifier):
            model(x)
    if isinstance(model, Completable) and hasattr(model, "log_prob"):
        model.complete(x, (torch.arange(x[0].numel()) < 1).view(x.shape[1:]))


@pytest.mark.parametrize("instance", KINDS.values(), ids=lambda instance: instance.cls.__name__)
def test_nothing_on_the_device_becomes_double(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = instance.batch(100 if issubclass(instance.cls, ClosedForm) else 6)
    batch = batch._replace(x=batch.x.as_subclass(OnDevice))
    model: Any = moved(instance.build())
    if hasattr(model, "burn_in"):
        model.burn_in = 2
    with no_double(monkeypatch) as mode:
        use(model, batch.x, tree_map(lambda value: value, instance.given(len(batch.x))))
        learn(model.train(), batch)
    assert not mode.found


def test_the_guard_sees_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = moved(KINDS[RBM].build())
    with no_double(monkeypatch) as mode:
        model.weight.cpu().double()
        torch.zeros(3, dtype=torch.float64)
        assert not mode.found
        model.weight.double()
        torch.zeros(3, dtype=torch.float64, device=model.device)
        assert mode.found
