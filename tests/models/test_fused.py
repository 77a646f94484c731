"""What runs otherwise on a GPU: recurrent layers as one kernel, and steps of training that graphs can hold."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from zoo.errors import ConfigError, ZooError
from zoo.nn.fused import is_fused
from zoo.nn.gated import GatedLayer
from zoo.random import Streams, key_of, rand
from zoo.store.zoo import Zoo
from zoo.training import together
from zoo.training.recipe import fit, load_recipe, override

COLOR = {
    "class": "zoo.autoregressive.color_pixelcnn.ColorPixelCNN",
    "channels": 4,
    "num_layers": 1,
    "hidden": 4,
    "num_logistics": 2,
}
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
    script = Path(__file__).parents[1] / "support" / "interpreted_scans.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lstm", "lstm", "lstm", "gru", "gru"]


@pytest.mark.parametrize(
    ("width", "is_cuda", "capability", "fused"),
    [
        (16, True, (9, 0), True),
        (16, False, (9, 0), False),
        (16, True, (7, 5), False),  # no bfloat16
        (64, True, (8, 6), True),
        (128, True, (8, 6), False),  # too little shared memory
        (128, True, (9, 0), True),
        (256, True, (9, 0), False),
        (24, True, (9, 0), False),
        (8, True, (9, 0), False),
    ],
)
def test_where_kernels_take_the_place_of_steps(
    width: int, is_cuda: bool, capability: tuple[int, int], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x: Any = SimpleNamespace(is_cuda=is_cuda, device="cuda", dtype=torch.float32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("zoo.nn.fused.find_spec", lambda name: object())
    assert not is_fused(x, width, 128)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    assert is_fused(x, width, 128) == fused


def test_streams_with_a_key_in_a_tensor_draw_the_same() -> None:
    index = torch.tensor([4, 0, 7])
    streams, keyed = Streams(2, index, 5), together._Keyed(torch.tensor(key_of(2, 5)), index)
    for _ in range(2):
        assert rand((3, 2, 2), keyed).equal(rand((3, 2, 2), streams))
    assert rand((3, 4), together._Once(keyed.next())).equal(rand((3, 4), streams))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_beside_others_takes_the_steps_of_fit(optimizer: str, tmp_path: Path) -> None:
    recipe = override(RECIPE, {"optimization.optimizer": optimizer})
    alone = fit(recipe, tmp_path / "alone")
    run = together.Run(recipe, torch.device("cpu"))
    for step in range(10):
        run.advance(step / 10)
    assert "tiny 10/10" in run.note()
    run.export(tmp_path / "tiny")
    shipped = Zoo.load(f"local-dir:{tmp_path / 'tiny'}").state_dict()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shipped[name], value, rtol=0, atol=1e-6)


def clocked(monkeypatch: pytest.MonkeyPatch, tick: float) -> None:
    """Each look at the clock finds it `tick` seconds later."""
    times = itertools.count()
    monkeypatch.setattr(together.time, "monotonic", lambda: next(times) * tick)


def test_runs_keep_pace_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch, 0.01)
    runs = [together.Run(override(RECIPE, {"trainer.max_steps": n}), torch.device("cpu")) for n in (10, 40)]
    paces = []
    for run in runs:
        advance = run.advance
        run.advance = lambda progress, run=run, advance=advance: (  # type: ignore[method-assign]
            paces.append(run.step / run.num_steps - progress),
            advance(progress),
        )
    assert together.train(runs, 3) == runs
    assert [run.step for run in runs] == [10, 40] and max(paces) < 0.01


def test_a_schedule_ends_with_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch, 0.1)
    run = together.Run(override(RECIPE, {"trainer.max_steps": 1000}), torch.device("cpu"))
    together.train([run], 3)
    assert 20 < run.step < 31 and 0 < run.lr < 0.05 * run.optimization.lr
    run.export(tmp_path / "tiny")
    assert load_recipe(tmp_path / "tiny" / "recipe.yaml") == override(RECIPE, {"trainer.max_steps": run.step})


def test_what_diverges_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [together.Run(RECIPE, torch.device("cpu")) for _ in range(2)]
    with torch.no_grad():
        runs[0].parameters[0].fill_(torch.nan)
    assert together.train(runs, 0.5) == runs[1:]
    assert "tiny: training diverged: loss is nan" in capsys.readouterr().out


def test_the_others_are_written_and_what_diverged_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**RECIPE, "name": name}))

    class OnCPU(together.Run):
        def __init__(self, recipe: dict[str, Any], device: torch.device) -> None:
            super().__init__(recipe, torch.device("cpu"))
            if self.name == "bad":
                torch.nn.init.constant_(self.parameters[0], torch.nan)

    answers = iter([True])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: next(answers, False))
    monkeypatch.setattr(together, "compile_layers", lambda: None)
    monkeypatch.setattr(together, "Run", OnCPU)
    files = [str(tmp_path / "bad.yaml"), str(tmp_path / "good.yaml")]
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    try:
        with pytest.raises(ZooError, match=r"^bad: training diverged$"):
            together.main([*files, "--out", str(tmp_path / "out"), "--minutes", "0.02"])
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32 = before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good", "good.run"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": {"max_epochs": 1}}, "trainer.max_epochs is not used here"),
        ({"trainer.max_steps": -1}, "max_steps, at least 1, found -1"),
        ({"trainer.precision": "16-mixed"}, "expected 32-true or bf16-mixed, found '16-mixed'"),
        ({"optimization.optimizer": "sgd"}, "expected adam, adamw or muon, found sgd"),
        ({"data.batch_size": 100_000}, "expected a batch_size up to"),
        (
            {"data": {"class": "CIFAR10", "mirror": True}, "model": COLOR},
            "on data without noise; train it by `zoo fit`",
        ),
        ({"data.binarize": False}, "likelihood of binary pixels, found 8-bit pixels"),
        ({"model": {"class": "zoo.vae.vae.VAE", "event_shape": [1, 8, 8]}}, "expected a TractableDensity"),
        (
            {"model": {"class": "zoo.density.mixture.BernoulliMixture", "event_shape": [1, 8, 8]}},
            "that gradients train",
        ),
    ],
)
def test_what_cannot_be_trained_beside_others_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ZooError, match=words):
        together.Run(override(RECIPE, changes), torch.device("cpu"))


@pytest.mark.parametrize(
    "model",
    [
        {"class": "zoo.autoregressive.made.MADE", "event_shape": [1, 8, 8], "hidden": 8, "num_masks": 2},
        {"class": "zoo.autoregressive.rnn.RNN", "event_shape": [1, 8, 8], "hidden": 8, "forcing": "scheduled"},
    ],
)
def test_training_that_asks_for_the_number_of_a_step_is_refused(model: dict[str, Any]) -> None:
    run = together.Run(override(RECIPE, {"model": model}), torch.device("cpu"))
    with pytest.raises(ConfigError, match="its training asks for the Trainer's global_step; train it by `zoo fit`"):
        run.advance(0)


def test_several_recipes_are_checked_before_any_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="expected a CUDA GPU"):
        together.main([str(path), "--out", str(out), "--minutes", "1"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="--minutes: expected a positive number"):
        together.main([str(path), "--out", str(out), "--minutes", "0"])
    with pytest.raises(ConfigError, match="a name of its own in each, found tiny"):
        together.main([str(path), str(path), "--out", str(out), "--minutes", "1"])
    (out / "tiny.run").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"tiny\.run: exists already"):
        together.main([str(path), "--out", str(out), "--minutes", "1"])


def test_layers_compiled_have_the_noise_of_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Layer(GatedLayer):
        pass

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compiler(*a, **{**k, "backend": "aot_eager"}))
    torch.manual_seed(0)
    layer, maps = Layer(4, 3), torch.randn(2, 5, 4, 6, 6)
    expected = layer(*maps, 0.3, Streams(0, range(5)))
    together._compile(Layer)
    for found, each in zip(layer(*maps, 0.3, Streams(0, range(5))), expected, strict=True):
        torch.testing.assert_close(found, each)
    once = together._Once(torch.zeros(5, dtype=torch.int64))
    once.next()
    assert once.next() is None  # a layer asks once
