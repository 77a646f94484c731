"""The notebooks run from the first cell to the last, as in Jupyter."""

import os
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from zoo.cli.command import COMMANDS

NOTEBOOKS = sorted(Path(__file__).parents[2].glob("docs/notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parents[2]), os.environ.get("PYTHONPATH", "")]))
    book = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "clear the outputs before you commit"
    NotebookClient(book, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for cell in book.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_in_the_text_are_understood(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for line in re.findall(r"^(zoo [a-z].*)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else ():
            _, verb, *rest = shlex.split(line)
            COMMANDS[verb].parser().parse_args(rest)  # exits if it does not understand them


def test_all_three_are_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["add_a_model", "own_data", "tour"]
