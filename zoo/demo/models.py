"""The checkpoints that the page offers, by what they can do."""

from __future__ import annotations

from functools import lru_cache

from zoo.capabilities import Conditional, GenerativeModel
from zoo.errors import ConfigError
from zoo.store.checkpoint import Checkpoint
from zoo.store.zoo import Zoo

KEPT = 8
"""Number of models that stay in memory."""


class Models:
    """The pretrained checkpoints. What they can do is read without their weights, which `load` reads when asked to.

    Args:
        device: Where to put the models.

    Attributes:
        all: The checkpoints by name.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.all: dict[str, Checkpoint] = {name: Zoo.info(name) for name in Zoo.list()}
        self._device = device
        self._loaded = lru_cache(maxsize=KEPT)(self._load)

    def __getitem__(self, name: str) -> Checkpoint:
        """The checkpoint of this name; ConfigError if there is none."""
        if name not in self.all:
            raise ConfigError(f"expected the name of a checkpoint, found {name!r}; choose one of the list")
        return self.all[name]

    def names(self, *capabilities: type, images: bool = True) -> list[str]:
        """Names of the checkpoints that have all capabilities, and that are models of images unless `images` is False.

        Capabilities are types of `zoo.capabilities`.
        """
        wanted = {capability.__name__ for capability in capabilities}
        return [
            name
            for name, checkpoint in self.all.items()
            if wanted <= set(checkpoint.capabilities) and (not images or len(checkpoint.arguments["event_shape"]) == 3)
        ]

    def classes(self, name: str) -> list[str]:
        """Names or numbers of the classes that a conditional model draws; none for other models."""
        if Conditional.__name__ not in self[name].capabilities:
            return []
        model = self.load(name)
        assert isinstance(model, Conditional)
        return self[name].classes or [str(label) for label in range(model.num_classes)]

    def load(self, name: str) -> GenerativeModel:
        """The model of a checkpoint."""
        return self._loaded(name)

    def _load(self, name: str) -> GenerativeModel:
        model = self[name].load(device=self._device)
        if not isinstance(model, GenerativeModel):
            raise ConfigError(f"{name}: expected a model that draws, found {type(model).__name__}; choose another")
        return model
