"""The `zoo` command, end to end: every command on small stand-ins, and the pictures of every shipped checkpoint."""

import argparse
import csv
import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps

import zoo
from zoo import Zoo, denoising, latents
from zoo.autoregressive.gated_pixelcnn import ConditionalGatedPixelCNN
from zoo.autoregressive.made import MADE
from zoo.capabilities import Conditional, GenerativeModel
from zoo.cli import main, measure
from zoo.cli.command import COMMANDS, GROUPS, option
from zoo.cli.command import command as made_of
from zoo.cli.options import NAME, checkpoint_of, given
from zoo.data import Arrays, Digits, ImageFolder, own
from zoo.data.image_files import decode, read_image
from zoo.density.gaussian import Gaussian
from zoo.diffusion import ConditionalEDM
from zoo.errors import ConfigError
from zoo.metrics import evaluate as evaluate_module
from zoo.metrics import tables
from zoo.metrics.names import GROUPS as GROUP_NAMES
from zoo.metrics.names import TABLES as TABLE_NAMES
from zoo.pictures import save_grid
from zoo.random import Streams, seed_from
from zoo.samplers import DDIM
from zoo.samplers.base import Sampler
from zoo.store import save as save_module
from zoo.store.checkpoint import WEIGHTS, Checkpoint
from zoo.training.callbacks import LogMeans
from zoo.training.recipe import load_recipe
from zoo.vae.conditional_vae import ConditionalVAE
from zoo.vae.vae import VAE

DATA = {"class": "Digits", "batch_size": 256}
VAE_RECIPE = {
    "name": "vae",
    "seed": 3,
    "data": DATA,
    "model": {
        "class": "vae.VAE",
        "event_shape": [1, 8, 8],
        "latent_dim": 3,
        "channels": 8,
        "hidden": 8,
        "likelihood": "discretized-logistic",
    },
    "optimization": {"lr": 1e-3},
    "trainer": {"max_epochs": 5, "progress": False, "accelerator": "cpu"},
    "evaluation": {"k": 6, "draws": 2},
}
SHORT = ["--steps", "4", "--data.batch_size", "8", "--evaluation.k", "1"]
QUIET = ["--trainer.progress=false", "--trainer.accelerator", "cpu"]
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `zoo WORDS`, which must end well, and gives what it prints."""

    def call(*words: object) -> str:
        capsys.readouterr()
        status = main([str(word) for word in words])
        output = capsys.readouterr()
        assert status == 0, output.err
        return output.out

    return call


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `zoo WORDS`, which must end badly, and gives the one line that it says."""

    def call(*words: object) -> str:
        capsys.readouterr()
        status = main([str(word) for word in words])
        output = capsys.readouterr()
        assert status == 1 and output.err.count("\n") == 1 and output.err.startswith("zoo: "), output
        return output.err

    return call


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, the checkpoint `vae` that it makes in one epoch, and other checkpoints, untrained."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "vae.yaml").write_text(yaml.safe_dump(VAE_RECIPE))
    assert main(["fit", str(folder / "vae.yaml"), "--trainer.max_epochs", "1", "--out", str(folder / "vae")]) == 0
    torch.manual_seed(0)
    made = MADE(event_shape=[1, 8, 8], hidden=16, num_masks=2)
    Zoo.save(made, folder / "made", recipe={"name": "made", "data": {**DATA, "binarize": True}})
    sizes = {"event_shape": [1, 8, 8], "latent_dim": 3, "channels": 8, "hidden": 8}
    conditional = ConditionalVAE(**sizes, likelihood="discretized-logistic")
    Zoo.save(conditional, folder / "conditional", recipe={"name": "conditional", "data": DATA})
    gated = ConditionalGatedPixelCNN(event_shape=[1, 8, 8], channels=4, num_layers=1, hidden=4)
    Zoo.save(gated, folder / "gated", recipe={"name": "gated", "data": {**DATA, "binarize": True}})
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of PNG files, 12 x 10 pixels, in nested folders that are their labels."""
    generator = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "images" / ("even", "odd")[i % 2] / f"part{i % 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (12, 10), np.uint8)).save(path)
    return tmp_path / "images"


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "arrays.npz", x=x)
    return tmp_path / "arrays.npz"


def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def size(path: Path) -> tuple[int, int]:
    """Columns and rows of a grid of 8x8 images."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
    return (width // 2 - 2) // 10, (height // 2 - 2) // 10


# ------------------------------------------------------------------------------------------------------ looking around


def test_quick_answers_import_neither_torch_nor_lightning(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_text("old")
    answered = ["list", "list --json", "list gaussian-*", "info gaussian-mnist", "--help", "demo --help", "--version"]
    refused = [
        "",
        "sampel gaussian-mnist",
        "info gaussian-mnis",
        "sample gaussian-mnis",
        "evaluate gaussian-mnis",
        f"sample gaussian-mnist --out {tmp_path}/there.png",
        f"traverse vae-mnist --out {tmp_path}/there.png",
        f"complete made-binarized-mnist --out {tmp_path}/picture.xyz",
        f"score gaussian-mnist --data x.npy --out {tmp_path}/there.png",
        f"fit recipe.yaml --out {tmp_path}",
        f"finetune gaussian-mnist --data x.npy --out {tmp_path}",
        "reconstruct vae-mnist --num 0",
        "sample local-dir:nowhere",
        "finetune gaussian-mnist --data nowhere --out new",
        "score gaussian-mnist --data nowhere",
        "interpolate vae-mnist --images a.png b.png",
        "evaluate gaussian-mnist --only likelyhood",
        "reproduce mnist-nil",
        "fit nowhere.yaml --out new",
        "fit gaussian-mnis --out new",
        "push gaussian-mnist nobody",
        "pull hf-hub:nobody",
        "fit gaussian-mnist --out new --trainr.max_epochs 2",
        "fit gaussian-mnist --out new --model.class density.Gausian",
        "fit gaussian-mnist --out new --model.class some-package:Model",
        "finetune gaussian-mnist --data . --out new --trainr.max_epochs 2",
        "sample conditional-edm-mnist --sampler ddmi",
        "sample gan-mnist --sampler ddim",
        "sample gan-mnist --eta 0.5",
        "sample gan-mnist --device cdua",
    ]
    code = f"""
import sys
import zoo
from zoo.cli import main
zoo.Zoo.list()
for words in {answered}:
    assert main(words.split()) == 0, words
for words in {refused}:
    assert main(words.split()) == 1, words
heavy = {{"torch", "lightning", "torchvision", "torchmetrics", "numpy", "gradio"}}
print("loaded", *sorted(heavy & sys.modules.keys()))
"""
    root = Path(zoo.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "gaussian-mnist" in done.stdout and done.stdout.splitlines()[-1] == "loaded", done.stdout
    assert done.stderr.count("\n") == len(refused), done.stderr
    assert (tmp_path / "there.png").read_text() == "old" and len([*tmp_path.iterdir()]) == 1


def test_names_of_groups_and_tables_are_those_of_the_registries() -> None:
    assert tuple(evaluate_module.GROUPS) == GROUP_NAMES
    assert tuple(tables.TABLES) == TABLE_NAMES


def test_fit_runs_the_recipe_of_a_checkpoint_again(home: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    run("fit", f"local-dir:{home / 'vae'}", "--out", tmp_path / "again")
    assert weights(tmp_path / "again") == weights(home / "vae")
    bare = Zoo.save(MADE(event_shape=[1, 8, 8], hidden=16, num_masks=2), tmp_path / "bare")
    assert "expected a checkpoint with a recipe" in fail("fit", f"local-dir:{bare}", "--out", tmp_path / "x")


def test_recipes_of_the_zoo_are_found_wherever_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a wheel they are folders of the package; a file of the same name below the working folder comes first."""
    monkeypatch.chdir(tmp_path)
    root = Path(zoo.__file__).parents[1]
    installed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert installed["force-include"] == {"checkpoints": "zoo/checkpoints", "recipes": "zoo/recipes"}
    names = ["recipes/nade-binarized-mnist.yaml", "checkpoints/gaussian-mnist/recipe.yaml"]
    assert [load_recipe(name) for name in names] == [load_recipe(root / name) for name in names]
    assert load_recipe("gaussian-mnist") == load_recipe(root / names[1])
    (tmp_path / "recipes").mkdir()
    (tmp_path / names[0]).write_text("{data: {class: Digits}, start: vae-mnist}")
    assert load_recipe(names[0])["start"] == "vae-mnist"


def test_help_lists_every_command_under_its_heading(run: Run) -> None:
    sections = re.split(r"^(\w+)\n(?=  )", run("--help").split("options:")[0], flags=re.MULTILINE)
    assert tuple(sections[1::2]) == GROUPS
    for heading, text in zip(sections[1::2], sections[2::2], strict=True):
        lines = text.rstrip().splitlines()
        assert [line.split()[0] for line in lines] == [c.name for c in COMMANDS.values() if c.group == heading]
        assert all(len(line) <= 80 and len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help(name: str, run: Run) -> None:
    text = run(name, "--help")
    assert COMMANDS[name].help[0].endswith(".") and text.startswith(f"usage: zoo {name} ")
    assert all(action.help for action in COMMANDS[name].parser()._actions)


def test_a_command_is_a_function_in_one_place(run: Run, fail: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.cli.command.COMMANDS", commands := {})

    @made_of("Look", NAME, option("--loud", action="store_true", help="Shout"))
    def size_of(options: argparse.Namespace) -> None:
        """Print the size of a checkpoint.

        In bytes.
        """
        print(checkpoint_of(options).size, "!" if options.loud else ".")

    for name, made in commands.items():
        monkeypatch.setitem(COMMANDS, name, made)
    assert "\n  size-of          Print the size of a checkpoint\n" in run("--help")
    assert "In bytes." in run("size-of", "--help")
    assert run("size-of", "gaussian-mnist", "--loud") == f"{Zoo.info('gaussian-mnist').size} !\n"
    assert "no checkpoint is called 'x'" in fail("size-of", "x")


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("list >&-", 0, ""),
        ("--help >&-", 0, ""),
        ("list 2>&- >&-", 0, ""),
        ("info x 2>&-", 1, ""),
        ("list | head -n 1 >/dev/null", 0, ""),
        ("list >/dev/full", 1, "zoo: No space left on device\n"),
    ],
)
def test_standard_streams_that_are_closed_or_full(command: str, status: int, said: str) -> None:
    words = ["sh", "-c", f'"{sys.executable}" -m zoo {command}']
    done = subprocess.run(words, cwd=Path(zoo.__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, said)


def test_pictures_are_drawn_though_nobody_hears_of_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)  # closed, as by >&-
    status = main(["sample", f"local-dir:{home / 'vae'}", "-n", "1", "--out", f"{tmp_path}/x.png"])
    assert status == 0 and size(tmp_path / "x.png") == (1, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not text")
def test_names_that_are_not_text(
    home: Path, images: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They round-trip through tables, recipes and checkpoints, and can be printed."""
    latin, data = (os.fsdecode(name) for name in (b"caf\xe9", b"b\xefg"))
    (images / "odd").rename(images / latin)
    images.rename(tmp_path / data)
    source, out = f"local-dir:{home / 'vae'}", tmp_path / latin
    words = ["score", source, "--data", tmp_path / data, "--resize", "--k", 1, "--out", f"{out}.csv"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(printed := io.BytesIO(), "utf-8", "strict", write_through=True))
        assert main([str(word) for word in words]) == 0
        assert printed.getvalue() == os.fsencode(f"{out}.csv\n{out}.png\n")
    with open(f"{out}.csv", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"even", latin} and (tmp_path / data / rows[0]["file"]).exists()

    run("finetune", source, "--data", tmp_path / data, "--resize", "--out", tmp_path / "mine", *SHORT, *QUIET)
    assert "b\\udcefg test" in (tmp_path / "mine/README.md").read_text()
    assert "no number differs" in run("evaluate", f"local-dir:{tmp_path / 'mine'}")


def test_a_message_is_one_line_of_bounded_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "local-dir:" + "very/long\n\x1b[31m\udce9/" * 200, "--out", str(tmp_path / "x.png")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(r"zoo: very/long\n\x1b[31m\udce9/very/") and said.endswith("...\n") and len(said) < 1020


def test_a_failure_is_the_status_of_the_process() -> None:
    root = Path(zoo.__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", "zoo", "info", "gaussian-mnis"], cwd=root, capture_output=True)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.count(b"\n") == 1 and b"did you mean 'gaussian-mnist'" in done.stderr


def test_list(run: Run, fail: Run) -> None:
    assert [line.split()[0] for line in run("list").splitlines()] == Zoo.list()
    assert [entry["source"] for entry in json.loads(run("list", "--json"))] == Zoo.list()
    assert "gaussian-mnist " in run("list", "gaussian-*")
    assert run("list", "mixture-*").split()[1:3] == ["density", "binarized-mnist"]
    classifiers = json.loads(run("list", "--capability", "Classifier", "--json"))
    known = ["lenet-fashion-mnist", "lenet-mnist", "lenet-shapes64", "resnet-cifar10"]
    assert [info["source"] for info in classifiers] == known
    assert json.loads(run("list", "nothing*", "--json")) == []
    assert "no checkpoint matches '*' and the options;" in fail(
        "list", "--family", "classifier", "--capability", "TractableDensity"
    )
    assert "did you mean 'ClosedForm'?" in fail("list", "--capability", "closedform")


def test_info(run: Run, home: Path) -> None:
    assert json.loads(run("info", "lenet-mnist", "--json"))["capabilities"] == ["Classifier"]
    text = run("info", f"local-dir:{home / 'vae'}")
    assert "vae.VAE" in text and "ImportanceWeighted" in text and "max_epochs: 1" in text


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize(
    ("command", "name", "options", "shape"),
    [
        ("sample", "vae", ["-n", 6], (3, 2)),
        ("sample", "vae", ["-n", 4, "--raw"], (2, 2)),
        ("sample", "made", ["--num", 4], (2, 2)),
        ("interpolate", "vae", ["-n", 2, "--steps", 5], (5, 2)),
        ("traverse", "vae", ["--steps", 4], (4, 3)),
        ("traverse", "vae", ["--steps", 4, "-n", 2], (4, 2)),
        ("reconstruct", "vae", ["-n", 3], (3, 2)),
        ("interpolate", "vae", ["-n", 2, "--steps", 5, "--test"], (5, 2)),
        ("edit", "vae", ["-n", 4, "--set", "0=2.5", "2=-1"], (4, 2)),
        ("attribute", "vae", ["--add", 7, "--remove", 1, "-n", 3, "--steps", 4], (5, 3)),
        ("neighbours", "vae", ["-n", 2, "--k", 3, "--draws", 20], (4, 2)),
        ("neighbours", "made", ["-n", 3, "--k", 1, "--draws", 1], (2, 3)),
        ("analogies", "conditional", ["-n", 2], (11, 2)),
        ("sample", "conditional", ["-n", 4, "--label", 3], (2, 2)),
        ("sample", "conditional", ["-n", 4, "--raw"], (2, 2)),
        ("interpolate", "conditional", ["-n", 2, "--steps", 3], (3, 2)),
        ("interpolate", "conditional", ["-n", 2, "--steps", 3, "--test"], (3, 2)),
        ("reconstruct", "conditional", ["-n", 2], (2, 2)),
        ("traverse", "conditional", ["--steps", 2, "--label", 1], (2, 3)),
        ("complete", "made", ["-n", 3, "--known", 0.5, "--draws", 2], (3, 4)),
        ("complete", "gated", ["-n", 3, "--label", "1,0", "--draws", 2], (3, 4)),
        ("complete", "gated", ["-n", 3, "--draws", 1], (3, 3)),
        ("probabilities", "gated", ["-n", 3], (3, 2)),
    ],
)
def test_pictures(
    command: str, name: str, options: list[object], shape: tuple[int, int], home: Path, tmp_path: Path, run: Run
) -> None:
    first, again, other = (tmp_path / f"{i}.png" for i in range(3))
    source = f"local-dir:{home / name}"
    assert run(command, source, *options, "--out", first).splitlines()[0] == str(first)
    assert size(first) == shape
    run(command, source, *options, "--out", again)
    run(command, source, *options, "--out", other, "--seed", 1)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_pictures_of_own_images(home: Path, images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    files, out, source = sorted(images.rglob("*.png"))[:2], tmp_path / "walk.png", f"local-dir:{home / 'vae'}"
    run("interpolate", source, "--images", *files, "--steps", 4, "--out", out)
    assert size(out) == (4, 1)
    model = Zoo.load(source)
    a, b = (read_image(path, (1, 8, 8)) for path in files)
    walk = latents.interpolate(model, a, b, 4)
    expected = save_grid(walk, tmp_path / "expected.png", columns=4).read_bytes()
    assert out.read_bytes() == expected
    assert "images.npz: expected an image" in fail("interpolate", source, "--images", files[0], "images.npz")


def test_the_command_of_a_number_names_the_arguments_of_the_sampler() -> None:
    words = ["--sampler", "ddim", "--steps", "4", "--guidance", "2.0", "--eta", "0.5"]
    options = COMMANDS["evaluate"].parser().parse_args(["conditional-edm-mnist", *words])
    command = measure._repeat(Zoo.info("conditional-edm-mnist"), options)
    assert command == f"zoo evaluate conditional-edm-mnist {' '.join(words)}"


def test_denoisers_edit_and_are_watched(images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    torch.manual_seed(0)
    model = ConditionalEDM(event_shape=[1, 8, 8], channels=[4, 8]).eval()
    torch.nn.init.normal_(model.network.outputs.weight)
    source, out = f"local-dir:{Zoo.save(model, tmp_path / 'edm', recipe={'data': DATA})}", tmp_path / "x.png"
    files = sorted(images.rglob("*.png"))[:3]
    x = torch.stack([read_image(path, (1, 8, 8)) for path in files])
    sampler = ["--sampler", "ddim", "--steps", 4, "--eta", 0.5, "--guidance", 2]
    run("edit", source, "--images", *files, "--strength", 0.5, "--label", 3, *sampler, "--out", out)
    asked = {"labels": [3] * 3, "sampler": DDIM(4, guidance=2, eta=0.5), "generator": torch.Generator().manual_seed(0)}
    edited = denoising.edit(model, x, 0.5, **asked)
    expected = save_grid(torch.cat([x, edited]), tmp_path / "expected.png", columns=3).read_bytes()
    assert out.read_bytes() == expected
    assert "--set DIMENSION=VALUE for a model with codes, or --strength for a denoiser" in fail("edit", source)
    film = tmp_path / "x.gif"
    run("animate", source, "-n", 2, "--label", 3, "--sampler", "heun", "--steps", 3, "--out", film)
    with Image.open(film) as picture:
        assert picture.n_frames == 6  # five evaluations, and what is drawn
    assert "--sampler heun: unknown key 'eta'" in fail(
        "animate", source, "--sampler", "heun", "--eta", 1, "--out", tmp_path / "y.gif"
    )


def test_a_warning_is_one_line(home: Path, images: Path, tmp_path: Path, run: Run) -> None:
    (images / "notes.txt").write_text("no picture")
    formatted, usual = [], warnings.formatwarning
    with warnings.catch_warnings():
        warnings.showwarning = lambda *words: formatted.append(warnings.formatwarning(*words[:4]))
        run("score", f"local-dir:{home / 'vae'}", "--data", images, "--resize", "--k", 1, "--out", tmp_path / "x.csv")
    assert formatted == [f"zoo: {images}: ignored 1 file (.txt)\n"] and warnings.formatwarning is usual


def test_a_checkpoint_is_used_without_the_data_of_its_maker(home: Path, images: Path, run: Run, fail: Run) -> None:
    """The grey levels of own images are those of the model, wherever its data are."""
    files, folder, out = sorted(images.rglob("*.png"))[:2], images.parent, images.parent / "x.png"
    model = VAE(event_shape=[1, 8, 8], latent_dim=3, channels=8, hidden=8)
    recipe = {"data": {"class": "ImageFolder", "path": str(folder / "moved"), "binarize": True}}
    source = f"local-dir:{Zoo.save(model, folder / 'bits', recipe=recipe)}"
    run("interpolate", source, "--images", *files, "--steps", 2, "--out", out)
    a, b = ((read_image(path, (1, 8, 8)) >= 0.5).float() for path in files)
    walk = latents.interpolate(model.eval(), a, b, 2)
    assert out.read_bytes() == save_grid(walk, folder / "expected.png", columns=2).read_bytes()
    words = ["score", source, "--data", images, "--resize", "--overwrite", "--out", folder / "x.csv"]
    assert "images: expected binary pixels for local-dir:" in fail(*words)
    assert run(*words, "--binarize", "--k", 2) == f"{folder / 'x.csv'}\n{folder / 'x.png'}\n"
    said = fail("reconstruct", source, "--out", folder / "y.png")
    assert f"{source}: this needs the data that it was made from: {folder / 'moved'}: expected a folder" in said


@pytest.mark.parametrize("command", ["score", "finetune"])
def test_the_first_image_decides_whether_images_fit(
    command: str, home: Path, images: Path, tmp_path: Path, fail: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(own, "decode", lambda *words: (decoded.append(words[0]), decode(*words))[1])
    words = [command, f"local-dir:{home / 'vae'}", "--data", images, "--out", tmp_path / "new"]
    assert "expected examples of shape 1x8x8" in fail(*words)
    assert len(decoded) == 1


def test_samples_show_the_labels_in_turn(home: Path, tmp_path: Path, run: Run) -> None:
    source, out = f"local-dir:{home / 'conditional'}", tmp_path / "x.png"
    run("sample", source, "-n", 12, "--raw", "--out", out)
    model, seed = conditional(home), torch.Generator().manual_seed(0)
    drawn = model.sample(12, labels=[*range(10), 0, 1], generator=seed)
    assert out.read_bytes() == save_grid(drawn, tmp_path / "expected.png", scale=2).read_bytes()


def test_samples_of_a_vae_are_shown_without_the_noise_of_pixels(home: Path, tmp_path: Path, run: Run) -> None:
    """They are E[x | z] of the codes of the samples that --raw shows."""
    source, out, raw = f"local-dir:{home / 'conditional'}", tmp_path / "x.png", tmp_path / "raw.png"
    run("sample", source, "-n", 4, "--out", out)
    run("sample", source, "-n", 4, "--raw", "--out", raw)
    model, seed = conditional(home), torch.Generator().manual_seed(0)
    codes = latents.draw_codes(model, Streams(seed_from(seed), range(4)))
    images = latents.decode(model, codes, labels=torch.arange(4))
    assert out.read_bytes() == save_grid(images, tmp_path / "expected.png").read_bytes() != raw.read_bytes()
    run("sample", f"local-dir:{home / 'made'}", "-n", 4, "--out", out, "--overwrite")  # which has no codes
    run("sample", f"local-dir:{home / 'made'}", "-n", 4, "--out", raw, "--overwrite", "--raw")
    assert out.read_bytes() == raw.read_bytes()


@pytest.mark.parametrize(("option", "labels"), [(("--labels", "3,7"), [3, 7, 3, 7, 3]), (("--label", 5), [5] * 5)])
def test_samples_of_chosen_labels(
    option: tuple[object, ...], labels: list[int], home: Path, tmp_path: Path, run: Run
) -> None:
    run("sample", f"local-dir:{home / 'conditional'}", "-n", 5, "--raw", *option, "--out", tmp_path / "x.png")
    drawn = conditional(home).sample(5, labels=labels, generator=torch.Generator().manual_seed(0))
    expected = save_grid(drawn, tmp_path / "expected.png", scale=2).read_bytes()
    assert (tmp_path / "x.png").read_bytes() == expected


@dataclass(frozen=True)
class Walk(Sampler):
    """A sampler of tiny models."""

    steps: int = 10
    noise: float = 1.0

    def __call__(self, model: Any, streams: Streams, **given: Any) -> torch.Tensor:
        return torch.zeros(len(streams), 1)


@dataclass(frozen=True)
class Leap(Sampler):
    """A sampler without steps."""

    def __call__(self, model: Any, streams: Streams, **given: Any) -> torch.Tensor:
        return torch.zeros(len(streams), 1)


class Walker(Conditional):
    """A tiny model with two samplers."""

    num_classes, event_shape, samplers = 3, (1,), (Walk, Leap)

    def draw(self, streams: Streams, **given: Any) -> torch.Tensor:
        return torch.zeros(len(streams), 1)


def test_options_of_samples_become_arguments_of_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*words: str) -> dict[str, Any]:
        return given(COMMANDS["sample"].parser().parse_args(["x", *words]), Walker(), 4)

    monkeypatch.setattr(zoo.samplers, "__dir__", lambda: ["Sampler", "named", "Walk", "Leap", "Jump"])

    assert asked("--label", "2")["labels"].tolist() == [2, 2, 2, 2]
    assert asked()["labels"].tolist() == [0, 1, 2, 0] and "sampler" not in asked()
    assert asked("--sampler", "walk")["sampler"] == Walk()
    assert asked("--sampler", "walk", "--steps", "20")["sampler"] == Walk(steps=20)
    assert asked("--sampler", "leap")["sampler"] == Leap()
    for words, said in (
        (("--sampler", "jump"), "--sampler: expected one of walk, leap, found jump"),
        (("--sampler", "leap", "--steps", "20"), "--sampler leap: unknown key 'steps'"),
        (("--sampler", "jmp"), "--sampler: no sampler is called 'jmp'; did you mean 'jump'?"),
        (("--label", "3"), "labels: expected classes from 0 to 2, found 3"),
    ):
        with pytest.raises(ConfigError, match=said):
            asked(*words)


def conditional(home: Path) -> ConditionalVAE:
    model = Zoo.load(f"local-dir:{home / 'conditional'}")
    assert isinstance(model, ConditionalVAE)
    return model


@pytest.mark.parametrize("label", [None, 7])
def test_walks_between_labelled_images(label: int | None, home: Path, tmp_path: Path, run: Run) -> None:
    """Ends are encoded under their own labels, and walks decoded under that of their start, or the one given."""
    out = tmp_path / "walk.png"
    chosen = [] if label is None else ["--label", label]
    run("interpolate", f"local-dir:{home / 'conditional'}", "--test", "-n", 2, "--steps", 3, *chosen, "--out", out)
    model, data = conditional(home), Digits()
    batch = next(data.batches("test", index=data.subset("test", 4, 0)))
    assert batch.labels is not None
    z = model.encode(batch.x, labels=batch.labels).mean
    labels = batch.labels[:2] if label is None else label
    walks = latents.interpolate(model, z[:2], z[2:], 3, labels=labels).flatten(0, 1)
    assert out.read_bytes() == save_grid(walks, tmp_path / "expected.png", columns=3).read_bytes()


def test_walks_between_own_images_of_a_class(home: Path, images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    files, out, source = sorted(images.rglob("*.png"))[:2], tmp_path / "walk.png", f"local-dir:{home / 'conditional'}"
    words = ["interpolate", source, "--images", *files, "--steps", 4, "--out", out]
    assert "is conditional; give the class of your images with --label" in fail(*words)
    run(*words, "--label", 3)
    a, b = (read_image(path, (1, 8, 8)) for path in files)
    walk = latents.interpolate(conditional(home), a, b, 4, labels=3)
    assert out.read_bytes() == save_grid(walk, tmp_path / "expected.png", columns=4).read_bytes()


def test_traversals_say_what_they_leave_out(home: Path, tmp_path: Path, run: Run) -> None:
    words = ["traverse", f"local-dir:{home / 'vae'}", "--steps", 2, "--out", tmp_path / "x.png"]
    assert "dimensions 0 to 1 of 3; --num 3 shows all" in run(*words, "--num", 2)
    assert "dimensions" not in run(*words, "--overwrite")


def test_pictures_that_a_model_cannot_give(home: Path, tmp_path: Path, fail: Run) -> None:
    source, out = f"local-dir:{home / 'vae'}", ("--out", tmp_path / "x.png")
    assert "expected DIMENSION=VALUE, such as 3=2.5, found '3'" in fail("edit", source, "--set", "3", *out)
    assert "dimensions of the code from 0 to 2, found 3" in fail("edit", source, "--set", "3=1", *out)
    for words, label in ((("--add", 11), 11), (("--add", -1), -1), (("--add", 7, "--remove", -3), -3)):
        said = f"with label {label}, found none; its labels are 0 to 9"
        assert said in fail("attribute", source, *words, *out)
    assert "another label than that of --add, found 7" in fail("attribute", source, "--add", 7, "--remove", 7, *out)
    assert "`zoo analogies`" in fail("attribute", f"local-dir:{home / 'conditional'}", "--add", 7, *out)
    assert "such as conditional-edm-mnist, conditional-edm-shapes64, cond" in fail("analogies", source, *out)
    for name in ("sample", "interpolate", "traverse"):
        assert "labels: VAE does not take any; leave it out" in fail(name, source, "--label", 3, *out)
    assert "labels: expected classes from 0 to 9, found 10" in fail(
        "sample", f"local-dir:{home / 'conditional'}", "--label", 10, *out
    )
    assert "no checkpoint is called 'pixls'" in fail("neighbours", source, "--by", "pixls", *out)
    assert not (tmp_path / "x.png").exists()


def test_what_does_not_fit_in_memory(home: Path, tmp_path: Path, fail: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "interpolate", lambda *_, **__: torch.empty(1 << 60))
    words = ("interpolate", f"local-dir:{home / 'vae'}", "--out", tmp_path / "x.png")
    assert "not enough memory; ask for fewer" in fail(*words)
    assert not (tmp_path / "x.png").exists()
    monkeypatch.setattr(latents, "interpolate", lambda *_, **__: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        fail(*words)


@pytest.mark.parametrize(
    "command",
    ["analogies", "complete", "interpolate", "neighbours", "probabilities", "reconstruct", "sample", "traverse"],
)
def test_pictures_are_of_checkpoints_and_not_of_recipes(command: str, home: Path, tmp_path: Path, fail: Run) -> None:
    said = fail(command, home / "vae.yaml", "--out", tmp_path / "x.png")
    assert f"{command}: expected a checkpoint, found {home / 'vae.yaml'}, a recipe; train it first" in said
    assert not (tmp_path / "x.png").exists()


def test_complete_keeps_what_is_known(home: Path, tmp_path: Path, run: Run) -> None:
    run("complete", f"local-dir:{home / 'made'}", "-n", 2, "--known", 0.5, "--draws", 1, "--out", tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("L"))[::2, ::2]
    original, erased, completed = (pixels[2 + 10 * row : 10 + 10 * row, 2:10] for row in range(3))
    assert (original[:4] == erased[:4]).all() and (original[:4] == completed[:4]).all()
    assert (erased[4:] == 128).all() and set(np.unique(completed[4:])) <= {0, 255}


@pytest.mark.parametrize("name", Zoo.list())
def test_pictures_of_shipped_checkpoints(
    name: str, tmp_path: Path, run: Run, fail: Run, request: pytest.FixtureRequest
) -> None:
    if name.startswith("memoriser"):
        request.getfixturevalue("real_data")  # its memory
    has = Zoo.info(name).capabilities
    path = tmp_path / "picture.png"
    if "GenerativeModel" not in has:
        assert "expected a model that draws images" in fail("sample", name, "--out", path)
        return
    is_image = len(Zoo.load(name).event_shape) == 3
    commands: list[list[object]] = [["sample", "-n", 2 if is_image else 50]]
    if "Decoder" in has and is_image:
        commands += [["sample", "-n", 2, "--raw"], ["interpolate", "-n", 1, "--steps", 3], ["traverse", "-n", 1]]
    for command, *options in commands:
        run(command, name, *options, "--out", path)
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture))) > 2  # more than a background
        path.unlink()


@pytest.mark.parametrize("name", Zoo.list())
def test_pictures_of_the_data_of_shipped_checkpoints(name: str, tmp_path: Path, run: Run, real_data: str) -> None:
    has, path = Zoo.info(name).capabilities, tmp_path / "picture.png"
    if len(getattr(Zoo.load(name), "event_shape", ())) != 3:
        return  # these commands show images
    commands = [word for word, needed in (("reconstruct", "Encoder"), ("complete", "Completable")) if needed in has]
    for command in commands:
        run(command, name, "-n", 2, "--out", path, "--overwrite")
        assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert path.exists() == bool(commands)


# ------------------------------------------------------------------------------------------------ training and numbers


def test_fit(home: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "vae"
    assert f"zoo evaluate local-dir:{out} --write" in run(
        "fit",
        home / "vae.yaml",
        "--out",
        out,
        "--seed",
        4,
        "--model.latent_dim=2",
        "--optimization.lr",
        "1e-2",
        "--trainer.checkpoint_every",
        10,
    )
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert (recipe["seed"], recipe["model"]["latent_dim"], recipe["optimization"]["lr"]) == (4, 2, 0.01)
    assert Zoo.load(f"local-dir:{out}").hparams["latent_dim"] == 2
    run_folder = tmp_path / "vae.run"
    assert (run_folder / "last.ckpt").exists() and (run_folder / "recipe.yaml").exists()
    assert sorted(path.name for path in (run_folder / "samples").iterdir()) == [f"epoch_{i:04d}.png" for i in range(5)]


def test_two_processes_make_the_checkpoint_that_one_makes(home: Path, tmp_path: Path) -> None:
    words = ["fit", home / "vae.yaml", "--out", tmp_path / "vae", "--trainer.max_epochs", "1", "--trainer.devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(zoo.__file__).parents[1]
    command = [sys.executable, "-m", "zoo", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("now measure it") == 1  # said by one of them
    one, two = (Zoo.load(f"local-dir:{folder / 'vae'}").state_dict() for folder in (home, tmp_path))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=0)


def test_evaluate(home: Path, tmp_path: Path, run: Run, fail: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Zoo.save(Zoo.load(f"local-dir:{home / 'vae'}"), tmp_path / "vae", recipe=VAE_RECIPE)
    source = f"local-dir:{folder}"
    assert "nothing was compared: no number is recorded with these settings; 4 are not on record" in run(
        "evaluate", source
    )
    assert "neg_elbo" in run("evaluate", source, "--write")
    assert Image.open(folder / "samples.png").size == (164, 164) and "neg_elbo" in (folder / "README.md").read_text()
    rows = json.loads((folder / "metrics.json").read_text())["measurements"]
    assert [row["name"] for row in rows] == ["neg_elbo", "neg_elbo", "nll", "nll"]
    assert {row["command"] for row in rows} == {"zoo evaluate local-dir:vae"}
    said = "no number differs from those recorded with the same settings"
    assert run("evaluate", source).splitlines()[-1] == f"{said} (4 of 4 compared)"
    assert run("evaluate", source, "--k", 2).splitlines()[-1] == f"{said} (2 of 4 compared)"
    found = json.loads(run("evaluate", source, "--slice", "--json"))
    assert (
        found["differences"] == [] and found["compared"] == 4 and all(row["n"] < 300 for row in found["measurements"])
    )

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        found = measure(*arguments, **options)
        Zoo.update(Checkpoint.of_folder(folder), [*rows, {**rows[0], "name": "other"}])
        return found

    measure = evaluate_module.evaluate_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "evaluate_checkpoint", meanwhile)
        run("evaluate", source, "--write")
        assert Checkpoint.of_folder(folder).numbers[-1].name == "other"
        patch.setattr(
            evaluate_module, "evaluate_checkpoint", lambda *_, **__: Zoo.save(other, folder, overwrite=True) and []
        )
        other = Zoo.load(source)
        torch.nn.init.constant_(next(other.parameters()), 0)
        assert "its weights were replaced meanwhile" in fail("evaluate", source, "--write")
    Zoo.save(Zoo.load(f"local-dir:{home / 'vae'}"), folder, recipe=VAE_RECIPE, measurements=rows, overwrite=True)

    rows[0]["value"] += 1.0
    rows[0]["details"]["slice"]["value"] += 1.0
    Zoo.update(Checkpoint.of_folder(folder), rows)
    assert "1 of 4 numbers differ from its record: neg_elbo: recorded" in fail("evaluate", source)
    assert "1 of 4 numbers differ" in fail("evaluate", source, "--slice")
    run("evaluate", source, "--k", 7, "--only", "likelihood", "--write")  # puts the numbers right
    rows = json.loads((folder / "metrics.json").read_text())["measurements"]
    assert [row["details"].get("k") for row in rows] == [None, None, 7, 7]
    assert {row["command"] for row in rows} == {"zoo evaluate local-dir:vae --k 7 --only likelihood"}
    run("evaluate", source)


def test_reproduce(run: Run, fail: Run) -> None:
    rows = {row["model"]: row for row in json.loads(run("reproduce", "taxonomy", "--json"))["rows"]}
    assert rows.keys() == {name for name in Zoo.list() if "GenerativeModel" in Zoo.info(name).capabilities}
    assert rows["gaussian-mnist"]["density"].startswith("exact")
    assert rows["gaussian-mnist"]["latents"] == "high-dimensional"
    assert "gaussian-mnist" in run("reproduce", "taxonomy")
    assert "80.97" in run("reproduce", "mnist-nll", "--recorded")
    assert "did you mean 'mnist-nll'" in fail("reproduce", "mnist-nl")


@pytest.mark.filterwarnings("ignore:.*left out 1 of 41 images")
def test_finetune_on_a_folder_of_images(home: Path, images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    source, out = f"local-dir:{home / 'vae'}", tmp_path / "mine"
    (images / "odd" / "broken.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out 1 of 41 images") as warned:
        printed = run(
            "finetune", source, "--data", images, "--out", out, "--steps", 8, "--resize", "--skip-corrupt",
            "--evaluation.k", 5, "--data.batch_size", 8, *QUIET,
        )  # fmt: skip
    assert sum("left out" in str(warning.message) for warning in warned) == 1  # the images are read once
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == ["before:", "after:"] * 4 and lines[-1] == str(out)
    assert lines[-2].startswith("learned")
    rows = json.loads((out / "metrics.json").read_text())["measurements"]
    assert [row["name"] for row in rows] == ["neg_elbo", "neg_elbo", "nll", "nll"]
    assert all(row["details"]["before"] != row["value"] and row["data"] == "images" for row in rows)
    assert weights(out) != weights(home / "vae")

    mine = f"local-dir:{out}"
    assert "no number differs" in run("evaluate", mine)
    run("sample", mine, "-n", 4, "--out", tmp_path / "samples.png")
    run("reconstruct", mine, "-n", 4, "--out", tmp_path / "reconstructed.png")
    run(
        "finetune",
        mine,
        "--data",
        images,
        "--out",
        tmp_path / "more",
        "--steps",
        2,
        "--resize",
        "--skip-corrupt",
        *QUIET,
    )
    images.rename(tmp_path / "elsewhere")
    assert f"{images}: expected a folder of images" in fail("evaluate", mine)
    run("finetune", mine, "--data", tmp_path / "elsewhere", "--out", tmp_path / "again", "--steps", 4, "--resize",
        "--skip-corrupt", *QUIET)  # fmt: skip


def test_finetune_on_arrays(home: Path, arrays: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "mine"
    run("finetune", f"local-dir:{home / 'vae'}", "--data", arrays, "--out", out, "--steps", 4, "--seed", 5, *QUIET)
    assert yaml.safe_load((out / "recipe.yaml").read_text())["data"] == {
        "class": "Arrays",
        "path": str(arrays),
        "batch_size": 24,  # two batches in an epoch leave out one of the 49 examples
    }
    assert "no number differs" in run("evaluate", f"local-dir:{out}")


def test_finetune_a_shipped_checkpoint_of_8_bit_images(images: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "mine"
    words = ["--resize", "--steps", 4, "--evaluation.k", 5, "--evaluation.num", 20, *QUIET]
    printed = run("finetune", "vae-mnist", "--data", images, "--out", out, *words)
    assert {"nll", "neg_elbo", "kid", "precision"} <= {line.split()[1] for line in printed.splitlines()[:-2]}
    run("sample", f"local-dir:{out}", "-n", 2, "--out", tmp_path / "samples.png")


def test_finetune_a_shipped_checkpoint_of_binary_images(images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    words = ["finetune", "vae-binarized-mnist", "--data", images, "--out", tmp_path / "mine", "--resize", "--steps", 4]
    assert "expected binary pixels for vae-binarized-mnist, found 8-bit pixels; pass --binarize" in fail(*words)
    assert "after:  nll" in run(*words, "--binarize", "--evaluation.k", 5, *QUIET)


def test_finetune_wants_the_labels_that_a_model_learns_from(
    home: Path, arrays: Path, tmp_path: Path, fail: Run
) -> None:
    x, labelled = np.load(arrays)["x"], tmp_path / "labelled.npz"
    np.savez(labelled, x=x, labels=np.arange(len(x)) % 13)
    for data, found in ((arrays, "no labels"), (labelled, "13 classes")):
        said = fail("finetune", f"local-dir:{home / 'conditional'}", "--data", data, "--out", tmp_path / "mine")
        assert "expected labels from 0 to 9" in said and f"found {found}" in said
        sections = {"start": f"local-dir:{home / 'conditional'}", "data": {"class": "Arrays", "path": str(data)}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"trainer": {"max_steps": 1}, **sections}))
        said = fail("fit", tmp_path / "recipe.yaml", "--out", tmp_path / "mine")
        assert "expected labels from 0 to 9" in said and f"found {found}" in said
    assert not list(tmp_path.glob("mine*"))


def test_finetune_in_python(home: Path, arrays: Path, tmp_path: Path) -> None:
    from zoo.training.finetune import finetune

    quiet = {"trainer.progress": False, "trainer.accelerator": "cpu"}
    out = finetune(f"local-dir:{home / 'vae'}", arrays, tmp_path / "mine", steps=4, overrides=quiet)
    model = Zoo.load(f"local-dir:{out}")
    assert isinstance(model, GenerativeModel) and model.sample(2).shape == (2, 1, 8, 8)


def test_vectors_are_ranked_without_a_sheet(tmp_path: Path, run: Run) -> None:
    Zoo.save(Gaussian([2]), tmp_path / "bell", recipe={"data": {"class": "Toy2D", "kind": "moons"}})
    np.save(tmp_path / "points.npy", np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]], dtype=np.float32))
    words = ("score", f"local-dir:{tmp_path / 'bell'}", "--data", tmp_path / "points.npy", "--out", tmp_path / "x.csv")
    assert run(*words).split() == [str(tmp_path / "x.csv")]
    with (tmp_path / "x.csv").open() as file:
        nats = [float(row["nats"]) for row in csv.DictReader(file)]
    assert nats == pytest.approx([-12.5 - np.log(2 * np.pi), -0.5 - np.log(2 * np.pi), -np.log(2 * np.pi)], rel=1e-4)
    assert not (tmp_path / "x.png").exists()


def test_score_ranks_own_images(home: Path, images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    vae, made = f"local-dir:{home / 'vae'}", f"local-dir:{tmp_path / 'made'}"
    Zoo.save(MADE([1, 8, 8], hidden=16, num_masks=2), tmp_path / "made", recipe={"data": {**DATA, "binarize": True}})
    out, sheet = tmp_path / "deep" / "vae.csv", tmp_path / "sheet.png"
    words = ["score", vae, "--data", images, "--resize", "--k", 3, "--num", 10]
    assert run(*words, "--out", out, "--sheet", sheet).split() == [str(out), str(sheet)]
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "nats", "bits_per_dim", "kind"] and len(rows) == 40
    nats = [float(row["nats"]) for row in rows]
    assert nats == sorted(nats) and {row["kind"] for row in rows} == {"log_prob, bound"}
    assert {row["file"] for row in rows} == {str(path.relative_to(images)) for path in images.rglob("*.png")}
    assert all(row["file"].startswith(row["label"]) for row in rows)
    assert float(rows[0]["bits_per_dim"]) == pytest.approx(-nats[0] / (64 * np.log(2)), rel=1e-5)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG" and picture.width > 400
    run(*words, "--out", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == out.read_text() and (tmp_path / "again.png").exists()

    (images / "odd" / "damaged.png").write_bytes(b"no picture")
    words = ["score", made, "--data", images, "--out", tmp_path / "made.csv", "--resize", "--binarize"]
    assert "damaged.png" in fail(*words)
    with pytest.warns(UserWarning, match="left out 1"):
        run(*words, "--skip-corrupt")
    rows = list(csv.DictReader((tmp_path / "made.csv").open()))
    assert len(rows) == 40 and {row["kind"] for row in rows} == {"log_prob, exact"} and rows[0]["bits_per_dim"] == ""
    model = Zoo.load(made)
    with Image.open(images / rows[0]["file"]) as image:
        small = np.asarray(ImageOps.fit(image, (8, 8), Image.Resampling.BICUBIC)) >= 128
    assert isinstance(model, MADE)
    expected = model.log_prob(torch.from_numpy(small[None, None]).float()).item()
    assert float(rows[0]["nats"]) == pytest.approx(expected, rel=1e-5)


def test_score_refuses_what_it_cannot(
    home: Path, images: Path, arrays: Path, tmp_path: Path, run: Run, fail: Run
) -> None:
    vae = f"local-dir:{home / 'vae'}"
    words = ["--data", images, "--out", tmp_path / "x.csv"]
    assert "neither a density nor a bound" in fail("score", "gan-mnist", *words, "--resize")
    assert "LeNet has neither a density nor a bound" in fail("score", "lenet-mnist", *words, "--resize")
    assert "pass --resize" in fail("score", vae, *words)
    assert "--num: expected at least 1" in fail("score", vae, *words, "--num", 0)
    clash = ["score", vae, "--data", arrays, "--out", tmp_path / "x.png"]
    assert "is where the sheet goes" in fail(*clash) and "is where the sheet goes" in fail(
        "score", vae, *words, "--sheet", tmp_path / "deep" / ".." / "x.csv"
    )
    assert not (tmp_path / "x.png").exists()
    words = ["score", vae, "--data", arrays, "--out", tmp_path / "x.csv", "--sheet"]
    assert "unknown file extension: .nil" in fail(*words, tmp_path / "x.nil")
    assert not (tmp_path / "x.csv").exists()
    run(*words, tmp_path / "x.png")
    (tmp_path / "x.png").write_text("old")
    assert "x.csv: cannot write a table there: a file is there" in fail(*words, tmp_path / "x.png")
    run(*words, tmp_path / "x.png", "--overwrite")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.format == "PNG"
    x = np.load(arrays)["x"]
    by_row = {row["file"]: float(row["nats"]) for row in csv.DictReader((tmp_path / "x.csv").open())}
    data = Arrays.from_array(x)
    assert torch.equal(data.everything().x, torch.from_numpy(x))  # in the order of the array
    np.save(tmp_path / "one.npy", np.concatenate([x[7:8], x[:2]]))
    run("score", vae, "--data", tmp_path / "one.npy", "--out", tmp_path / "y.csv")
    again = {row["file"]: float(row["nats"]) for row in csv.DictReader((tmp_path / "y.csv").open())}
    for num in (1, 2):  # too few to train on, enough to score
        np.save(tmp_path / "few.npy", x[:num])
        run("score", vae, "--data", tmp_path / "few.npy", "--out", tmp_path / "few.csv", "--overwrite")
        assert len(list(csv.DictReader((tmp_path / "few.csv").open()))) == num
    (tmp_path / "alone").mkdir()
    next(images.rglob("*.png")).rename(tmp_path / "alone" / "image.png")
    run("score", vae, "--data", tmp_path / "alone", "--resize", "--out", tmp_path / "alone.csv")
    assert [row["file"] for row in csv.DictReader((tmp_path / "alone.csv").open())] == ["image.png"]
    assert len(by_row) == 60 and again["0"] == pytest.approx(by_row["7"], abs=3)  # other noise, the same image


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException], None]]:
    """Raises what it is given after the third step of training."""
    handler = signal.getsignal(signal.SIGINT)  # Lightning puts it out of action when it is interrupted

    def arm(error: BaseException) -> None:
        def on_train_batch_end(self: LogMeans, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 3:
                raise error

        monkeypatch.setattr(LogMeans, "on_train_batch_end", on_train_batch_end)

    yield arm
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("every", [2, 100])  # with a checkpoint of the run before the interruption, and without one
def test_an_interrupted_run_goes_on(
    every: int,
    home: Path,
    arrays: Path,
    tmp_path: Path,
    interrupt: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    fail: Run,
) -> None:
    def words(out: str) -> list[object]:
        return ["finetune", f"local-dir:{home / 'vae'}", "--data", arrays, "--out", tmp_path / out, "--steps", 9,
                "--data.batch_size", 16, "--trainer.checkpoint_every", every, *QUIET]  # fmt: skip

    run(*words("whole"))
    with monkeypatch.context():
        interrupt(KeyboardInterrupt())
        assert "give the same command with --resume" in fail(*words("mine"))
        monkeypatch.undo()
    assert not (tmp_path / "mine").exists()
    assert "there is a run already; resume it" in fail(*words("mine"))
    run(*words("mine"), "--resume")
    assert weights(tmp_path / "mine") == weights(tmp_path / "whole")


@pytest.mark.parametrize("where", [(save_module, "write_new"), (torch, "save")])  # at the end, and in training
def test_a_full_disk_loses_nothing(
    where: tuple[Any, str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, fail: Run
) -> None:
    words = ["fit", home / "vae.yaml", "--out", tmp_path / "vae", "--trainer.max_epochs", 1,
             "--trainer.checkpoint_every", 5]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(*where, full_disk)
        assert "No space left on device" in fail(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["vae.run"]
    assert (tmp_path / "vae.run" / "last.ckpt").exists() == (where[0] is save_module)
    run(*words, "--resume")
    assert weights(tmp_path / "vae") == weights(home / "vae")


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ----------------------------------------------------------------------------------------------- own images, in and out


def test_each_image_is_a_file_in_the_folder_of_its_class(home: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    source, out = f"local-dir:{home / 'conditional'}", tmp_path / "more"
    assert run("sample", source, "--labels", "3,7", "-n", 5, "--each", "--out", out) == f"{out}\n"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "3/0.png", "3/2.png", "3/4.png", "7/1.png", "7/3.png"
    ]  # fmt: skip
    data = ImageFolder(str(out))
    whole = data.everything()
    assert data.classes == ["3", "7"] and whole.x.shape == (5, 1, 8, 8) and whole.labels is not None
    sheet = tmp_path / "sheet.png"
    run("sample", source, "--labels", "3,7", "-n", 5, "--out", sheet)
    images = whole.x[torch.tensor([0, 3, 1, 4, 2])]  # by number: 3/0, 7/1, 3/2, 7/3, 3/4
    assert save_grid(images, tmp_path / "expected.png").read_bytes() == sheet.read_bytes()
    assert "exists already; name a new folder for --each" in fail("sample", source, "-n", 1, "--each", "--out", out)
    run("sample", f"local-dir:{home / 'vae'}", "-n", 12, "--each", "--out", tmp_path / "plain")
    assert len([*(tmp_path / "plain").glob("*.png")]) == 12


def test_an_eraser_is_a_picture(home: Path, images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    source, out, mask = f"local-dir:{home / 'made'}", tmp_path / "x.png", tmp_path / "mask.png"
    erased = np.zeros((8, 8), np.uint8)
    erased[5:], erased[4, 3:] = 255, 255  # MADE draws what comes last
    Image.fromarray(erased).save(mask)
    files = sorted(images.rglob("*.png"))[:2]
    run("complete", source, "--images", *files, "--mask", mask, "--draws", 1, "--out", out)
    x = torch.stack([(read_image(path, (1, 8, 8)) >= 0.5).float() for path in files])
    known = torch.from_numpy(erased == 0)[None]
    drawn = latents.complete(Zoo.load(source), x, known, generator=torch.Generator().manual_seed(0))
    sheet = torch.cat([x, torch.where(known, x, torch.full_like(x, 0.5)), drawn])
    assert out.read_bytes() == save_grid(sheet, tmp_path / "expected.png", columns=2).read_bytes()
    assert torch.equal(drawn[:, known], x[:, known])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)
    assert "no white pixels" in fail("complete", source, "--mask", mask, "--out", tmp_path / "y.png")
    assert "nowhere.png: expected an image" in fail(
        "complete", source, "--mask", "nowhere.png", "--out", tmp_path / "y.png"
    )


def test_own_images_are_encoded(home: Path, images: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    out, source = tmp_path / "codes.npz", f"local-dir:{home / 'vae'}"
    assert run("encode", source, "--data", images, "--resize", "--out", out) == f"{out}\n"
    with np.load(out) as found:
        codes, files, labels = found["codes"], found["files"], found["labels"]
    assert codes.shape == (40, 3) and set(labels) == {"even", "odd"}
    for code, file, label in zip(codes, files, labels, strict=True):
        assert file.startswith(f"{label}/")
        expected = latents.encode(Zoo.load(source), read_image(images / file, (1, 8, 8))[None])[0]
        assert code == pytest.approx(expected.numpy(), abs=1e-5)
    conditional = f"local-dir:{home / 'conditional'}"
    assert "named after its classes" in fail(
        "encode", conditional, "--data", images, "--resize", "--out", tmp_path / "y"
    )
    run("encode", conditional, "--data", images, "--resize", "--label", 3, "--out", tmp_path / "3.npz")
    assert "expected an Encoder (zoo.capabilities), found MADE" in fail(
        "encode", f"local-dir:{home / 'made'}", "--data", images, "--resize", "--binarize", "--out", tmp_path / "y"
    )


def test_own_images_are_classified_by_bayes_rule(home: Path, tmp_path: Path, run: Run, fail: Run) -> None:
    source, folder, out = f"local-dir:{home / 'conditional'}", tmp_path / "digits", tmp_path / "classes.csv"
    run("sample", source, "--raw", "-n", 20, "--labels", "3,7", "--each", "--out", folder)
    said = run("classify", source, "--data", folder, "--k", 20, "--out", out).splitlines()
    rows = list(csv.DictReader(out.open()))
    right = sum(row["label"] == row["class"] for row in rows)
    assert said == [str(out), f"20 examples; the class of {right} of 20 is that of their folder"]
    model, whole = Zoo.load(source, ConditionalVAE), ImageFolder(str(folder)).everything()
    nats = []
    for label in range(10):
        weights = model.log_weights(
            whole.x / 255, 20, generator=Streams(0, torch.arange(20), 0), labels=torch.full((20,), label)
        )
        nats.append(weights.double().logsumexp(0) - math.log(20))
    posterior = torch.stack(nats, 1).softmax(1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(posterior.amax(1).tolist(), abs=1e-5)
    assert [int(row["class"]) for row in rows] == posterior.argmax(1).tolist()
    total = torch.stack(nats, 1).logsumexp(1) - math.log(10)
    assert [float(row["nats"]) for row in rows] == pytest.approx(total.tolist(), abs=1e-3)
    least = total.sort().values[9:11].mean().item()  # between the tenth and the eleventh
    said = run("classify", source, "--data", folder, "--k", 20, "--least", least, "--out", out, "--overwrite")
    assert "20 examples, 10 of them rejected; the class of" in said
    assert "expected a classifier or a model of classes, found VAE" in fail(
        "classify", f"local-dir:{home / 'vae'}", "--data", folder, "--out", tmp_path / "y.csv"
    )
