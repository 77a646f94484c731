"""Training: the common Trainer, recipes and fine-tuning."""

import lazy_loader

import zoo.compatibility  # noqa: F401 - before Lightning

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
