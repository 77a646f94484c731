"""What runs otherwise on a GPU: recurrent layers as one kernel, and steps of training that graphs can hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo.catalog import Zoo
from zoo.errors import ConfigError
from zoo.nn.fused import is_fused
from zoo.random import Streams, key_of, rand
from zoo.training import together
from zoo.training.recipe import fit, load_recipe, override

RECIPE = {
    "name": "tiny",
    "seed": 3,
    "data": {"class": "Digits", "binarize": True, "batch_size": 8},
    "model": {
        "class": "zoo.autoregressive.gated_pixelcnn.GatedPixelCNN",
        "event_shape": [1, 8, 8],
        "channels": 4,
        "num_layers": 2,
        "hidden": 4,
        "dropout": 0.3,
        "max_shift": 1,
    },
    "optimization": {
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 0.1,
        "schedule": "linear",
        "warmup": 3,
        "gradient_clip": 1.0,
    },
    "trainer": {"max_steps": 10, "ema_decay": 0.9},
}


def test_recurrent_layers_as_one_kernel_are_those_step_by_step() -> None:
    """In a process of its own, as Triton's interpreter must be there before Triton is."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("interpreted_scans.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lstm", "lstm", "lstm", "gru", "gru"]


def test_the_cpu_takes_steps_and_not_kernels() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_fused(torch.zeros(1), 16, 32)


def test_streams_with_a_key_in_a_tensor_draw_the_same() -> None:
    index = torch.tensor([4, 0, 7])
    streams, keyed = Streams(2, index, 5), together._Keyed(torch.tensor(key_of(2, 5)), index)
    for _ in range(2):
        assert rand((3, 2, 2), keyed).equal(rand((3, 2, 2), streams))
    assert rand((3, 4), together._Once(keyed.next())).equal(rand((3, 4), streams))


def test_a_run_beside_others_takes_the_steps_of_fit(tmp_path: Path) -> None:
    alone = fit(RECIPE, tmp_path / "alone")
    run = together.Run(RECIPE, torch.device("cpu"))
    for step in range(10):
        run.advance(step / 10)
    assert "tiny 10/10" in run.note()
    run.export(tmp_path / "tiny")
    shipped = Zoo.load(f"local-dir:{tmp_path / 'tiny'}").state_dict()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shipped[name], value, rtol=0, atol=1e-6)


def test_the_recipe_of_a_run_says_how_many_steps_it_took(tmp_path: Path) -> None:
    run = together.Run(RECIPE, torch.device("cpu"))
    together.train([run], 1e-6)
    taken = run.step
    assert taken < 10
    run.advance(0.9)
    run.export(tmp_path / "tiny")
    recipe = load_recipe(tmp_path / "tiny" / "recipe.yaml")
    assert recipe == override(RECIPE, {"trainer.max_steps": taken + 1})


def test_what_cannot_be_trained_beside_others_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="max_steps"):
        together.Run(override(RECIPE, {"trainer": {"max_epochs": 1}}), torch.device("cpu"))
    vae = {"class": "zoo.vae.vae.VAE", "event_shape": [1, 8, 8]}
    with pytest.raises(ConfigError, match="TractableDensity"):
        together.Run(override(RECIPE, {"model": vae}), torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="GPU"):
        together.main([str(tmp_path / "recipe.yaml"), "--out", str(tmp_path), "--minutes", "1"])
