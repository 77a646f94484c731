"""The laws as tests of pytest: see `zoo.laws`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from zoo.errors import ZooError
from zoo.laws.law import LAWS, Law, LawError
from zoo.laws.report import find_model, judge, title_of
from zoo.laws.subject import Subject


class LawItem(pytest.Item):
    """One law of the model of `--zoo-model`."""

    def __init__(self, *, law: Law, subject: Subject, **settings: Any) -> None:
        super().__init__(**settings)
        self.law = law
        self.subject = subject

    def runtest(self) -> None:
        verdict = judge(self.law, self.subject)
        if verdict.status == "does not apply":
            pytest.skip(verdict.detail)
        if verdict.status == "failed":
            raise LawError(f"{verdict.law}: {verdict.detail}")

    def repr_failure(self, excinfo: Any, *_: Any) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, LawError) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, f"{title_of(self.subject)}: {self.law.title}"


def tests_of(session: pytest.Session) -> Iterator[LawItem]:
    """A test for each law."""
    options = session.config.option
    try:
        subject = find_model(options.zoo_model, options.zoo_arguments)
    except ZooError as error:
        raise pytest.UsageError(f"--zoo-model: {error}") from None
    for name, law in LAWS.items():
        yield LawItem.from_parent(session, name=f"{subject.cls.__name__}::{name}", law=law, subject=subject)
