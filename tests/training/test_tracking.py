"""Runs in Weights & Biases: the real client, offline, and what its files hold."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from PIL import Image
from tracked_run import contents

from zoo.errors import CheckpointError, ConfigError
from zoo.store import save as save_module
from zoo.training import Trainer, callbacks
from zoo.training.recipe import make


def test_an_offline_run_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracked = {"project": "zoo", "offline": True, "settings": {"x_stats_sampling_interval": 0.1}}
    recipe = tiny_runs.recipe("likelihood", sample_grids=True, wandb=tracked)
    folder = make({**recipe, "name": "vae", "evaluation": {"k": 60}}, tmp_path / "vae").folder

    assert "WANDB_MODE" not in os.environ and wandb.run is None  # the next run in this process is on its own
    wandb.teardown()  # until all is written
    run = contents(tmp_path / "vae.run")
    assert run["exit"] == 0
    history = run["history"]
    assert len(history["train/loss"]) == len(history["train/lr"]) == 10 and len(history["valid/neg_elbo"]) == 3
    assert history["train/lr"][0] == pytest.approx(3e-3) and history["train/lr"][-1] == 0
    assert max(history["trainer/global_step"]) == 36
    assert len(run["pictures"]) == 3 and all(Image.open(path).size[0] > 100 for path in run["pictures"])
    assert any("cpu" in name for name in run["system"])

    numbers = json.loads((folder / "metrics.json").read_text())["measurements"]
    assert {"test/neg_elbo_nats", "test/nll_nats", "test/nll_bits_per_dim"} <= history.keys()
    assert history["test/nll_nats"] == [next(m["value"] for m in numbers if (m["name"], m["unit"]) == ("nll", "nats"))]
    (files,) = run["artifacts"].values()
    assert files == sorted(path.name for path in folder.iterdir())
    assert {"config.json", "model.safetensors", "metrics.json", "curve.png"} <= set(files)


def test_a_run_that_fails_is_finished_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, and when its checkpoint is written: nothing is left open in the process, and W&B shows a failure."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked = {"project": "zoo", "offline": True}
    for name, (owner, function) in {
        "training": (callbacks, "write_atomically"),
        "export": (save_module, "write_new"),
    }.items():
        with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="No space left on device"):
            patch.setattr(owner, function, tiny_runs.full)
            make(tiny_runs.recipe("likelihood", max_epochs=1, wandb=tracked), tmp_path / name)
        assert wandb.run is None
    wandb.teardown()  # until all is written
    for name in ("training", "export"):
        run = contents(tmp_path / f"{name}.run")
        assert run["exit"] == 1 and not run["artifacts"] and not (tmp_path / name).exists()


def test_without_wandb_asking_for_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"wandb: the package cannot be imported \(.*\); pip install wandb") as error:
        Trainer(tmp_path, accelerator="cpu", wandb={"project": "zoo"})
    assert "\n" not in str(error.value)
    assert make(tiny_runs.recipe("likelihood", max_epochs=1), tmp_path / "vae").folder.is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projekt": "zoo"}, "no option 'projekt'; did you mean 'project'"),
        ({"offline": True, "log_model": True}, "leave out log_model; the finished checkpoint is logged anyway"),
        ({"project": "zoo"}, "No API key configured.*wandb login.*offline: true"),
    ],
)
def test_what_wandb_cannot_do_is_said_before_anything_is_made(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=f"^trainer: wandb: {message}") as error:
        make(tiny_runs.recipe("likelihood", wandb=options), tmp_path / "vae")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "vae").exists() and not (tmp_path / "vae.run").exists()
