"""Names of model classes. `vae.VAE` is the class that `from zoo.vae import VAE` imports.

The classes of a family are those that `zoo/FAMILY/__init__.pyi` exports. A name cannot lead to any other code, except
to classes of packages that the caller names.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from zoo.config import brief, near
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.module import ZooModule

FAMILIES = ("density", "autoregressive", "vae", "gan", "flows", "boltzmann", "energy", "diffusion", "classifier")
"""Packages of the zoo that export models."""

GROUP = "zoo.models"
"""The group of entry points in which other packages offer models: `MyModel = "my_package.my_module:MyModel"`."""

_OLD = re.compile(r"zoo\.([a-z]+)\.[a-z][a-z0-9_]*\.([A-Z][A-Za-z0-9]*)", re.ASCII)  # in format 1, the path of a class


def modern(name: object) -> object:
    """Converts a name of format 1, such as `zoo.vae.vae.VAE`, to format 2. Other values are returned unchanged."""
    found = _OLD.fullmatch(name) if isinstance(name, str) and len(name) < 200 else None
    return f"{found[1]}.{found[2]}" if found else name


def find_class(name: object, where: str, plugins: Collection[str] = ()) -> type[ZooModule]:
    """Returns the model class with this name.

    Args:
        name: `family.Class` for a class of the zoo, or `package:Class` for a class of another package.
        where: Beginning of the error message, such as the name of the file.
        plugins: Names of the installed packages whose classes may be used.

    Raises:
        ConfigError: There is no such class, or it belongs to a package that is not in `plugins`.
    """
    found = check_name(name, where, plugins)
    if isinstance(found, EntryPoint):
        cls = found.load()
    else:
        family, title = found
        cls = getattr(importlib.import_module(f"zoo.{family}"), title)
    from zoo.module import ZooModule

    if not (isinstance(cls, type) and issubclass(cls, ZooModule) and not inspect.isabstract(cls)):
        raise ConfigError(f"{where}: expected a model, found {name!r}, which is not a class of models")
    return cls


def check_name(name: object, where: str, plugins: Collection[str] = ()) -> tuple[str, str] | EntryPoint:
    """Checks the name of a model class without importing torch; see `find_class`.

    Returns:
        The family and the class, or the entry point of the package that offers the class.
    """
    name = modern(name)
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}[.:]\w{1,100}", name, re.ASCII):
        raise ConfigError(f"{where}: expected a class of the zoo such as 'vae.VAE', found {brief(name)}")
    if ":" in name:
        return _of_plugin(name, where, plugins)
    family, _, title = name.rpartition(".")
    if family not in FAMILIES:
        raise ConfigError(f"{where}: expected a class of the zoo such as 'vae.VAE', found {brief(name)}")
    known = importlib.import_module(f"zoo.{family}").__all__
    if title not in known:
        hint = near(title, known)
        raise ConfigError(f"{where}: this version of the zoo has no class {name!r}; update the zoo, or {hint}")
    return family, title


def name_of(cls: type) -> str:
    """Returns the name of a model class; the inverse of `find_class`.

    Raises:
        ConfigError: Neither the zoo nor an installed package exports the class.
    """
    family = cls.__module__.split(".")[1] if cls.__module__.startswith("zoo.") else ""
    if family in FAMILIES and getattr(importlib.import_module(f"zoo.{family}"), cls.__name__, None) is cls:
        return f"{family}.{cls.__name__}"
    for point in entry_points(group=GROUP):
        if point.value == f"{cls.__module__}:{cls.__qualname__}":
            return f"{_package(point)}:{point.name}"
    raise ConfigError(
        f"{cls.__module__}.{cls.__qualname__}: expected a class of the zoo, or one that an installed package offers "
        f"under the entry points {GROUP!r}; others cannot be loaded again"
    )


def _of_plugin(name: str, where: str, plugins: Collection[str]) -> EntryPoint:
    package, _, title = name.partition(":")
    if package not in plugins:
        raise ConfigError(
            f"{where}: the model is {title} of the package {package!r}; if you trust that package, install it and pass "
            f"plugins=[{package!r}]"
        )
    for point in entry_points(group=GROUP):
        if (_package(point), point.name) == (package, title):
            return point
    raise ConfigError(f"{where}: the package {package!r} is not installed, or offers no model {title!r}")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else ""
