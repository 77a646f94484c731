"""Cards as the Hub reads them, and the curves that they show."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image

import zoo
from zoo import Zoo
from zoo.store import registry as records
from zoo.store import release
from zoo.training.curve import curve_table, draw_curve, read_logs
from zoo.training.recipe import make


@pytest.mark.parametrize("name", release.shipped_names())
def test_the_metadata_of_a_card_survive_the_hubs_own_reading(name: str) -> None:
    folder = records.SHIPPED / name
    card = ModelCard((folder / "README.md").read_text())
    data = ModelCardData(**card.data.to_dict(), ignore_metadata_errors=False)
    assert (data.library_name, data["library_version"], data.license) == ("generative-zoo", zoo.__version__, "mit")
    assert data.model_name == name and data.to_yaml() == card.data.to_yaml()
    recorded = list(Zoo.info(name).records)
    sets = [number["data"] for number in recorded]
    recorded.sort(key=lambda number: sets.index(number["data"]))  # the metadata have the numbers of each set together
    assert len(data.eval_results or []) == len(recorded) > 0
    for result, number in zip(data.eval_results or [], recorded, strict=True):
        assert (result.metric_type, result.metric_value) == (number["name"], number["value"])
        assert (result.dataset_name, result.dataset_split) == (number["data"], number["split"])
        assert (result.metric_args["n"], result.metric_args.get("error")) == (number["n"], number["error"])
    published = {
        "cifar10": "uoft-cs/cifar10",
        "fashion-mnist": "zalando-datasets/fashion_mnist",
        "mnist": "ylecun/mnist",
    }
    expected = next((address for title, address in published.items() if title in name), None)
    is_published = {number["data"] for number in recorded} & published.keys()
    assert data.datasets == (expected if is_published else None)


@pytest.mark.parametrize("name", release.shipped_names())
def test_a_card_shows_paper_commands_and_pictures_that_are_there(name: str) -> None:
    folder = records.SHIPPED / name
    card = ModelCard((folder / "README.md").read_text())
    assert ("arxiv.org/abs/" in card.text.split("```")[0]) == any(tag.startswith("arxiv:") for tag in card.data.tags)
    for number in Zoo.info(name).records:
        _, _, evaluated, *options = number["command"].split()
        assert evaluated.removeprefix("local-dir:") == name
        assert f"`{' '.join(['zoo evaluate', name, *options])}`" in card.text
        if classes := number["details"].get("classes"):
            line = ", ".join(f"{label}: {share:.1f}" for label, share in classes.items())
            assert f"{line}." in card.text and line in str(Zoo.info(name))
    for picture in ("samples.png", "curve.png"):
        assert (f"]({picture})" in card.text) == (folder / picture).exists()
    if (folder / "curve.png").exists():
        assert (folder / "curve.png").stat().st_size < 40_000
        assert Image.open(folder / "curve.png").format == "PNG"
    else:
        assert "ClosedForm" in Zoo.info(name).capabilities


def write_log(run: Path, version: int, rows: list[dict[str, float]]) -> None:
    path = run / "logs" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted(set().union(*rows)))
        writer.writeheader()
        writer.writerows(rows)


def test_the_log_of_a_resumed_run_goes_over_the_one_before(tmp_path: Path) -> None:
    write_log(tmp_path, 2, [{"step": 9, "train/loss": 3.0, "epoch": 0}, {"step": 19, "valid/nll": 7.0}])
    write_log(tmp_path, 10, [{"step": 9, "train/loss": 2.0}])
    assert read_logs(tmp_path) == {"train/loss": {10: 2.0}, "valid/nll": {20: 7.0}}


def test_a_curve_goes_where_the_numbers_go(tmp_path: Path) -> None:
    """A line from the upper left to the lower right in one panel, and one that rises in the other."""
    steps = range(100, 1100, 100)
    rows = [{"step": s - 1, "train/loss": 2000.0 - s, "valid/nll": float(s), "train/lr": 9e9} for s in steps]
    write_log(tmp_path, 0, rows)
    content = draw_curve(tmp_path)
    assert content is not None
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    blue = (abs(pixels - [0x1F, 0x5F, 0xA8]).sum(-1) < 60)[24:]  # below the titles
    for panel, slope in zip(np.split(blue, 2, axis=1), (1, -1), strict=True):
        down, across = panel.nonzero()
        assert np.corrcoef(down, across)[0, 1] == pytest.approx(slope, abs=0.01)
    first, *others = csv.reader(curve_table(tmp_path).decode().splitlines())
    assert first == ["step", "train/loss", "valid/nll"]
    assert others == [[str(s), str(2000 - s), str(s)] for s in steps]


@pytest.mark.parametrize("last", [20_000, 110_000, 9_990])
def test_no_label_of_a_curve_is_cut_off(tmp_path: Path, last: int) -> None:
    write_log(tmp_path, 0, [{"step": s - 1, "train/loss": 1e-5 * s, "valid/nll": -1234.5 * s} for s in (50, last)])
    content = draw_curve(tmp_path)
    assert content is not None
    is_white = (np.asarray(Image.open(io.BytesIO(content)).convert("L")) > 240).astype(bool)
    assert is_white[:, 0].all() and is_white[:, -1].all() and is_white[0].all() and is_white[-1].all()


def test_what_has_no_curve_gets_none(tmp_path: Path) -> None:
    assert draw_curve(tmp_path) is None
    write_log(tmp_path, 0, [{"step": 99, "valid/nll": 1.0}, {"step": 199, "valid/nll": 2.0}])
    assert draw_curve(tmp_path) is None
    assert not (
        make(tiny_runs.recipe("closed-form", max_epochs=1), tmp_path / "gaussian").folder / "curve.png"
    ).exists()


def test_training_gives_the_card_its_curve(tmp_path: Path) -> None:
    folder = make(tiny_runs.recipe("adversarial"), tmp_path / "gan").folder
    assert Image.open(folder / "curve.png").size == (840, 240)  # training beside validation
    assert "](curve.png)" in (folder / "README.md").read_text()
    assert "](curve.csv)" in (folder / "README.md").read_text()
    assert (folder / "curve.csv").read_text().startswith("step,train/critic_loss,train/generator_loss,")
