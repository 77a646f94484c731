"""Ways to draw from a model: values that are handed to `sample`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
