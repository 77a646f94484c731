"""All laws on one model, and what came of it, in plain words."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from zoo.config import bind, brief, parse_json, reason
from zoo.errors import ConfigError
from zoo.laws import bounds, densities, drawing, training  # noqa: F401 - they fill the table of laws
from zoo.laws.law import LAWS, Law, LawError
from zoo.laws.subject import Subject
from zoo.module import ZooModule

Status = Literal["failed", "held", "does not apply"]
"""In the order in which a report shows them."""


@dataclass(frozen=True)
class Verdict:
    """What came of a law.

    Attributes:
        law: Statement of the law.
        status: Whether the model obeys it.
        detail: The measured figure, or why the law does not apply.
    """

    law: str
    status: Status
    detail: str

    def __str__(self) -> str:
        return f"{self.status:14}  {self.law} ({self.detail})"


@dataclass(frozen=True)
class Report:
    """The verdicts of all laws on a model.

    Attributes:
        model: Name of the class and its arguments.
        verdicts: In the order of `LAWS`.
    """

    model: str
    verdicts: list[Verdict]

    @property
    def failed(self) -> list[Verdict]:
        """The laws that the model breaks."""
        return [verdict for verdict in self.verdicts if verdict.status == "failed"]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        num = Counter(verdict.status for verdict in self.verdicts)
        summary = f"{num['held']} laws held, {num['failed']} failed, {num['does not apply']} do not apply"
        shown = sorted(self.verdicts, key=lambda verdict: get_args(Status).index(verdict.status))
        return "\n".join([self.model, "", *map(str, shown), "", summary])


def judge(law: Law, subject: Subject) -> Verdict:
    """Tries one law on a model. Whatever the model raises is a failure, too."""
    try:
        if why := law.why_not(subject):
            return Verdict(law.title, "does not apply", why)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Verdict(law.title, "held", law.check(subject))
    except LawError as error:
        return Verdict(law.title, "failed", str(error))
    except Exception as error:  # of a model that may do anything
        return Verdict(law.title, "failed", f"raised {type(error).__name__}: {reason(error, 300)}")


def verdicts(subject: Subject) -> Iterator[Verdict]:
    """Tries every law on a model, one after the other."""
    return (judge(law, subject) for law in LAWS.values())


def check(model: type[ZooModule], arguments: dict[str, Any] | None = None) -> Report:
    """Tries every law on a model.

    Args:
        model: Class of the model.
        arguments: Arguments of its constructor. Choose a model that is small: 3 x 3 pixels, or points in the plane.

    Raises:
        ConfigError: The class is abstract, it does not take these arguments, or its constructor fails.
    """
    subject = subject_of(model, arguments or {}, model.__name__)
    return Report(title_of(subject), list(verdicts(subject)))


def title_of(subject: Subject) -> str:
    """The model in one line."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in subject.arguments.items())
    return f"{subject.cls.__name__}({arguments})"


def find_model(name: str, arguments: str | None = None) -> Subject:
    """The model of a command line.

    Args:
        name: `module:Class`; modules of the working directory can be imported, too.
        arguments: Arguments of the constructor, a JSON object; by default, none.

    Raises:
        ConfigError: There is no such class, it is no model, or it does not take these arguments.
    """
    module_name, _, title = name.partition(":")
    if not title:
        raise ConfigError(f"expected module:Class, such as my_package.my_module:MyModel, found {brief(name)}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # of code that may do anything
        raise ConfigError(f"{module_name}: cannot be imported: {type(error).__name__}: {reason(error)}") from error
    cls = getattr(module, title, None)
    if not (isinstance(cls, type) and issubclass(cls, ZooModule)):
        found = "no such name" if cls is None else brief(cls)
        raise ConfigError(f"{name}: expected a class of models, below zoo.capabilities, found {found}")
    return subject_of(cls, {} if arguments is None else parse_json(arguments.encode(), "--arguments"), name)


def subject_of(cls: type[ZooModule], arguments: dict[str, Any], name: str) -> Subject:
    """A model to check; see `check`."""
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"{name}: expected a model that can be built; its capabilities ask for {missing}")
    arguments = bind(cls, arguments, name)
    try:
        return Subject.of(cls, arguments)
    except Exception as error:  # of a model that may do anything
        raise ConfigError(f"{name}: cannot be built: {type(error).__name__}: {reason(error)}") from error
