"""Reference statistics: kept, found again, and never taken for what they are not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_metrics import Given, Projection, draws, pixels
from torch import Tensor

from zoo.cache import cache_root, remembered
from zoo.measurement import compare
from zoo.metrics.distances import Moments, fid, radii
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.extractors import ClassifierFeatures
from zoo.metrics.quality import baseline, evaluate_quality, reference_of

KEY = {"data": "digits", "num": 3, "seed": 0}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "statistics"


class Counting:
    """Computes, and counts how often."""

    def __init__(self, *values: float) -> None:
        self.tensors = {"x": torch.tensor(values), "n": torch.tensor(len(values))}
        self.times = 0

    def __call__(self) -> dict[str, Tensor]:
        self.times += 1
        return self.tensors


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_was_computed_is_found_by_its_key(cache: Path) -> None:
    compute = Counting(1.0, 2.0)
    for _ in range(2):
        assert same(remembered("a name/of it", KEY, compute), compute.tensors)
    assert compute.times == 1
    (path,) = cache.iterdir()
    assert path.name.startswith("a_name_of_it-") and path.suffix == ".safetensors"
    assert same(remembered("a name/of it", KEY | {"seed": 1}, Counting(3.0)), Counting(3.0).tensors)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_or_foreign_file_is_computed_anew(cache: Path) -> None:
    truth = Counting(1.0, 2.0, 3.0)
    remembered("x", KEY, truth)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    remembered("x", KEY | {"seed": 9}, Counting(7.0))
    (other,) = (file for file in cache.iterdir() if file != path)
    flipped = whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:]
    for content in (flipped, whole[:-5], whole[:9], b"", b"noise" * 50, other.read_bytes()):
        path.write_bytes(content)
        compute = Counting(1.0, 2.0, 3.0)
        assert same(remembered("x", KEY, compute), truth.tensors) and compute.times == 1
        remembered("x", KEY, compute)
        assert compute.times == 1  # mended
    assert {file.suffix for file in cache.iterdir()} == {".safetensors"}  # nothing half-written is left


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    compute = Counting(1.0)
    for _ in range(2):
        assert same(remembered("x", KEY, compute), compute.tensors)
    assert compute.times == 2


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "somewhere")
    assert cache_root() == Path(os.sep, "somewhere", "zoo")


class Watched(ClassifierFeatures):
    """Counts the images that pass."""

    seen = 0

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(images)
        return super().features_and_logits(images)


def test_references_and_baselines_are_extracted_once(cache: Path) -> None:
    grey, extractor = Given(pixels(600, 1, 28, 28), levels=256), Watched(Projection(), "projection")
    first = evaluate_quality(draws(1.0, 200), grey, extractor, num=200, progress=False)
    assert extractor.seen == 4 * 200  # samples, reference, floor, memoriser
    assert evaluate_quality(draws(1.0, 200), grey, extractor, num=200, progress=False) == first
    assert extractor.seen == 5 * 200
    assert len(list(cache.glob("given-test-200-seed0-projection-*"))) == 1
    changed = pixels(600, 1, 28, 28)
    changed[301:, 0, 3, 3] ^= 255  # other test images under the same name
    evaluate_quality(draws(1.0, 200), Given(changed, levels=256), extractor, num=200, progress=False)
    assert extractor.seen == 7 * 200  # samples and reference; the training images are the same
    other = Watched(Projection(num_features=9), "projection")  # other weights under the same name
    evaluate_quality(draws(1.0, 200), grey, other, num=200, progress=False)
    assert other.seen == 4 * 200


def test_kept_statistics_are_those_of_the_features(cache: Path) -> None:
    grey, extractor = Given(pixels(600, 1, 28, 28), levels=256), ClassifierFeatures(Projection(), "projection")
    for _ in range(2):  # computed, then read
        found = reference_of(grey, "test", extractor, 250, seed=3, progress=False)
        values = found.features.values
        assert values.dtype == torch.float32 and found.moments is not None
        assert torch.equal(found.radii, radii(values))
        assert torch.allclose(found.moments.power(1.0), values.double().T.cov(), atol=1e-9)
        samples = values[:200] + 0.1
        assert fid(samples, values, found.moments) == fid(samples, values, Moments.of(values))
    few = reference_of(grey, "test", extractor, 8, seed=3, progress=False)
    assert few.moments is None  # a covariance needs more images than features


def test_spread_over_sampling_seeds(cache: Path) -> None:
    from test_metrics import Drawing

    grey, extractor = Given(pixels(600, 1, 28, 28), levels=256), ClassifierFeatures(Projection(), "projection")

    def run(seed: int, seeds: int) -> list:
        settings = Evaluation(num=150, seed=seed, sampling_seeds=seeds)
        return evaluate(Drawing(), grey, settings, only=["quality"], extractor=extractor, progress=False)

    together = run(0, 3)
    found = {m.name: m for m in together}
    reference = reference_of(grey, "test", extractor, 150, seed=0, progress=False).features.values
    fids = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        images = [(x * 255).round().to(torch.uint8) for x in Drawing().iter_samples(150, generator=generator)]
        fids.append(fid(torch.cat([extractor(x) for x in images]), reference)[0])
    spread = found["fid"].details["sampling_seeds"]
    assert spread["n"] == 3 and spread["first"] == pytest.approx(fids[0], rel=1e-6)
    values = torch.tensor(fids)
    assert found["fid"].value == pytest.approx(values.mean().item(), rel=1e-6)
    assert spread["std"] == pytest.approx(values.std().item(), rel=1e-4)
    alone = run(0, 1)
    assert [m.value for m in alone] == [spread["first"], *(m.value for m in together[1:])]
    assert "sampling_seeds" not in alone[0].details
    assert compare(together, run(0, 3)) == compare(together, alone) == []
    assert compare(together, run(0, 2)) == []  # another quantity
    wrong = [replace(together[0], value=1.5 * together[0].value), *together[1:]]
    assert len(compare(wrong, run(0, 3))) == 1 and compare(wrong, alone) == []
    together[0].details["sampling_seeds"]["first"] *= 1.5
    assert len(compare(together, alone)) == 1 and compare(together, run(0, 3)) == []


def test_a_memoriser_draws_training_images_again(cache: Path) -> None:
    grey, extractor = Given(pixels(600, 1, 28, 28), levels=256), Watched(Projection(), "projection")
    truth = reference_of(grey, "test", extractor, 250, seed=0, progress=False)
    found = baseline("memoriser", truth, grey, extractor, 250, 0, progress=False)
    floor = baseline("floor", truth, grey, extractor, 250, 0, progress=False)
    assert found.keys() == floor.keys() == {"fid", "kid", "inception_score", "precision", "recall"}
    assert found != floor and found["fid"][0] < 3 * floor["fid"][0]
    with_copies = baseline("memoriser", truth, grey, extractor, 900, 0, progress=False)  # more than there are
    share, error = with_copies["precision"]
    assert error == pytest.approx((share * (1 - share) / 900) ** 0.5)
