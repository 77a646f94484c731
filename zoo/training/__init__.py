"""Training: the common Trainer, how models are optimised, and recipes."""

from typing import TYPE_CHECKING, Any

import zoo.compatibility  # noqa: F401

if TYPE_CHECKING:
    from zoo.optim.optimization import Optimization as Optimization
    from zoo.training.trainer import Trainer as Trainer


def __getattr__(name: str) -> Any:  # zoo.capabilities imports `optimization` from here, and `trainer` imports it
    if name == "Trainer":
        from zoo.training.trainer import Trainer

        return Trainer
    if name == "Optimization":
        from zoo.optim.optimization import Optimization

        return Optimization
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
