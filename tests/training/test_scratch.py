"""`zoo fit NAME --data FOLDER`: recipes for own data, and fine-tuning for images of another shape."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from zoo import Zoo
from zoo.cli import main
from zoo.config import load_yaml
from zoo.data import build
from zoo.store.recipes import recipe_of_class
from zoo.training import scratch as module
from zoo.training.recipe import build_model, take_layers
from zoo.vae.vae import VAE

QUIET = ["--trainer.progress", "false", "--trainer.accelerator", "cpu", "--trainer.sample_grids", "false"]
SHORT = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2", *QUIET]
TINY = {
    "dcgan": ["--model.channels", "8", "--model.hidden", "null"],
    "VAE": ["--model.channels", "4", "--model.hidden", "8"],
    "conditional-edm": ["--model.channels", "[4,4]"],
    "flow-matching": ["--model.channels", "[4,4]"],
    "vae-mnist": ["--model.channels", "4", "--model.hidden", "8"],
    "causal-gaussian": ["--model.window", "1"],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 colour images of 16x16 pixels in two folders."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    noise = np.random.default_rng(0)
    for number in range(30):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return folder


def run(*words: Any) -> None:
    assert main([str(word) for word in words]) == 0


def fail(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main([str(word) for word in words]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("name", TINY)
def test_defaults_fit_the_data_and_are_printed_and_kept(
    name: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY[name], *(QUIET if name == "causal-gaussian" else SHORT)]
    run("fit", name, "--data", photos, "--size", 8, "--out", tmp_path / "mine", *words)
    text, _, place = capsys.readouterr().out.rpartition(f"{tmp_path / 'mine'}\n")
    recipe = yaml.safe_load(text[text.index("name: mine") :])
    assert place.startswith("now draw from it: zoo sample local-dir:")
    assert load_yaml(tmp_path / "mine" / "recipe.yaml") == recipe
    assert recipe["model"]["event_shape"] == [3, 8, 8]
    assert recipe["data"]["batch_size"] <= 24 and recipe["trainer"]["keep_best"]
    model = Zoo.load(f"local-dir:{tmp_path / 'mine'}")
    assert model.event_shape == (3, 8, 8) and getattr(model, "levels", 256) in (256, None)
    if name == "conditional-edm":
        assert model.num_classes == 2
        x = 2 * build(recipe["data"]).split("train").x.float() / 255 - 1
        assert recipe["model"]["sigma_data"] == pytest.approx(x.std().item(), abs=1e-3)
    if name == "VAE":
        assert recipe["model"]["likelihood"] == "discretized-logistic"


def test_grey_and_binary_images(photos: Path, tmp_path: Path) -> None:
    words = ["--size", 8, *SHORT, *TINY["VAE"]]
    run("fit", "vae-binarized-mnist", "--data", photos, "--grey", "--binarize", "--out", tmp_path / "binary", *words)
    run("fit", "vae", "--data", photos, "--grey", "--out", tmp_path / "grey", *words)
    binary, grey = (Zoo.load(f"local-dir:{tmp_path / name}") for name in ("binary", "grey"))
    assert binary.event_shape == grey.event_shape == (1, 8, 8)
    assert (binary.likelihood_name, grey.likelihood_name) == ("bernoulli", "discretized-logistic")


def test_minutes_become_steps(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tried", lambda *args: ({}, 2.0))
    monkeypatch.setattr(module, "make", lambda recipe, *args, **named: recipe)
    found: Any = module.train_on("dcgan", photos, tmp_path / "mine", size=8, minutes=1)
    assert found["trainer"]["max_steps"] == pytest.approx(60 / (2.0 / module.TIMED_STEPS), rel=0.1)
    assert found["trainer"]["max_steps"] % found["trainer"]["val_check_interval"] == 0


def test_an_interrupted_run_goes_on(photos: Path, tmp_path: Path) -> None:
    words = ["fit", "dcgan", "--data", photos, "--size", 8, "--out", tmp_path / "mine", *TINY["dcgan"], *SHORT]
    run(*words)
    whole = Zoo.load(f"local-dir:{tmp_path / 'mine'}").state_dict()
    shutil.rmtree(tmp_path / "mine")  # as if the run had been interrupted after its last step
    run(*words, "--resume")
    again = Zoo.load(f"local-dir:{tmp_path / 'mine'}").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_what_is_not_possible_is_said_in_one_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", photos, "--out", tmp_path / "mine"]
    assert "the nearest sizes are 28x28 and 32x32" in fail(capsys, "fit", "dcgan", *words, "--size", 30)
    assert "of binary pixels, found 8-bit pixels; pass --binarize" in fail(capsys, "fit", "made", *words, "--size", 8)
    for name in ("dcgan", "glow"):  # either would fill the memory
        assert "expected at most 512x512 pixels" in fail(capsys, "fit", name, *words, "--size", 1024)
    np.save(tmp_path.parent / "large.npy", np.full((30, 3, 8, 520), 9, np.uint8))
    large = ["--data", tmp_path.parent / "large.npy", "--out", tmp_path / "mine"]
    assert "found 8x520; choose a smaller one" in fail(capsys, "fit", "dcgan", *large)
    assert "expected at most 512x512 pixels" in fail(capsys, "finetune", "vae-shapes64", *words, "--size", 1024)
    assert "no checkpoint and no model is called 'dcgam'; did you mean 'dcgan'" in fail(capsys, "fit", "dcgam", *words)
    assert "--size: expected --data beside it" in fail(capsys, "fit", "dcgan-mnist", *words[2:], "--size", 8)
    assert "expected [D], found [3, 8, 8]" in fail(capsys, "fit", "planar-flow", *words, "--size", 8)
    assert "which are flows.IAF and vae.IAF; choose one" in fail(capsys, "fit", "iaf", *words)
    words += ["--size", 8, "--minutes"]
    assert "Gaussian is fitted in passes over the data" in fail(capsys, "fit", "gaussian", *words, 1)
    assert "minutes: expected more than 0, found -1.0" in fail(capsys, "fit", "dcgan", *words, -1)
    assert not list(tmp_path.iterdir())


def test_every_model_class_has_a_recipe_to_begin_with() -> None:
    assert recipe_of_class("WGAN-GP")[0] == "gan.WGANGP"
    kind, recipe = recipe_of_class("edm")
    assert kind == "diffusion.EDM" and recipe["data"]["class"] != "Toy2D"  # of images, though of another class
    assert recipe_of_class("flows.Glow")[1]["model"]["class"] == "flows.Glow"
    assert recipe_of_class("vae.iaf")[1]["model"]["class"] == "vae.IAF"


def test_fine_tuning_for_another_shape_begins_with_the_layers_that_fit(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    start = VAE([1, 12, 12], latent_dim=2, channels=4, hidden=8, likelihood="discretized-logistic")
    Zoo.save(start, tmp_path / "start", recipe={"data": {"class": "MNIST"}})
    source = f"local-dir:{tmp_path / 'start'}"
    run("finetune", source, "--data", photos, "--size", 8, "--out", tmp_path / "mine", "--steps", 4, *QUIET)
    said = capsys.readouterr().out
    taken, anew = (line.partition(": ")[2].split(", ") for line in said.splitlines()[:2])
    assert said.startswith(f"layers that begin with those of {source}: ")
    assert "encoder.7" in taken and "encoder.1" in anew  # codes are alike, patches are not
    model = Zoo.load(f"local-dir:{tmp_path / 'mine'}")
    assert model.event_shape == (3, 8, 8)
    assert set(taken) | set(anew) == {name.rpartition(".")[0] for name in model.state_dict()}
    begun = build_model({"class": "vae.VAE", **model.hparams})
    assert take_layers(begun, start) == (taken, anew)
    for name, value in start.state_dict().items():
        assert torch.equal(value, begun.state_dict()[name]) == (name.rpartition(".")[0] in taken)


def test_a_model_keeps_its_shape_or_gets_another_one(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "vae-mnist", "--data", photos, "--out", tmp_path / "mine"]
    assert "resize: expected the size of the model or another one" in fail(capsys, *words, "--resize", "--size", 8)
    assert "pass --resize" in fail(capsys, *words)
