"""Samplers by name, as the command line takes them."""

from __future__ import annotations

from typing import Any

from zoo.config import bind, near
from zoo.errors import ConfigError
from zoo.samplers.ancestral import Ancestral
from zoo.samplers.base import Sampler
from zoo.samplers.ddim import DDIM
from zoo.samplers.dpm import DPMSolver
from zoo.samplers.euler import Euler
from zoo.samplers.gibbs import Gibbs
from zoo.samplers.heun import Heun

NAMES: dict[str, type[Sampler]] = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "dpm++2m": DPMSolver,
    "euler": Euler,
    "gibbs": Gibbs,
    "heun": Heun,
}


def named(name: str, **arguments: Any) -> Sampler:
    """The sampler of a name with some of its arguments: `named("ddim", steps=20)`.

    Raises:
        ConfigError: There is no such sampler, or it does not take such an argument or value.
    """
    if name not in NAMES:
        raise ConfigError(f"sampler: no sampler {name!r}; {near(name, NAMES)}")
    return NAMES[name](**bind(NAMES[name], arguments, f"sampler: {name}"))
