"""An installed package that offers a model class, as other people's packages do."""

import sys
from pathlib import Path

import pytest

PACKAGE = "their-package"


def install(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> str:
    """Puts a package with a class of that name on the path, and returns the name of the class in configurations."""
    module = f"their_{name.lower()}"
    (root / "site").mkdir()
    (root / "site" / f"{module}.py").write_text(source)
    info = root / "site" / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zoo.models]\n{name} = {module}:{name}\n")
    monkeypatch.syspath_prepend(str(root / "site"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop(module, None)
    return f"{PACKAGE}:{name}"
