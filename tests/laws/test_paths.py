"""Paths and files, wherever the zoo takes or writes them: one function expands paths, and one writes files."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo import Zoo
from zoo.data import MNIST, Arrays, ImageFolder
from zoo.data.image_files import read_image
from zoo.errors import ConfigError
from zoo.metrics.extractors import Inception
from zoo.metrics.score import score
from zoo.pictures import save_grid
from zoo.store.checkpoint import Checkpoint
from zoo.store.recipes import read_recipe
from zoo.training import Trainer
from zoo.training.finetune import finetune
from zoo.training.recipe import fit, load_recipe, make
from zoo.vae import VAE

SIZES = {"event_shape": [1, 8, 8], "latent_dim": 2, "channels": 4, "hidden": 4, "likelihood": "discretized-logistic"}
RECIPE = {
    "data": {"class": "Digits", "batch_size": 500},
    "model": {"class": "vae.VAE", **SIZES},
    "trainer": {"max_steps": 1, "accelerator": "cpu", "progress": False, "sample_grids": False},
}
SHORT = {"trainer.accelerator": "cpu", "trainer.progress": False, "evaluation.k": 1}


def tuned(folder: str) -> object:
    return finetune("local-dir:~/there", "~/x.npy", folder, steps=1, overrides={**SHORT, "data.batch_size": 8})


WRITERS: dict[str, Callable[[str], object]] = {
    "Zoo.save": lambda path: Zoo.save(VAE(**SIZES), path),
    "save_grid": lambda path: save_grid(torch.zeros(1, 1, 4, 4), f"{path}.png"),
    "Trainer": lambda path: Trainer(path, max_steps=1, accelerator="cpu"),
    "fit": lambda path: fit(RECIPE, path),
    "make": lambda path: make(RECIPE, path),
    "finetune": tuned,
}
READERS: dict[str, Callable[[str], object]] = {
    "ImageFolder": lambda path: ImageFolder(f"{path}/images"),
    "Arrays": lambda path: Arrays(f"{path}/x.npy"),
    "score": lambda path: score(Zoo.info("local-dir:~/there"), f"{path}/x.npy", k=1),
    "read_image": lambda path: read_image(f"{path}/images/0.png", (1, 8, 8)),
    "load_recipe": lambda path: load_recipe(f"{path}/there/recipe.yaml"),
    "read_recipe": lambda path: read_recipe(Path(f"{path}/there/recipe.yaml")),
    "of_folder": lambda path: Checkpoint.of_folder(f"{path}/there").load(),
    "Zoo.load": lambda path: Zoo.load(f"local-dir:{path}/there"),
    "root": lambda path: MNIST(root=path),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder, which holds all that there is to read; the working folder is another one."""
    folder = tmp_path / "home"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8)
    np.save(folder / "x.npy", x)
    Image.fromarray(x[0, 0]).save(folder / "images/0.png")
    Zoo.save(VAE(**SIZES), folder / "there", recipe=RECIPE)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.mark.parametrize("name", [*WRITERS, *READERS])
def test_every_path_may_begin_with_the_home_folder(name: str, home: Path) -> None:
    if name in WRITERS:
        WRITERS[name]("~/new")
        assert name == "Trainer" or [path for path in home.iterdir() if path.name.startswith("new")]
    else:
        READERS[name]("~")
    assert not [*Path.cwd().iterdir()]


@pytest.mark.parametrize("name", [*WRITERS, *READERS, "Inception"])
def test_no_path_may_be_an_address(name: str, home: Path) -> None:
    calls = {**WRITERS, **READERS, "Inception": Inception}
    if name == "Inception":
        pytest.importorskip("torch_fidelity")
    before = sorted(home.rglob("*"))
    with pytest.raises(ConfigError, match=r"'s3://?bucket.*: expected a path on this machine, found an address"):
        calls[name]("s3://bucket/folder")
    assert not [*Path.cwd().iterdir()] and sorted(home.rglob("*")) == before


def test_a_full_disk_leaves_a_picture_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_grid(torch.zeros(1, 1, 4, 4), tmp_path / "x.png")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_grid(torch.ones(1, 1, 4, 4), path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    with pytest.raises(ConfigError, match=r"x\.xyz: cannot write a picture there: unknown file extension: \.xyz"):
        save_grid(torch.ones(1, 1, 4, 4), tmp_path / "x.xyz")


def test_files_are_written_in_one_place() -> None:
    """Whatever else the package opens, it reads; contents are made in memory, and `zoo.files` writes them."""
    writes = re.compile(
        r"""\.write_(text|bytes)\(|open\([^)]*["'](w|a|x|r\+)b?["']|\.(save|savefig)\((path|self\.path)"""
    )
    package = Path(zoo.__file__).parent
    found = [path.name for path in package.rglob("*.py") if writes.search(path.read_text())]
    assert found == ["files.py"]
