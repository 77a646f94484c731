"""What the comparisons in `benchmarks` print and draw is what they measured, and what the pages say of them is true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from scipy import stats
from test_metrics import Projection
from torch import Tensor
from torch.nn import functional as F

from zoo import Zoo
from zoo.data import Digits
from zoo.data.base import Split
from zoo.diffusion import EDM
from zoo.errors import ConfigError
from zoo.metrics.distances import precision_recall
from zoo.metrics.extractors import ClassifierFeatures
from zoo.metrics.quality import evaluate_quality, extract, reference_of, scores
from zoo.pictures import grid
from zoo.samplers import Heun
from zoo.training.recipe import begin, make

ROOT = Path(__file__).parents[2]
import confetti  # noqa: E402
import defects  # noqa: E402
import gan_stability  # noqa: E402
import metric_response  # noqa: E402
import sampler_curve  # noqa: E402

# ------------------------------------------------------------------------------- spread of a GAN over training seeds

EXTRACTOR = ClassifierFeatures(Projection((1, 8, 8), 16), "projection")
RECIPES: dict[str, Any] = {
    "plain": tiny_runs.recipe("adversarial", max_epochs=1),
    "minimax": tiny_runs.recipe("adversarial", model={"loss": "minimax"}, max_epochs=1),
    "elsewhere": {**tiny_runs.recipe("adversarial"), "data": {"class": "MNIST"}},
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The benchmark with recipes of 12 steps; gives the seeds that it has trained."""
    trained: list[int] = []

    def train(recipe: dict[str, Any], extractor: Any, num: int, folder: Path) -> dict[str, Any]:
        trained.append(recipe["seed"])
        return original(recipe, extractor, num, folder)

    original = gan_stability.train_and_measure
    checkpoints = {name: SimpleNamespace(settings=recipe, data=Digits) for name, recipe in RECIPES.items()}
    found = gan_stability.checkpoint
    monkeypatch.setattr(gan_stability, "checkpoint", lambda name: checkpoints.get(name) or found(name))
    monkeypatch.setattr(gan_stability, "load_extractor", lambda name: EXTRACTOR)
    monkeypatch.setattr(gan_stability, "train_and_measure", train)
    return trained


def test_runs_of_a_gan_are_measured_kept_and_summed_up(
    tiny: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "runs.json"
    options = ["plain", "minimax", "--num", "150", "--out", str(out)]
    gan_stability.main([*options, "--seeds", "2"])
    runs = json.loads(out.read_text())["runs"]
    assert [(run["name"], run["seed"]) for run in runs] == [("minimax", 0), ("plain", 0), ("minimax", 1), ("plain", 1)]
    assert len({run["weights_sha256"] for run in runs}) == 4 and tiny == [0, 0, 1, 1]

    # more seeds: interrupted in one, it goes on with that one
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gan_stability, "make", lambda *_, **__: raise_(KeyboardInterrupt))
        gan_stability.main([*options, "--seeds", "3"])
    assert json.loads(out.read_text())["runs"] == runs
    tiny.clear()
    gan_stability.main([*options, "--seeds", "3"])
    assert tiny == [2, 2]
    all_runs = json.loads(out.read_text())["runs"]
    assert [run for run in all_runs if run["seed"] < 2] == runs and len(all_runs) == 6

    # another recipe or another way to measure would be mixed with these
    tiny.clear()
    for changed in (["--steps", "5"], ["--num", "151"], ["--seeds", "2"]):
        with pytest.raises(ConfigError, match=r"runs\.json: .* runs are of other recipes or settings"):
            gan_stability.main([*options, "--seeds", "3", *changed])
    assert not tiny and json.loads(out.read_text())["runs"] == all_runs

    # what is printed is the mean and standard deviation over the seeds
    capsys.readouterr()
    gan_stability.main([*options, "--seeds", "3"])
    assert not tiny
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "seeds", "fid", "kid", "precision", "recall"]
    for name, line in zip(("plain", "minimax"), lines, strict=True):
        mine = [[run[column] for column in head.split()[2:]] for run in all_runs if run["name"] == name]
        wanted = zip(np.mean(mine, 0), stats.tstd(mine, axis=0), strict=True)
        assert line.split() == [name, "3", *" ".join(f"{mean:.3f} +- {std:.3f}" for mean, std in wanted).split()]

    # and each number is that of the checkpoint which the recipe makes, on images that its training has not seen
    run = next(run for run in all_runs if (run["name"], run["seed"]) == ("minimax", 1))
    recipe = {**RECIPES["minimax"], "seed": 1}
    folder = make(recipe, tmp_path / "model").folder
    metrics = json.loads((folder / "metrics.json").read_text())
    assert run["weights_sha256"] == metrics["weights_sha256"]
    model = begin({**recipe, "start": f"local-dir:{folder}"}).eval()
    samples = model.iter_samples(150, generator=torch.Generator().manual_seed(0))
    measured = evaluate_quality(samples, Digits(seed=1), EXTRACTOR, num=150, reference="valid", progress=False)
    for number in measured:
        if number.name in gan_stability.COLUMNS:
            assert run[number.name] == pytest.approx(number.value, rel=1e-6)


def raise_(kind: type[BaseException]) -> Any:
    raise kind


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(tiny: list[int], tmp_path: Path) -> None:
    for names, num, message in (
        (["plain", "elsewhere"], "150", "elsewhere: expected the data of plain"),
        (
            ["plain"],
            "16",
            "--num: expected more than the 16 features of projection and at most the 200 held-out images",
        ),
        (["plain"], "201", "found 201"),
    ):
        with pytest.raises(ConfigError, match=message):
            gan_stability.main([*names, "--num", num, "--out", str(tmp_path / "runs.json")])
    assert not tiny and not list(tmp_path.iterdir())


def test_the_page_says_what_the_recorded_runs_say() -> None:
    runs = json.loads((ROOT / "benchmarks/results/gan_stability.json").read_text())["runs"]
    page = (ROOT / "docs/numbers.md").read_text()
    rows = re.findall(r"\| .*? \| \**(\S+) \+- ([\d.]+)\** \| ([\d.]+) \| ([\d.]+) \|\n", page)
    for name, row in zip(gan_stability.NAMES, rows, strict=True):
        mine = [run for run in runs if run["name"] == name]
        assert sorted(run["seed"] for run in mine) == list(range(5))
        assert {run["steps"] for run in mine} == {Zoo.info(name).settings["trainer"]["max_steps"]}
        fid, precision, recall = ([run[column] for run in mine] for column in ("fid", "precision", "recall"))
        expected = (
            f"{np.mean(fid):.1f}",
            f"{stats.tstd(fid):.1f}",
            f"{np.mean(precision):.3f}",
            f"{np.mean(recall):.3f}",
        )
        assert row == expected
    spread = {name: stats.tstd([run["fid"] for run in runs if run["name"] == name]) for name in gan_stability.NAMES}
    steadier = [name for name in gan_stability.NAMES if spread[name] < spread["dcgan-mnist"] / 2]
    assert steadier == ["dcgan-mnist.gradient-penalty"]


# --------------------------------------------------------------------------------------- what do the metrics notice?


class Enlarged(Digits):
    """Digits as large as those of MNIST."""

    event_shape = (1, 28, 28)

    def load(self, which: Any) -> Split:
        split = super().load(which)
        large = F.interpolate(split.x.float(), (20, 20), mode="bilinear")
        return Split(F.pad(large, (4, 4, 4, 4)).round().to(torch.uint8), split.labels)


class Negatives(Enlarged):
    def load(self, which: Any) -> Split:
        split = super().load(which)
        return Split(255 - split.x, split.labels)


NUM, WEAK, STRONG = 280, 1, 2
Study = tuple[dict[str, list[dict[str, Any]]], dict[str, Tensor]]


@pytest.fixture(scope="module")
def study() -> Iterator[Study]:
    """Rows by name, and the images that were measured by label."""
    measured: dict[str, Tensor] = {}

    def extract(images: Any, *arguments: Any, label: str, **options: Any) -> Any:
        batches = list(images)
        measured[label] = torch.cat(batches)
        return original(batches, *arguments, label=label, progress=False)

    original = metric_response.extract
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_response, "MNIST", Enlarged)
        patch.setattr(metric_response, "FashionMNIST", Negatives)
        patch.setattr(metric_response, "extract", extract)
        strengths = {name: (0.0, v[1], v[3]) for name, v in metric_response.STRENGTHS.items()}
        patch.setattr(metric_response, "STRENGTHS", strengths)
        metric_response.corruptions.cache_clear()
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in metric_response.study(NUM):
            rows.setdefault(row["images"], []).append(row)
        yield rows, measured
    metric_response.corruptions.cache_clear()


def test_corruption_of_strength_zero_changes_no_metric_and_more_raises_the_distances(study: Study) -> None:
    rows, measured = study
    (start,) = rows["training images"]
    assert {"fid", "kid", "inception_score", "precision", "recall"} <= start.keys()
    for name in metric_response.STRENGTHS:
        none, weak, strong = rows[name]
        assert torch.equal(measured[f"{name} 0"], measured["training images 0"])
        assert {**none, **{key: start[key] for key in ("images", "level")}} == start
        assert [row["level"] for row in rows[name]] == [1, 2, 3]
        assert start["fid"] < weak["fid"] < strong["fid"], name
        assert start["kid"] < weak["kid"] < strong["kid"], name


def test_sets_without_a_spoiled_image_are_what_they_are_called(study: Study) -> None:
    rows, measured = study
    train = Enlarged().split("train")
    assert train.labels is not None
    label_of = {x.numpy().tobytes(): int(label) for x, label in zip(train.x, train.labels, strict=True)}

    def labels(name: str) -> list[int]:
        images = (measured[f"{name} 0"] * 255).round().to(torch.uint8)
        return [label_of[x.numpy().tobytes()] for x in images]  # each is a training image

    assert all(len(images) == NUM for images in measured.values())
    assert set(labels("training images")) == set(labels("memoriser")) == set(range(10))
    assert set(labels("class left out")) == set(range(10)) - {metric_response.LEFT_OUT}
    few = measured["one per class 0"]
    assert len(few.unique(dim=0)) == 10 and len(measured["memoriser 0"].unique(dim=0)) < NUM
    assert len(measured["class left out 0"].unique(dim=0)) > 0.98 * NUM

    (start,), (copies,), (dropper,), (one,) = (
        rows[name] for name in ("training images", "memoriser", "class left out", "one per class")
    )
    assert dropper["recall"] < start["recall"] and dropper["precision"] > start["precision"] - 0.03
    assert one["recall"] == 0 and one["inception_score"] > start["inception_score"] and one["fid"] > 5 * start["fid"]
    assert abs(copies["precision"] - start["precision"]) < 0.03 and copies["recall"] > start["recall"] - 0.1

    # what the dropper loses is the class that it leaves out
    extractor, test = metric_response.load_extractor("lenet-mnist"), Enlarged().split("test")
    assert test.labels is not None

    def recall(name: str, images: Tensor) -> float:
        features = (extractor(x) for x in (measured[f"{name} 0"], images))
        return precision_recall(*features)[1][0]

    left_out = test.labels == metric_response.LEFT_OUT
    for images, kept in ((test.x[left_out], False), (test.x[~left_out], True)):
        drop = recall("training images", images) - recall("class left out", images)
        assert (drop < 0.05) if kept else (drop > 0.2)


@pytest.mark.parametrize("metric", list(metric_response.METRICS))
def test_the_figure_shows_each_number_at_its_height(metric: str) -> None:
    """Lines begin at the training images and go through every level; marks are at the numbers of the sets."""
    from matplotlib.figure import Figure

    rows = json.loads((ROOT / "benchmarks/results/metric_response.json").read_text())["rows"]
    axes = Figure().add_subplot()
    metric_response.draw_panel(axes, rows, metric)
    assert axes.get_yscale() == ("log" if metric in ("fid", "kid") else "linear")
    lines = {str(line.get_label()): line for line in axes.lines}
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["images"].replace("_", " "), []).append(row[metric])
    low, high = axes.get_ylim()
    assert all(low <= value <= high for column in values.values() for value in column)
    for name, colour in zip(metric_response.STRENGTHS, metric_response.COLOURS, strict=True):
        line = lines.pop(name.replace("_", " "))
        assert line.get_color() == colour and np.array_equal(np.asarray(line.get_xdata()), np.arange(5))
        assert [*line.get_ydata()] == values["training images"] + values[name.replace("_", " ")]
    titles = {label: name for name, (_, label) in metric_response.MARKERS.items()}
    assert {titles[label]: [*line.get_ydata()] for label, line in lines.items()} == {
        name: values[name] for name in metric_response.SETS
    }


def test_the_recorded_table_and_what_the_page_says_of_it() -> None:
    record = json.loads((ROOT / "benchmarks/results/metric_response.json").read_text())
    printed = (ROOT / "benchmarks/results/metric_response.txt").read_text()
    assert printed == f"{metric_response.table(record['rows'], record['num'])}\n"

    def of(name: str, metric: str) -> list[float]:
        return [row[metric] for row in record["rows"] if row["images"] == name]

    start = {metric: of("training images", metric)[0] for metric in metric_response.METRICS}
    for metric in ("fid", "kid"):  # notice every flaw but the memoriser
        for name in metric_response.STRENGTHS:
            values = [start[metric], *of(name, metric)]
            assert sorted(values) == values and values[1] > 1.4 * values[0]
        assert min(of("class left out", metric) + of("one per class", metric)) > 1.4 * start[metric]
        assert of("memoriser", metric)[0] < 1.05 * start[metric]
    assert of("one per class", "inception_score")[0] > start["inception_score"]
    assert min(of("noise", "precision") + of("blur", "precision")) > start["precision"] - 0.03
    assert min(of("foreign", "recall")) > start["recall"] - 0.02


# ------------------------------------------------------------------------------------------------------------ samplers


def test_the_curve_of_samplers_counts_the_evaluations_that_they_make(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, counts = EDM((1, 8, 8), channels=(4, 4)).eval(), []
    original = EDM.denoise

    def denoise(self: EDM, y: Tensor, sigma: Tensor, **given: Any) -> Tensor:
        counts.append(len(y))
        return original(self, y, sigma, **given)

    monkeypatch.setattr(EDM, "denoise", denoise)
    source = SimpleNamespace(load=lambda: model, data=Digits)
    monkeypatch.setattr(sampler_curve, "checkpoint", lambda name: source)
    monkeypatch.setattr(sampler_curve, "default_extractor", lambda data: "projection")
    monkeypatch.setattr(sampler_curve, "load_extractor", lambda name: EXTRACTOR)
    rows = sampler_curve.study("edm-digits", 40, 10)
    assert {row["sampler"] for row in rows} == sampler_curve.SAMPLERS.keys()
    assert [row["evaluations"] for row in rows if row["sampler"] == "Heun"] == [1, 5, 9]
    assert sum(counts) == 40 * sum(row["evaluations"] for row in rows)
    extracted = extract(
        [model.sample(40, sampler=Heun(3), generator=torch.Generator().manual_seed(0))], EXTRACTOR, 40, label=""
    )
    truth = reference_of(Digits(), "test", EXTRACTOR, 10_000, seed=0)
    (row,) = (row for row in rows if (row["sampler"], row["evaluations"]) == ("Heun", 5))
    assert row["fid"] == pytest.approx(scores(extracted, truth, seed=0)["fid"][0])
    record = {"name": "edm-digits", "num": 40, "rows": rows}
    assert len(str(sampler_curve.table(record)).splitlines()) == 4 + len(rows)
    sampler_curve.draw_figure(record, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


# ------------------------------------------------------------------------------------------ are defects found?


def test_the_page_has_the_table_of_defects_and_says_what_it_shows() -> None:
    record = json.loads((ROOT / "benchmarks/results/defects.json").read_text())
    page = (ROOT / "docs/own-data.md").read_text()
    assert defects.table(record["rows"]) in page
    value = {(row["task"], row["method"]): row["auroc"] for row in record["rows"]}
    scratch, ours = "parts, a scratch", "`score --new`"
    assert value[scratch, ours] > 0.99 > 0.95 > value[scratch, "likelihood, Gaussian"]
    assert value["clothes, digits", "bound, fine-tuned VAE"] < 0.2
    assert max(row["auroc"] for row in record["rows"] if row["task"] == "digits 0 to 8, digit 9") < 0.6
    rates = {row["task"]: row for row in record["rates"]}
    told = re.search(r"(\S+) % of the\nheld-out good parts and (\S+) % of the scratched ones", page)
    assert told is not None
    assert [float(word) for word in told.groups()] == pytest.approx(
        [100 * rates[scratch]["false_alarms"], 100 * rates[scratch]["found"]]
    )


def test_a_scratch_is_found_by_patches_and_a_blank_by_all() -> None:
    good, held_out = defects.parts(40, 1), defects.parts(60, 2)
    methods = {name: defects.METHODS[name] for name in ("`score --new`", "likelihood against PNG")}
    scratched = (good, held_out, defects.parts(40, 3, scratched=True))
    ours, other = defects.measure("scratch", scratched, methods)
    assert ours["auroc"] > 0.95 and ours["auroc"] > other["auroc"]
    assert all(
        row["auroc"] > 0.95 for row in defects.measure("blank", (good, held_out, defects.blanks(10, 4)), methods)
    )
    false_alarms, found = defects.alarms(scratched)
    assert false_alarms < 0.1 and found > 0.7


# ------------------------------------------------------------------------------------------ samples that dissolve


def test_samples_are_read_from_the_card_and_the_roughest_patch_counts(tmp_path: Path) -> None:
    x = torch.randint(0, 256, (5, 3, 12, 12), generator=torch.Generator().manual_seed(0)).float()
    grid(x / 255, columns=3).save(tmp_path / "samples.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confetti.Zoo, "info", lambda name: SimpleNamespace(folder=tmp_path))
        assert torch.equal(confetti.samples_of("any", 12)[:5], x)
    flat = torch.full((2, 3, 20, 20), 7.0)
    flat[0] = 255 * (torch.arange(20) % 2)  # columns of black and white
    flat[1, :, 5:14, 5:14] = 255 * (torch.arange(9) % 2)  # a patch of them and its neighbours above and to the left
    assert confetti.roughness(flat)[0] == 255 / 2 and confetti.roughness(flat)[1] >= 255 / 2


def test_the_number_of_confetti_is_that_of_the_pages(
    real_data: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["confetti.py"])
    confetti.main()
    assert capsys.readouterr().out.startswith("pixelcnn-cifar10: 2 of 64 samples have a patch of 8x8 pixels")
    assert "of the 64 on the card, 2 have a patch" in str(Zoo.info("pixelcnn-cifar10").recipe)
