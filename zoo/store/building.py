"""Builds models whose weights come from a file, first without memory and then without initial values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from zoo.capabilities import ZooModule
from zoo.config import brief
from zoo.errors import ConfigError, ZooError
from zoo.store.weights import Layout

MAX_CALLS = 6_000
"""Largest number of calls of torch functions in a constructor, enough for several hundred layers."""
MAX_BUFFERS = 2**28
"""Largest size of the buffers that a model computes in its constructor, in bytes."""


class _Construction(TorchFunctionMode):
    """Skips random initial values, which the file overwrites, and limits the number of calls.

    Args:
        sketch: Whether the model is built on the device `meta`, where generators do not work and are ignored.
    """

    def __init__(self, sketch: bool = False) -> None:
        super().__init__()
        self.sketch = sketch
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise ValueError("more layers than any model of the zoo has")
        name = getattr(func, "__name__", "")
        if name.endswith("_") and ("uniform" in name or "normal" in name) and kwargs.get("generator") is None:
            return args[0] if args else kwargs["tensor"]
        if self.sketch and "generator" in kwargs:
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"}
        return func(*args, **kwargs)


def sketch(cls: type[ZooModule], arguments: dict[str, Any], where: str) -> Layout:
    """Builds `cls(**arguments)` on the device `meta`, without memory for its tensors.

    Args:
        cls: The class.
        arguments: Its arguments.
        where: Beginning of the error message, such as the name of the file.

    Returns:
        The dtype and the shape of each tensor in its state by name.

    Raises:
        ConfigError: The arguments do not make a model, or make one that is too large.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _in_float32(), _Construction(sketch=True):
            model = cls(**arguments)
    except ZooError as exc:
        raise ConfigError(f"{where}: {exc}") from None
    except Exception as exc:  # constructors raise errors of all types for impossible values
        reason = (str(exc).splitlines() or [type(exc).__name__])[0][:200]
        raise ConfigError(
            f"{where}: {cls.__name__} cannot have the arguments {brief(arguments, 200)}: {reason}"
        ) from exc
    state = model.state_dict()
    own = sum(buffer.numel() * buffer.element_size() for name, buffer in model.named_buffers() if name not in state)
    if own > MAX_BUFFERS:
        raise ConfigError(
            f"{where}: {cls.__name__} with the arguments {brief(arguments, 200)} would need {own} bytes of buffers, "
            f"expected at most {MAX_BUFFERS}"
        )
    return {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in state.items()}


def build(cls: type[ZooModule], arguments: dict[str, Any]) -> ZooModule:
    """Builds `cls(**arguments)` with the buffers that files do not hold, without initial weights or random draws."""
    with torch.random.fork_rng(devices=[]), _in_float32(), _Construction():
        return cls(**arguments)


@contextmanager
def _in_float32() -> Iterator[None]:
    """Makes float32 the default dtype, as in files, whatever `torch.set_default_dtype` has set."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def device_of(device: str) -> torch.device:
    """Returns the `torch.device` with this name.

    Raises:
        ConfigError: This machine has no such device.
    """
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, TypeError) as exc:
        reason = str(exc).splitlines()[0].split(". ")[0]  # the first sentence
        raise ConfigError(
            f"device: expected a device of this machine such as 'cpu', found {brief(device)}: {reason}"
        ) from None
    return target
