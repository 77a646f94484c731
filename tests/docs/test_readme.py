"""README.md and CONTRIBUTING.md are followed to the letter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import PORT
from hub_server import Hub

from zoo.cli import main
from zoo.store.card import render_readme

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

# what the test adds to a command that would take long: the command itself stays as it stands in the page
SHORTER = {
    "zoo reproduce mnist-nll": ["--recorded"],  # test_tables.py finds every number of it again
    "zoo reproduce": ["--slice"],
    "zoo evaluate": ["--slice"],
    "zoo finetune": ["--epochs", "1"],
    "zoo receptive-field": ["-n", "2"],
    "zoo fit": ["--trainer.limit_train_batches", "10", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"],
}
NEEDS_DATA = (
    "zoo reproduce mnist",
    "zoo reproduce cifar10",
    "zoo evaluate gaussian",
    "zoo fit",
    "zoo complete",
    "zoo reconstruct",
    "zoo edit",
    "zoo analogies",
    "zoo attribute",
    "zoo neighbours",
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """`zoo` commands of the page, in its code blocks and in its text, in order."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    inline = re.findall(r"`(zoo [^`\n]+)`", page)
    whole = [line.split("#")[0].strip() for line in lines + inline]
    full = [line for line in whole if line.startswith("zoo ") and "NAME" not in line]
    return [line for line in full if len(line.split()) > 2 or line == "zoo list"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's images, and the checkpoints that the page's relative paths mean."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("user")
    random = np.random.default_rng(0)
    for label in ("circles", "squares"):
        (folder / "my_images" / label).mkdir(parents=True)
        for i in range(20):
            image = Image.fromarray(random.integers(0, 256, (40, 32, 3), np.uint8))
            image.save(folder / "my_images" / label / f"{i}.png")
    for name in ("checkpoints", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module", autouse=True)
def logged_in() -> Iterator[None]:
    """The user of the page has an account."""
    server = Hub(PORT)
    server.tokens["hf_you"] = "you"
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_you")
        yield
    server.stop()


def run(command: str, extra: list[str]) -> None:
    assert main([*shlex.split(command)[1:], *extra]) == 0, command


@pytest.mark.parametrize("command", commands(README))
def test_readme_command(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if command.startswith(NEEDS_DATA):
        request.getfixturevalue("real_data")
    monkeypatch.chdir(place)
    shorter = next((options for start, options in SHORTER.items() if command.startswith(start)), [])
    if "local-dir:my-vae" in command:
        shorter = []  # the numbers of a fine-tuned model are quick, and compared in full
    run(command, shorter)


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_readme_python(block: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile(block, "README.md", "exec"), {})


def test_readme_setup_commands_exist() -> None:
    told = re.findall(r"^python3 dev\.py (\w+)", README, re.MULTILINE)
    assert told == ["sample", "test"]
    shown = subprocess.run([sys.executable, ROOT / "dev.py"], capture_output=True, text=True, check=False)
    assert shown.returncode != 0
    assert all(f"dev.py {name} " in shown.stderr for name in told)


def test_readme_table_is_fresh() -> None:
    assert render_readme(README) == README, "run `python -m zoo.store.release`"


def test_contributing_adds_a_model(tmp_path: Path) -> None:
    """The page's file, recipe, commands and lines, in a copy of the source."""
    for name in ("zoo", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    model, imported, line = blocks(CONTRIBUTING, "python")
    (tmp_path / "zoo/density/bernoulli.py").write_text(model)
    (recipe,) = blocks(CONTRIBUTING, "yaml")
    (tmp_path / "bernoulli-digits.yaml").write_text(recipe)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    words = [shlex.split(command)[1:] for block in blocks(CONTRIBUTING, "bash") for command in block.splitlines()]
    printed = python("-c", f"from zoo.cli import main; assert not any(main(words) for words in {words})")
    assert "nll" in printed
    assert "no number differs" in printed
    assert (tmp_path / "bernoulli.png").exists()

    instances = tmp_path / "tests/laws/instances.py"
    text = instances.read_text()
    changed = text.replace("INSTANCES = [\n", f"{imported}\nINSTANCES = [\n{line}")
    assert changed != text
    instances.write_text(changed)
    printed = python("-m", "pytest", "tests/laws/test_models.py", "-q", "-k", "IndependentBernoulli")
    assert int(re.findall(r"(\d+) passed", printed)[0]) >= 5
