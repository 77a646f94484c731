"""Checks that the installed torchvision belongs to the installed torch. Import it before Lightning.

Lightning imports torchvision. Where that was built for another torch, the import fails with an error of a library that
the user never called.
"""

from __future__ import annotations

import torch

from zoo.config import reason
from zoo.errors import ConfigError

try:
    import torchvision  # noqa: F401
except Exception as error:  # such as RuntimeError: operator torchvision::nms does not exist
    raise ConfigError(
        f"torchvision: does not belong to the installed torch {torch.__version__} ({reason(error)}); "
        "reinstall both from one index: pip install --force-reinstall torch torchvision"
    ) from error
