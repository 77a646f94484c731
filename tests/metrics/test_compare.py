"""`zoo compare`: files of another model get the numbers of the zoo, and what breaks a protocol is said."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from zoo import Zoo
from zoo.cli import main
from zoo.data import MNIST, Bars, BinarizedMNIST, FashionMNIST
from zoo.data.base import DataModule
from zoo.errors import DataError
from zoo.metrics.compare import Standing, check_copies, compare, data_set, least_nll, read_samples


def written(path: Path, values: list[float], header: str = "log_prob", index: list[int] | None = None) -> Path:
    rows = [f"{value}" if index is None else f"{i},{value}" for i, value in zip(index or values, values, strict=True)]
    path.write_text("\n".join([header if index is None else f"index,{header}", *rows]))
    return path


@pytest.fixture
def values() -> list[float]:
    """Log-likelihoods of the test images of Bars, by a model that is nearly right."""
    data = data_set("bars")
    assert isinstance(data, Bars)
    return [-data.entropy - 0.1 - 1e-5 * i for i in range(len(data.split("test")))]


def broken(standing: Standing) -> list[str]:
    return [check.rule for check in standing.broken]


def test_likelihoods_get_a_row_beside_those_of_the_zoo(tmp_path: Path, values: list[float]) -> None:
    standing = compare("bars", log_prob=written(tmp_path / "x.csv", values), kind="exact", name="mine")
    assert not standing.broken and len(standing.checks) == 3
    (number,) = standing.numbers
    assert number.value == pytest.approx(-np.mean(values)) and number.kind == "exact" and number.n == len(values)
    assert number.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)))
    (table,) = standing.tables
    ours = [name for name in Zoo.list(data="bars") if Zoo.info(name).capabilities]
    rows = {row["model"]: row for row in table.rows}
    assert rows["mine"]["source"] == f"yours ({len(values)} images)" and rows.keys() - {"mine"} <= set(ours)
    assert [row["nats"] for row in table.rows] == sorted((row["nats"] for row in table.rows), reverse=True)


@pytest.mark.parametrize("header", ["log_prob", "nats"])
def test_rows_may_be_in_any_order(tmp_path: Path, values: list[float], header: str) -> None:
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0)).tolist()
    path = written(tmp_path / "x.csv", [values[i] for i in order], header, order)
    assert not compare("bars", log_prob=path).broken
    written(path, values, header, [0, *range(len(values) - 1)])
    (check,) = compare("bars", log_prob=path).broken
    assert check.detail == f"{len(values):,} values of {len(values) - 1:,} images, 1 images more than once"
    written(path, values, header, [f"{i}.png" for i in range(len(values))])
    (check,) = compare("bars", log_prob=path).broken
    assert check.detail == f"{len(values):,} values of 0 images; '0.png' is no position in the test split"


def test_a_file_without_a_header_has_one_value_a_line(tmp_path: Path, values: list[float]) -> None:
    (tmp_path / "x.csv").write_text("\n".join(map(str, values)))
    assert compare("bars", log_prob=tmp_path / "x.csv").numbers[0].value == pytest.approx(-np.mean(values))


def test_what_breaks_the_protocol_of_likelihoods(tmp_path: Path, values: list[float]) -> None:
    path, num = tmp_path / "x.csv", len(values)
    assert broken(compare("bars", log_prob=written(path, values[1:]))) == [
        f"each of the {num:,} test images of bars has one log-likelihood"
    ]
    assert broken(compare("bars", log_prob=written(path, [v + 1 for v in values]))) == [
        "the mean does not beat the entropy of the data"
    ]
    assert broken(compare("bars", log_prob=written(path, [-v for v in values])))[0] == (
        "no log-likelihood of pixels is above zero"
    )


def test_the_command_prints_text_json_and_a_card(
    tmp_path: Path, values: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--log-prob", str(written(tmp_path / "x.csv", values)), "--data", "bars", "--name", "mine"]
    assert main(words) == 0
    assert "ok      the mean does not beat the entropy" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["numbers"][0]["name"] == "nll" and page["tables"][0]["rows"] and all(c["holds"] for c in page["checks"])
    assert main([*words, "--card"]) == 0
    (model,) = yaml.safe_load(capsys.readouterr().out)["model-index"]
    assert model["name"] == "mine" and model["results"][0]["metrics"][0]["value"] == pytest.approx(-np.mean(values))
    written(tmp_path / "x.csv", values[:-1])
    assert main(words) == 1
    assert "mine: 1 rule of the protocol is broken: each of the" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["binarized-mnist", "dynamic-fashion-mnist"])
def test_no_model_of_the_zoo_beats_the_entropy_of_the_binarisation(name: str, real_data: str) -> None:
    known = least_nll(data_set(name))
    assert known is not None
    least, error = known
    grey = (FashionMNIST if "fashion" in name else MNIST)().split("test").x.double().flatten(1) / 255
    expected = torch.distributions.Bernoulli(probs=grey).entropy().sum(1)
    assert least == pytest.approx(expected.mean().item()) and error == pytest.approx(expected.std().item() / 100)
    numbers = [m for n in Zoo.list(data=name) for m in Zoo.info(n).numbers if m.name in ("nll", "neg_elbo")]
    assert all(m.value > least for m in numbers if (m.unit, m.split, m.data) == ("nats", "test", name))


@pytest.fixture(scope="module")
def mnist(real_data: str) -> DataModule:
    return data_set("mnist")


def test_samples_get_a_row_beside_floor_and_memoriser(tmp_path: Path, mnist: DataModule) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for i, image in enumerate(mnist.split("test").x[:150]):  # in place of samples
        Image.fromarray(image[0].numpy()).save(folder / f"{i:03}.png")
    standing = compare("mnist", samples=folder, name="mine", progress=False)
    assert broken(standing) == ["there are 10,000 samples, as in other rows"]
    (table,) = standing.tables
    rows = [row for row in table.rows if row.get("n") == 150]
    baselines = ["(training images: the floor)", "(memoriser of the training images)"]
    assert [row["model"] for row in rows] == [*baselines, "mine"]
    assert {"fid", "kid", "precision", "recall"} <= {number.name for number in standing.numbers}


def test_what_breaks_the_protocol_of_samples(tmp_path: Path, mnist: DataModule) -> None:
    test, train = (mnist.split(which).x[:150].numpy() for which in ("test", "train"))

    def rules(images: np.ndarray, data: DataModule = mnist) -> list[str]:
        np.save(tmp_path / "x.npy", images)
        x, checks = read_samples(tmp_path / "x.npy", data)
        return [check.rule for check in [*checks, check_copies(x, data)] if not check.holds]

    few = "there are 10,000 samples, as in other rows"
    assert rules(test) == rules(test / np.float32(255)) == [few]
    assert rules(train) == [few, "samples are not training images"]
    assert rules(np.repeat(test[:15], 10, 0)) == [few, "samples differ from each other"]
    with pytest.raises(DataError, match=r"expected images in \[0, 1\], found 0 to 1.275"):
        rules(test / np.float32(200))
    with pytest.raises(DataError, match=r"expected images of shape \[1, 28, 28\], found \[1, 14, 28\]"):
        rules(test[:, :, :14])
    binary = BinarizedMNIST()
    assert rules(test, binary) == [few, "samples are black and white, as the data are"]
    assert rules(test > 127, binary) == [few]
