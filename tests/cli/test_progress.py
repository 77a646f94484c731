"""Loops tell how far they are to who listens, and to nobody else."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import torch
from instances import Instance, having

from zoo import Zoo, progress
from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
from zoo.capabilities import Autoregressive, Completable
from zoo.classifier.lenet import LeNet
from zoo.cli import main
from zoo.data import Digits, files
from zoo.laws.law import seeded
from zoo.metrics import quality
from zoo.metrics.extractors import ClassifierFeatures
from zoo.metrics.quality import extract
from zoo.progress import bar, listening, steps
from zoo.training import Trainer
from zoo.vae.vae import VAE


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Log(io.StringIO):
    """A file that is no terminal."""


@pytest.mark.parametrize(("stream", "shown"), [(Log(), False), (Terminal(), True), (None, False)])
def test_training_shows_its_bar_on_a_terminal_alone(
    stream: io.StringIO | None,
    shown: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    trainer = Trainer(tmp_path, max_steps=2, accelerator="cpu", sample_grids=False)
    trainer.fit(VAE(event_shape=[1, 8, 8], latent_dim=2, channels=4, hidden=4), Digits(binarize=True))
    assert capsys.readouterr().out == ""
    assert not shown or (stream is not None and "Epoch 0" in stream.getvalue())
    assert shown or stream is None or stream.getvalue() == ""


def test_downloads_show_their_bar_on_a_terminal_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(address: str, path: str, hash_prefix: str, progress: bool) -> None:
        Path(path).write_bytes(b"")
        asked.append(progress)

    class Theirs:
        def __init__(self, folder: str, download: bool) -> None:
            Path(folder, "b").write_bytes(b"")
            print("100%", file=sys.stderr)

    monkeypatch.setattr(files, "download_url_to_file", download)
    for number, stream in enumerate((Log(), Terminal())):
        monkeypatch.setattr(sys, "stderr", stream)
        files.fetch(tmp_path / str(number), [files.Published("a", "", "there")])
        files.fetch(tmp_path / str(number), [files.Published("b", "", "there")], Theirs)
        assert stream.getvalue() == ("100%\n" if number else "")
    assert asked == [False, True]


def test_nobody_listens() -> None:
    items = range(3)
    assert steps(items, "row") is items


def test_loops_inside_loops_add_up() -> None:
    told: list[tuple[float, str]] = []
    with listening(lambda over, places: told.append((over, places))):
        for batch in steps(["a", "b"], "batch"):
            for row in steps(torch.arange(4 if batch == "a" else 2), "row"):
                assert row.ndim == 0
        for _ in steps([None], "image"):
            break
    assert told == [
        (0.0, "batch 1/2"),
        (0.0, "batch 1/2, row 1/4"),
        (0.125, "batch 1/2, row 2/4"),
        (0.25, "batch 1/2, row 3/4"),
        (0.375, "batch 1/2, row 4/4"),
        (0.5, "batch 2/2"),
        (0.5, "batch 2/2, row 1/2"),
        (0.75, "batch 2/2, row 2/2"),
        (0.0, ""),
    ]
    assert steps(items := range(3), "row") is items


@having(Autoregressive, Completable)
def test_what_draws_pixel_by_pixel_tells_within_a_batch(instance: Instance) -> None:
    model, told = instance.build(), []
    expected = model.sample(3, generator=seeded())
    with listening(lambda over, places: told.append((over, places))):
        assert torch.equal(model.sample(3, generator=seeded()), expected)
    parts = [over for over, _ in told]
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] < 1
    if (size := len(told) - 1) > 1:  # but for the block of a small MADE
        name = told[-1][1].split()[0]
        assert name in ("row", "pixel") and told[-1] == (pytest.approx(1 - 1 / size), f"{name} {size}/{size}")
    x = instance.data(3)
    mask = (torch.arange(x[0].numel()) < 1).view(instance.event_shape)
    told.clear()
    with listening(lambda over, places: told.append((over, places))):
        model.complete(x, mask, batch_size=2)
    assert told[0] == (0, "batch 1/2") and told[-1][1].startswith("batch 2/2")


def test_a_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0)
    for stream, shown, seen in ((Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with bar("baking", shown=shown):
            assert [*steps(range(4), "loaf")] == [0, 1, 2, 3]
        assert (
            ("baking:  50%|" in stream.getvalue() and "loaf 3/4" in stream.getvalue())
            == seen
            == bool(stream.getvalue())
        )


def test_features_of_samples_show_how_far_a_batch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "INTERVAL", 0)
    model = GatedPixelCNN([1, 16, 16], channels=2, num_layers=1)
    extractor = ClassifierFeatures(LeNet([1, 16, 16], channels=2, num_features=8).eval(), "lenet")
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        features = extract(model.iter_samples(6, batch_size=3), extractor, 6, label="samples")
        assert len(features.values) == 6
        assert ("batch 2/2, row 16/16" in stream.getvalue()) == shown == bool(stream.getvalue())


def test_commands_show_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = GatedPixelCNN([1, 8, 8], channels=2, num_layers=1)
    Zoo.save(model, tmp_path / "gated", recipe={"name": "gated", "data": {"class": "Digits", "binarize": True}})
    monkeypatch.setattr(progress, "INTERVAL", 0)
    for command, *words in (["sample"], ["complete", "--draws", "2"], ["probabilities"], ["animate", "--frames", "2"]):
        monkeypatch.setattr(sys, "stderr", stream := Terminal())
        out = tmp_path / f"{command}.gif"
        assert main([command, f"local-dir:{tmp_path / 'gated'}", "-n", "2", "--out", str(out), *words]) == 0
        assert "ing:  50%|" in stream.getvalue() and "row 5/8" in stream.getvalue()
