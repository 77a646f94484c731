"""The laws that every model obeys, as its capabilities state them, for anyone's model.

`zoo.laws.report.check` tries them all; `zoo check my_module:MyModel` does so on the command line. This package is a
plugin of pytest, too: `pytest --zoo-model my_module:MyModel` adds one test for each law. It imports torch only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zoo", "laws of generative models")
    group.addoption("--zoo-model", metavar="MODULE:CLASS", help="Test the laws of generative models on this class")
    group.addoption("--zoo-arguments", metavar="JSON", help="Arguments of its constructor, as a JSON object")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[Any]) -> None:
    if config.getoption("--zoo-model"):
        from zoo.laws.items import tests_of

        items += tests_of(session)
