"""Samplers by name, as the command line takes them: the name of the class in lower case."""

from __future__ import annotations

import inspect
from typing import Any

import zoo.samplers
from zoo.config import bind, near
from zoo.errors import ConfigError
from zoo.samplers.base import Sampler


def named(name: str, **arguments: Any) -> Sampler:
    """Makes the sampler with this name and these arguments, such as `named("ddim", steps=20)`.

    Raises:
        ConfigError: There is no such sampler, or it does not take such an argument or value.
    """
    exported = (getattr(zoo.samplers, title) for title in dir(zoo.samplers))
    kinds = {
        kind.__name__.lower(): kind
        for kind in exported
        if isinstance(kind, type) and issubclass(kind, Sampler) and not inspect.isabstract(kind)
    }
    if name not in kinds:
        raise ConfigError(f"sampler: no sampler {name!r}; {near(name, kinds)}")
    return kinds[name](**bind(kinds[name], arguments, f"sampler: {name}"))
