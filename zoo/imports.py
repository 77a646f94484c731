"""Lightning beside a torchvision that was built for another torch; imported before it.

Such a torchvision raises when it is imported, and torchmetrics, which Lightning imports, imports whatever is installed.
Meanwhile an empty package stands in for it. Afterwards it raises again, for whoever really needs it; the zoo does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Empty(ModuleType):
    """Has every name, as a class: torch-fidelity, which torchmetrics imports, inherits from some."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


class _StandIn(MetaPathFinder, Loader):
    """Imports torchvision and everything in it as empty."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    pass
except Exception:  # such as RuntimeError: operator torchvision::nms does not exist
    _forget()  # what it left half imported
    sys.meta_path.insert(0, stand_in := _StandIn())
    try:
        import lightning  # noqa: F401
    finally:
        sys.meta_path.remove(stand_in)
        _forget()
