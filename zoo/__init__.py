"""Generative models for PyTorch Lightning, with pretrained checkpoints: `from zoo import Zoo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.store.zoo import Zoo as Zoo

__version__ = "0.1.0"
__all__ = ["Zoo", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Zoo":
        from zoo.store.zoo import Zoo

        return Zoo
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
