"""Which images are unlike good ones: the two densities by brute force, the tail, and what they find."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zoo.cli import main
from zoo.errors import DataError
from zoo.metrics.novelty import _SHRINKAGE, _of_images, _of_patches, _Tail, ledoit_wolf, novelty
from zoo.metrics.outliers import auroc
from zoo.metrics.score import compare

ROUNDING = 1 / (12 * 255**2)


def textures(num: int, seed: int, size: int = 12) -> Tensor:
    """Images of smooth noise about a ramp, as 8-bit cameras give them: [num, 1, size, size]."""
    noise = torch.randn(num, 1, size + 2, size + 2, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, 1)
    return ((0.5 + torch.linspace(-0.2, 0.2, size) + 0.1 * smooth).clamp(0, 1) * 255).round() / 255


def scratched(x: Tensor, seed: int = 0) -> Tensor:
    """A bright line of four pixels somewhere in each."""
    x, random = x.clone(), np.random.default_rng(seed)
    for image in x:
        row, column = random.integers(1, x.shape[-1] - 5, 2)
        image[0, row, column : column + 4] += 0.25
    return x.clamp(0, 1)


def test_shrinkage_is_that_of_scikit_learn() -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    for shape in ((10, 50), (50, 10), (40, 41)):
        y = np.random.default_rng(0).normal(size=shape) @ np.diag(np.linspace(0.1, 2, shape[1]))
        expected = covariance.ledoit_wolf_shrinkage(y)
        centred = torch.from_numpy(y - y.mean(0))
        assert float(ledoit_wolf(centred)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("num", [15, 60])
def test_distances_of_images_are_those_by_the_inverse_of_the_covariance(num: int) -> None:
    good, new = (textures(n, seed, 6).flatten(1).double() for n, seed in ((num, 0), (7, 1)))
    y = good - good.mean(0)
    covariance, shrinkage = y.T @ y / num, ledoit_wolf(y)
    identity = torch.eye(36, dtype=torch.float64)
    shrunk = (1 - shrinkage) * covariance + (shrinkage * covariance.trace() / 36 + ROUNDING) * identity
    x = new - good.mean(0)
    torch.testing.assert_close(_of_images(good, new), ((x @ torch.linalg.inv(shrunk)) * x).sum(1))


def test_distances_of_patches_are_those_of_the_worst_place() -> None:
    good, new = textures(30, 0, 7).double(), scratched(textures(4, 1, 7)).double()
    places = [(i, j) for i in range(3) for j in range(3)]

    def at(x: Tensor, i: int, j: int) -> Tensor:
        return x[:, 0, i : i + 5, j : j + 5].flatten(1)

    covariance = {place: torch.cov(at(good, *place).T, correction=0) for place in places}
    overall = torch.stack(list(covariance.values())).mean(0)
    worst = torch.zeros(4, dtype=torch.float64)
    for i, j in places:
        near = [covariance[a, b] for a, b in places if max(abs(a - i), abs(b - j)) <= 1]
        sigma = (1 - _SHRINKAGE) * torch.stack(near).mean(0) + _SHRINKAGE * overall
        sigma += torch.eye(25, dtype=torch.float64) * (ROUNDING + 1e-4 * overall.diagonal().mean())
        x = at(new, i, j) - at(good, i, j).mean(0)
        worst = torch.maximum(worst, ((x @ torch.linalg.inv(sigma)) * x).sum(1))
    torch.testing.assert_close(_of_patches(good, new), worst)


def test_the_tail_of_an_exponential_is_found() -> None:
    scores = -torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log()
    tail = _Tail.of(scores)
    for p in (0.5, 0.1, 0.01, 1e-4):
        assert tail.quantile(p) == pytest.approx(-np.log(p), rel=0.1)
        assert tail.p_values(torch.tensor([-np.log(p)])).item() == pytest.approx(p, rel=0.4)
    grid = torch.linspace(-1, 20, 500, dtype=torch.float64)
    p_values = tail.p_values(grid)
    assert (p_values.diff() <= 1e-9).all() and p_values[0] == 1 and p_values[-1] < 1e-7
    assert tail.p_values(torch.tensor([tail.quantile(0.01)])).item() == pytest.approx(0.01)


def test_scratches_are_found_and_good_images_are_not() -> None:
    good, clean = textures(80, 0), textures(600, 1)
    found = novelty(good, torch.cat([clean, scratched(textures(60, 2)), torch.full((3, 1, 12, 12), 0.5)]))
    of_clean, of_scratched, of_blank = found.scores.split([600, 60, 3])
    assert auroc(-of_clean, -of_scratched)[0] > 0.95
    assert of_blank.min() > of_clean.max()
    alarms = (of_clean > found.threshold).double().mean()
    assert 0 <= alarms < 0.03
    assert torch.equal(found.p_values < 0.01, found.scores > found.threshold)
    assert found.num_good == 80


def test_images_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="expected at least 20 good images to compare with, found 19; add some"):
        novelty(textures(19, 0), textures(2, 0))
    with pytest.raises(DataError, match=r"expected images as large as the good ones, \[1, 12, 12\], found \[1, 9, 9\]"):
        novelty(textures(20, 0), textures(2, 0, 9))


def save(x: Tensor, folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate((x * 255).round().to(torch.uint8)):
        Image.fromarray(image[0].numpy()).save(folder / f"{number:02d}.png")


def test_zoo_score_ranks_new_images_by_how_unlike_good_ones_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, new, out = tmp_path / "good", tmp_path / "new", tmp_path / "scores.csv"
    save(textures(60, 0), good)
    save(textures(20, 1), new / "clean")
    save(scratched(textures(4, 2) * 0.9, 1), new / "scratched")
    words = ["score", "--data", str(good), "--new", str(new), "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    rows = list(csv.DictReader(out.open()))
    num_odd = sum(row["odd"] == "yes" for row in rows)
    assert said == [
        f"{num_odd} of 24 images are less likely than 99 % of good ones, of which 60 were given",
        str(out),
        str(out.with_suffix(".png")),
    ]
    assert list(rows[0]) == ["rank", "file", "label", "score", "p_value", "odd"]
    assert [int(row["rank"]) for row in rows] == list(range(1, 25))
    assert {row["label"] for row in rows[:4]} == {"scratched"} and num_odd >= 4
    scores, p_values = ([float(row[name]) for row in rows] for name in ("score", "p_value"))
    assert scores == sorted(scores, reverse=True) and p_values == sorted(p_values)
    with Image.open(out.with_suffix(".png")) as sheet:
        assert sheet.width > 400
    again = compare(good, new)
    assert again.to_csv() == out.read_text()
    for wrong, message in (
        (
            ["score", "--data", str(good), "--out", str(tmp_path / "x.csv")],
            "expected the NAME of a checkpoint, or --new",
        ),
        ([*words[:-1], str(tmp_path / "x.csv"), "--resize"], "--resize: is for a checkpoint"),
        (["score", "vae-mnist", *words[1:-1], str(tmp_path / "x.csv")], "leave out NAME, or --new"),
        ([*words[:4], str(tmp_path / "none"), "--out", str(tmp_path / "x.csv")], "none: expected a folder of images"),
        ([*words[:-1], str(new / "x.csv")], "would become part of these data"),
    ):
        assert main(wrong) != 0
        assert message in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "small.csv"), "--size", "8"]) == 0


def test_arrays_can_be_compared(tmp_path: Path) -> None:
    for name, x in (("good", textures(30, 0)), ("new", textures(5, 1))):
        np.save(tmp_path / f"{name}.npy", (x * 255).round().to(torch.uint8).numpy())
    found = compare(tmp_path / "good.npy", tmp_path / "new.npy")
    assert sorted(found.files) == ["0", "1", "2", "3", "4"] and found.labels is None
    np.save(tmp_path / "real.npy", np.random.default_rng(0).normal(size=(5, 1, 12, 12)).astype(np.float32) % 1)
    with pytest.raises(DataError, match="expected 8-bit images"):
        compare(tmp_path / "good.npy", tmp_path / "real.npy")
