"""README.md, the pages of the site and CONTRIBUTING.md are followed to the letter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PORT
from hub_server import Hub

from zoo import Zoo
from zoo.cli import main
from zoo.measurement import rounded

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

# what the test adds to a command that would take long: the command itself stays as it stands in the page
SHORTER = {
    "zoo reproduce": ["--slice"],
    "zoo evaluate": ["--slice"],
    "zoo finetune": ["--steps", "4"],
    "zoo receptive-field": ["-n", "2"],
    "zoo fit": ["--trainer.limit_train_batches", "10", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"],
}
NEEDS_DATA = "needs the data set"
"""What a page says beside each command that needs one; others must work without."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[tuple[str, bool]]:
    """`zoo` commands of a page, in its code blocks and in its text, and whether they need a data set."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    inline = re.findall(r"`(zoo [^`\n]+)`", page)
    whole = [(line.split("#")[0].strip(), NEEDS_DATA in line) for line in lines + inline]
    full = [(line, needs) for line, needs in whole if line.startswith("zoo ") and "NAME" not in line]
    return [(line, needs) for line, needs in full if len(line.split()) > 2 or line == "zoo list"]


def on_pages(find: Any, *arguments: str) -> list[Any]:
    """What is found on each page, with the name of the page in the name of the test."""
    return [
        pytest.param(*(found if isinstance(found, tuple) else (found,)), id=f"{page.stem}-{number}")
        for page in PAGES
        for number, found in enumerate(find(page.read_text(), *arguments))
    ]


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


@pytest.mark.parametrize(("command", "needs_data"), on_pages(commands))
def test_commands_of_pages(
    command: str,
    needs_data: bool,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if needs_data:
        request.getfixturevalue("real_data")
    else:
        monkeypatch.setenv("ZOO_DATA", str(tmp_path / "none"))
    monkeypatch.chdir(place)
    shorter = next((options for start, options in SHORTER.items() if command.startswith(start)), [])
    if "local-dir:my-tuned-vae" in command or "--recorded" in command:
        shorter = []  # the numbers of a fine-tuned model are quick, and compared in full
    run(command, shorter)
    assert not (tmp_path / "none").exists(), "no data were fetched"


@pytest.mark.parametrize("block", on_pages(blocks, "python"))
def test_python_of_pages(block: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    exec(compile(block, "page", "exec"), {})


def test_python_of_pages_has_types(tmp_path: Path) -> None:
    for page in PAGES:
        for number, block in enumerate(blocks(page.read_text(), "python")):
            (tmp_path / f"{page.stem.replace('-', '_')}_{number}.py").write_text(block)
    (tmp_path / "given_a_kind.py").write_text(
        'from zoo import Zoo\nfrom zoo.vae import VAE\n\nvae = Zoo.load("vae-mnist", VAE)\n'
        'reveal_type(vae)\nreveal_type(Zoo.load("vae-mnist"))\nreveal_type(vae.elbo(vae.sample(2)))\n'
        'from zoo.capabilities import Decoder\nreveal_type(Zoo.load("vae-mnist", Decoder))\n'
    )
    words = ["mypy", "--config-file", str(ROOT / "pyproject.toml"), *map(str, tmp_path.glob("*.py"))]
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    kinds = re.findall(r'Revealed type is "(?:\w+\.)*(\w+)"', done.stdout)
    assert kinds == ["VAE", "GenerativeModel", "Tensor", "Decoder"]


def test_rows_of_the_readme_are_what_checkpoints_record() -> None:
    rows = re.findall(
        r"^\| \[`([\w.-]+)`\]\(checkpoints/([\w.-]+)\) \| (.+?) (nats|bits/dim) \| ", README, re.MULTILINE
    )
    assert len(rows) >= 10
    for name, folder, value, unit in rows:
        recorded = [rounded(n.value, n.error) for n in Zoo.info(name).numbers if (n.name, n.unit) == ("nll", unit)]
        assert name == folder and recorded == [value], name


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "MODEL_CARDS.md"]:
        for link in re.findall(r"\]\((?!https?:|#|samples/)([^)#]+)", page.read_text()):
            result = link.replace("pictures/", "../benchmarks/results/")  # `docs/hooks.py` brings these pictures
            assert (page.parent / link).exists() or (page.parent / result).exists(), f"{page.name}: {link}"


def test_files_that_pages_name_are_there() -> None:
    """Paths in backticks, and in rows of CONTRIBUTING's table those that stand below the folder of the first."""
    tops, placeholders = "zoo|tests|docs|recipes|checkpoints|benchmarks", ("checkpoints/NAME", "tests/...")
    named = {
        (page.name, path)
        for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
        for path in re.findall(rf"`((?:{tops})(?:/[\w./-]+)?)`", page.read_text())
    }
    for row in re.findall(r"^\| `(zoo/[^|]+)` \|", CONTRIBUTING, re.MULTILINE):
        named |= {("CONTRIBUTING.md", f"zoo/{path.removeprefix('zoo/')}") for path in row.split("` `")}
    assert len(named) > 30
    assert not [(page, path) for page, path in named if path not in placeholders and not (ROOT / path).exists()]


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_readme_setup_commands_exist() -> None:
    told = re.findall(r"^python3 dev\.py (\w+)", README, re.MULTILINE)
    assert told == ["sample", "test"]
    shown = subprocess.run([sys.executable, ROOT / "dev.py"], capture_output=True, text=True, check=False)
    assert shown.returncode != 0
    assert all(f"dev.py {name} " in shown.stderr for name in told)


def test_contributing_adds_a_model(tmp_path: Path) -> None:
    """The page's file, recipe, commands and lines, in a copy of the source."""
    for name in ("zoo", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    model, export, imported, line = blocks(CONTRIBUTING, "python")
    (tmp_path / "zoo/density/bernoulli.py").write_text(model)
    with (tmp_path / "zoo/density/__init__.pyi").open("a") as file:
        file.write(export)
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
    printed = python("-m", "pytest", "tests/laws/test_models.py", "-k", "IndependentBernoulli")
    assert int(re.findall(r"(\d+) passed", printed)[0]) >= 5
