"""Building a model whose weights come from a file: first without memory, then without initial values."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from zoo.capabilities import ZooModule
from zoo.config import brief
from zoo.errors import ConfigError, ZooError
from zoo.store.weights import Layout

MAX_CALLS = 6_000  # of torch functions in a constructor: some hundred layers
MAX_BUFFERS = 2**28  # bytes of the buffers that a model computes for itself


class _Construction(TorchFunctionMode):
    """Skips random initial values, which the file overwrites, and bounds the work.

    Args:
        sketch: the build is on `meta`, where nothing has values: leave generators out.
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
    """Types and shapes of the state of `cls(**arguments)`, which is built without memory.

    Raises:
        ConfigError: the arguments make no model, or one beyond all bounds.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _Construction(sketch=True):
            model = cls(**arguments)
    except ZooError as exc:
        raise ConfigError(f"{where}: {exc}") from None
    except Exception as exc:  # whatever a constructor raises for values that make no model
        reason = (str(exc).splitlines() or [type(exc).__name__])[0][:200]
        raise ConfigError(f"{where}: no {cls.__name__} has arguments {brief(arguments, 200)}: {reason}") from exc
    state = model.state_dict()
    own = sum(buffer.numel() * buffer.element_size() for name, buffer in model.named_buffers() if name not in state)
    if own > MAX_BUFFERS:
        raise ConfigError(
            f"{where}: {cls.__name__} with arguments {brief(arguments, 200)} would need {own} bytes of buffers"
        )
    return {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in state.items()}


def build(cls: type[ZooModule], arguments: dict[str, Any]) -> ZooModule:
    """`cls(**arguments)` with buffers that no file holds, but without initial weights; draws nothing."""
    with torch.random.fork_rng(devices=[]), _Construction():
        return cls(**arguments)


def device_of(device: str) -> torch.device:
    """The `torch.device` of that name; ConfigError where this machine has none."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, TypeError) as exc:
        reason = str(exc).splitlines()[0].split(". ")[0]  # the first sentence
        raise ConfigError(
            f"device: expected one of this machine, such as 'cpu', found {brief(device)}: {reason}"
        ) from None
    return target
