"""Numbers of checkpoint folders, and the tables that put them beside published ones."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zoo import Zoo
from zoo.autoregressive import MADE
from zoo.capabilities import ZooModule
from zoo.classifier import LeNet
from zoo.data.base import DataModule, Split
from zoo.density import Gaussian
from zoo.errors import ConfigError
from zoo.gan import GAN, ConditionalGAN
from zoo.measurement import Measurement, compare, recorded_value
from zoo.metrics import Table, evaluate_checkpoint, load_extractor, reproduce
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.published import FASHION_MNIST_FID
from zoo.metrics.tables import SAMPLING_SEEDS, TABLES
from zoo.module import facts_of
from zoo.store import registry
from zoo.store.checkpoint import Checkpoint
from zoo.store.release import shipped as shipped_checkpoints
from zoo.store.release import shipped_names
from zoo.store.source import checkpoint
from zoo.vae import VAE

SETTINGS = {"k": 60, "draws": 2, "num": 120}


class Blobs(DataModule):
    """Blobs under the name of a published data set."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.levels = name, 2 if name == "binarized-mnist" else 256
        self.event_shape = (3, 16, 16) if name == "cifar10" else (1, 28, 28)

    def load(self, which: str) -> Split:
        generator = torch.Generator().manual_seed(len(which))
        channels, side, _ = self.event_shape
        centre = torch.rand(200, 2, 1, generator=generator) * side / 2 + side / 4
        offset: Tensor = (torch.arange(side) - centre).square()  # [200, 2, side]
        grey = torch.exp(-(offset[:, 0, :, None] + offset[:, 1, None, :]) / 20)[:, None].expand(-1, channels, -1, -1)
        x = grey > 0.5 if self.levels == 2 else grey * 255
        return Split(x.to(torch.uint8), torch.arange(200) % 10)


def models() -> dict[str, tuple[ZooModule, str]]:
    torch.manual_seed(0)
    return {
        "lenet-mnist": (LeNet(channels=4, num_features=16), "MNIST"),
        "made-binarized-mnist": (MADE(hidden=16, num_masks=2), "BinarizedMNIST"),
        "vae-binarized-mnist": (VAE(latent_dim=3, channels=8, hidden=16), "BinarizedMNIST"),
        "vae-mnist": (
            VAE(latent_dim=3, channels=8, hidden=16, likelihood="discretized-logistic"),
            "MNIST",
        ),
        "gan-mnist": (GAN(latent_dim=4, channels=8), "MNIST"),
        "lenet-cifar10": (LeNet((3, 16, 16), channels=4, num_features=12), "CIFAR10"),
        "gan-cifar10": (GAN((3, 16, 16), latent_dim=4, channels=8), "CIFAR10"),
    }


def ship(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Makes `folder` the place of the shipped checkpoints, and blobs their data."""
    names = {"MNIST": "mnist", "BinarizedMNIST": "binarized-mnist", "CIFAR10": "cifar10"}
    patch.setattr(registry, "SHIPPED", folder)
    patch.setattr(registry, "REGISTRY", folder / "registry.json")
    patch.setattr("zoo.data.build", lambda section, seed: Blobs(names[section["class"]]))
    patch.setattr("zoo.metrics.evaluate.SAMPLE_SLICE", 60)


@pytest.fixture(scope="module")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models, measured as real ones are: saved, then measured from the folder, then registered."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        ship(folder, patch)
        for name, (model, data) in models().items():
            recipe = {"name": name, "data": {"class": data}, "evaluation": SETTINGS}
            Zoo.save(model, folder / name, recipe=recipe)
            saved = checkpoint(f"local-dir:{folder / name}")
            Zoo.update(saved, evaluate_checkpoint(saved, progress=False))
            registry.write_registry({found.name: found.entry for found in shipped_checkpoints() if found.entry})
    return folder


@pytest.fixture
def shipped(small_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ship(small_zoo, monkeypatch)
    return small_zoo


def recorded(name: str) -> list[Measurement]:
    return checkpoint(name).numbers


QUALITY = ["fid", "kid", "inception_score", "precision", "recall"]


def test_each_checkpoint_has_the_numbers_of_its_kind(shipped: Path) -> None:
    assert {name: [(m.name, m.unit) for m in recorded(name)] for name in models()} == {
        "lenet-mnist": [("accuracy", "%"), *((f"{name}_floor", "") for name in QUALITY)],
        "made-binarized-mnist": [("nll", "nats")],
        "vae-binarized-mnist": [("neg_elbo", "nats"), ("nll", "nats")],
        "vae-mnist": [
            *((name, unit) for name in ("neg_elbo", "nll") for unit in ("nats", "bits/dim")),
            *((name, "") for name in (*QUALITY, "fid_expected")),
        ],
        "gan-mnist": [(name, "") for name in QUALITY],
        "lenet-cifar10": [("accuracy", "%"), *((f"{name}_floor", "") for name in QUALITY)],
        "gan-cifar10": [(name, "") for name in QUALITY],
    }
    kinds = {name: {m.kind for m in recorded(name)} for name in models()}
    assert kinds["made-binarized-mnist"] == {"exact"} and kinds["vae-binarized-mnist"] == {"bound"}
    fid = next(m for m in recorded("gan-mnist") if m.name == "fid")
    floor = next(m for m in recorded("lenet-mnist") if m.name == "fid_floor")
    assert fid.details["floor"] == pytest.approx(floor.value)
    assert fid.details["extractor"] == floor.details["extractor"] == "lenet-mnist"
    weights = registry.registry()["lenet-mnist"].weights_sha256
    assert fid.details["extractor_sha256"] == floor.details["extractor_sha256"] == weights


@pytest.mark.parametrize("name", list(models()))
def test_numbers_are_found_again_whole_and_on_the_slice(shipped: Path, name: str) -> None:
    whole = evaluate_checkpoint(checkpoint(name), progress=False)
    part = evaluate_checkpoint(checkpoint(name), on_slice=True, progress=False)
    assert len(whole) == len(part) == len(recorded(name))
    assert compare(recorded(name), whole) == [] and compare(recorded(name), part) == []
    piece = {m.name: m.details["slice"]["n"] for m in recorded(name) if "slice" in m.details}
    assert all(m.n == piece.get(m.name, 200) for m in part)


def test_other_weights_give_other_numbers(shipped: Path, tmp_path: Path) -> None:
    for name in ("vae-mnist", "lenet-mnist"):
        model = checkpoint(name).load()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1.1
        Zoo.save(model, tmp_path / name, recipe=Zoo.info(name).recipe)
        found = evaluate_checkpoint(checkpoint(f"local-dir:{tmp_path / name}"), on_slice=True, progress=False)
        differing = {d.found.name for d in compare(recorded(name), found)}
        assert differing >= ({"neg_elbo", "nll", "fid"} if name == "vae-mnist" else {"fid_floor"})


def test_conditional_models_are_asked_for_their_classes(shipped: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ConditionalGAN(latent_dim=4, channels=8)
    Zoo.save(model, tmp_path / "conditional-gan", recipe={"data": {"class": "MNIST"}, "evaluation": SETTINGS})
    source = checkpoint(f"local-dir:{tmp_path / 'conditional-gan'}")
    (whole,) = evaluate_checkpoint(source, only=["accuracy"], progress=False)
    (part,) = evaluate_checkpoint(source, only=["accuracy"], on_slice=True, progress=False)
    assert (whole.name, whole.unit, whole.n, part.n) == ("class_accuracy", "%", 120, 60)
    assert whole.details["slice"] == {"n": 60, "value": part.value} and compare([whole], [part]) == []
    labels = torch.arange(120) % 10
    samples = model.eval().sample(120, labels=labels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = Zoo.load("lenet-mnist", LeNet)((samples * 255).round() / 255).argmax(1) == labels
    assert whole.value == pytest.approx(100 * right.double().mean().item(), abs=1)
    other = Blobs("fashion-mnist")  # of which lenet-mnist knows nothing
    assert evaluate_checkpoint(source, only=["accuracy"], data=other, progress=False) == []


def test_settings_come_from_the_recipe_unless_given(shipped: Path) -> None:
    found = evaluate_checkpoint(checkpoint("vae-binarized-mnist"), k=7, only=["likelihood"], progress=False)
    assert [m.details.get("k", m.details.get("draws")) for m in found] == [2, 7]
    (fid, *_) = evaluate_checkpoint(checkpoint("gan-mnist"), num=80, seed=3, split="valid", progress=False)
    assert (fid.n, fid.seed, fid.split, fid.details["num_reference"]) == (80, 3, "valid", 80)
    made = checkpoint("made-binarized-mnist")
    given = evaluate_checkpoint(made, data=Blobs("binarized-mnist"), progress=False)
    assert given == recorded("made-binarized-mnist")


def test_recipes_that_say_too_little_or_too_much_are_refused(shipped: Path, tmp_path: Path) -> None:
    model, _ = models()["made-binarized-mnist"]
    Zoo.save(model, tmp_path / "without")
    with pytest.raises(ConfigError, match="expected a recipe that says which data"):
        evaluate_checkpoint(checkpoint(f"local-dir:{tmp_path / 'without'}"), progress=False)
    recipe = {"data": {"class": "BinarizedMNIST"}, "evaluation": {"drawz": 3}}
    Zoo.save(model, tmp_path / "with", recipe=recipe)
    with pytest.raises(ConfigError, match=r"evaluation: .*'drawz'.*'draws'"):
        evaluate_checkpoint(checkpoint(f"local-dir:{tmp_path / 'with'}"), progress=False)
    with pytest.raises(ConfigError, match="expected a classifier as extractor, found GAN"):
        load_extractor("gan-mnist")


def test_nll_table_holds_the_published_numbers_and_ours(shipped: Path) -> None:
    table = reproduce("mnist-nll", progress=False)
    published = [86.64, 88.33, 85.10, 84.68, 86.60, 85.51, 84.13, 80.97, 81.30, 80.54, 80.75, 79.20, 84.62, 84.55]
    published += [137.64, 97.45, 79.58, 80.10, 85.10]  # the last one is that of planar maps
    ours = {row["model"]: row for row in table.rows if "this zoo" in row["source"]}
    others = [row["nats"] for row in table.rows if row["model"] not in ours]
    assert sorted(others) == sorted([*published, 543.43])  # and the uniform one
    assert ours.keys() == {"made-binarized-mnist", "vae-binarized-mnist"}
    for name, row in ours.items():
        (number,) = (m for m in recorded(name) if m.name == "nll")
        assert row["nats"] == pytest.approx(number.value) and row["error"] == pytest.approx(number.error)
        assert row["kind"] == number.kind and row["weights_sha256"] == registry.registry()[name].weights_sha256
    assert [row["nats"] for row in table.rows] == sorted((row["nats"] for row in table.rows), reverse=True)
    text = str(table)
    assert "EoNADE, 2 hidden layers, 128 orderings" in text and " 85.10 " in text and "k = 60" in text
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False))["rows"] == table.rows
    read = reproduce("mnist-nll", recompute=False)
    assert [row["nats"] for row in read.rows] == pytest.approx([row["nats"] for row in table.rows])


def test_a_model_without_a_likelihood_is_listed_by_its_bound(shipped: Path) -> None:
    def bounds(checkpoint: Checkpoint, group: str) -> list[Measurement]:
        return [m for m in checkpoint.numbers if m.name == "neg_elbo"]

    (ours,) = (row for row in TABLES["mnist-bpd"].build("x", bounds).rows if "this zoo" in row["source"])
    (number,) = (m for m in recorded("vae-mnist") if (m.name, m.unit) == ("neg_elbo", "bits/dim"))
    assert (ours["bits/dim"], ours["kind"]) == (number.value, "bound") and "draws = 2" in ours["source"]


def test_tables_take_fewer_importance_samples_than_recipes(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "mnist-nll", replace(TABLES["mnist-nll"], most_samples=9))
    for k, expected in ((None, 9), (11, 11)):
        rows = reproduce("mnist-nll", k=k, on_slice=True, progress=False).rows
        (source,) = (row["source"] for row in rows if row["model"] == "vae-binarized-mnist")
        assert source.startswith(f"this zoo (k = {expected},")


def test_bits_per_dimension_of_grey_digits(shipped: Path) -> None:
    table = reproduce("mnist-bpd", progress=False)
    published = {row["model"]: row["bits/dim"] for row in table.rows if "this zoo" not in row["source"]}
    assert published == {
        "uniform": 8.00,
        "NICE": 4.36,
        "multivariate Gaussian": 2.01,
        "MAF, 5 layers": 1.89,
        "Real NVP": 1.06,
        "Glow": 1.05,
        "FFJORD": 0.99,
        "Residual Flow": 0.97,
        "gated PixelCNN": 0.81,
        "linear transformer over pixels": 0.644,
        "softmax transformer over pixels": 0.621,
    }
    (ours,) = (row for row in table.rows if "this zoo" in row["source"])
    (number,) = (m for m in recorded("vae-mnist") if (m.name, m.unit) == ("nll", "bits/dim"))
    assert (ours["model"], ours["kind"]) == ("vae-mnist", "bound") and "k = 60" in ours["source"]
    assert ours["bits/dim"] == pytest.approx(number.value) and ours["error"] == pytest.approx(number.error)


def test_bits_per_dimension_of_cifar10(real_data: str) -> None:
    table = reproduce("cifar10-bpd", on_slice=True, progress=False)
    published = {row["model"]: row["bits/dim"] for row in table.rows if "this zoo" not in row["source"]}
    assert published == {
        "uniform": 8.00,
        "multivariate Gaussian": 4.70,
        "NICE": 4.48,
        "deep diffusion": 4.20,
        "deep GMM": 4.00,
        "Real NVP": 3.49,
        "RIDE": 3.47,
        "FFJORD": 3.40,
        "Glow": 3.35,
        "Residual Flow": 3.28,
        "Flow++": 3.08,
        "PixelCNN": 3.14,
        "Row LSTM": 3.07,
        "Diagonal BiLSTM": 3.00,
    }
    (ours,) = (row for row in table.rows if row["model"] == "gaussian-cifar10")
    assert ours["bits/dim"] < 4.70 and ours["kind"] == "bound" and "draws = 10" in ours["source"]


def test_fid_table_ranks_ours_above_the_baselines_of_the_same_features_and_data(shipped: Path) -> None:
    table = reproduce("mnist-fid", progress=False)
    published = [(row["model"], row["fid"], row.get("error")) for row in table.rows if row["features"] == "Inception"]
    assert ("GAN, non-saturating", 6.8, 0.5) in published
    baselines = ["(training images: the floor)", "(memoriser of the training images)"]
    expected = {"mnist": {"gan-mnist", "vae-mnist"}, "binarized-mnist": {"made-binarized-mnist", "vae-binarized-mnist"}}
    for data, names in expected.items():
        rows = [row for row in table.rows if row["data"] == data and row["features"] == "lenet-mnist"]
        assert [row["model"] for row in rows[:2]] == baselines and {row["model"] for row in rows[2:]} == names
        assert rows[0]["fid"] < rows[2]["fid"] <= rows[3]["fid"]
        assert all(math.isfinite(row[name]) for row in rows for name in QUALITY)
        for row in rows[2:]:
            assert row["seeds"] == SAMPLING_SEEDS and row["std"] > 0
            assert ("fid_expected" in row) == row["model"].startswith("vae")
    shown = [[name for name in table.columns if name.startswith("fid (") and name in row] for row in table.rows]
    assert shown == [[f"fid ({row['features']})"] for row in table.rows] and ["fid (Inception)"] in shown
    assert "  -  " not in str(table) and json.loads(json.dumps(table.to_dict(), allow_nan=False))["rows"] == table.rows
    recorded_only = reproduce("mnist-fid", recompute=False)  # the quality of binary images only where it was asked for
    assert {row["data"] for row in recorded_only.rows if row["features"] == "lenet-mnist"} == {"mnist"}


def test_images_in_colour_are_judged_by_the_classifier_of_their_data(shipped: Path) -> None:
    table = reproduce("cifar10-fid", progress=False)
    ours = {row["model"]: row for row in table.rows if row["features"] == "lenet-cifar10"}
    assert ours.keys() == {"(training images: the floor)", "(memoriser of the training images)", "gan-cifar10"}
    found = evaluate_checkpoint(checkpoint("gan-cifar10"), sampling_seeds=SAMPLING_SEEDS, progress=False)
    (number,) = (m for m in found if m.name == "fid")
    assert ours["gan-cifar10"]["fid"] == pytest.approx(number.value, rel=1e-6)
    weights = registry.registry()["lenet-cifar10"].weights_sha256
    assert number.details["extractor_sha256"] == weights
    published = {row["model"]: row["fid"] for row in table.rows if row["features"] == "Inception"}
    assert published["GAN, non-saturating"] == 58.5 and len(published) == 8
    svhn = Blobs("cifar10")
    svhn.name = "svhn"  # such images, but of other classes: no extractor is theirs
    assert evaluate_checkpoint(checkpoint("gan-cifar10"), data=svhn, progress=False) == []
    judged = evaluate(Zoo.load("gan-cifar10"), svhn, Evaluation(num=120, extractor="lenet-cifar10"), progress=False)
    assert [m.name for m in judged] == QUALITY and {m.data for m in judged} == {"svhn"}


def test_fashion_table_has_its_own_published_numbers(shipped: Path) -> None:
    table = reproduce("fashion-mnist-fid", progress=False)
    assert {(row["model"], row["fid"]) for row in table.rows} >= {("GAN, non-saturating", 26.5), ("WGAN", 21.5)}
    assert len(table.rows) == len(FASHION_MNIST_FID)


def test_outlier_table_has_every_density_and_bound(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Negative(Blobs):
        def load(self, which: str) -> Split:
            split = super().load(which)
            return Split(self.levels - 1 - split.x, split.labels)

    monkeypatch.setattr("zoo.metrics.outliers.foreign_to", lambda data: (data, Negative(data.name)))
    with torch.no_grad():
        rows = {row["model"]: row for row in reproduce("outliers", on_slice=True, progress=False).rows}
    assert rows.keys() == {"made-binarized-mnist", "vae-binarized-mnist", "vae-mnist"}
    assert all(0 <= row["auroc"] <= 1 and row["images"] == "100 + 100" for row in rows.values())
    assert rows["made-binarized-mnist"]["score"] == "log_prob (exact)"
    assert rows["vae-mnist"]["score"] == "log_prob (bound)"
    assert reproduce("outliers", recompute=False).rows == []


def test_taxonomy_follows_from_the_types(shipped: Path) -> None:
    rows = {row["model"]: row for row in reproduce("taxonomy").rows}
    assert rows.keys() == models().keys() - {"lenet-mnist", "lenet-cifar10"}  # a classifier draws nothing
    columns = ("latents", "density", "generator", "trained by", "completes", "labels")
    names = ("made-binarized-mnist", "vae-mnist", "gan-mnist")
    assert [tuple(rows[name][column] for column in columns) for name in names] == [
        ("none", "exact", "one pass a value", "maximum likelihood", "yes", "no"),
        ("code", "lower bound, tightens with samples", "one pass", "lower bound", "no", "no"),
        ("code", "none", "one pass", "two players", "no", "no"),
    ]
    gaussian = facts_of(Gaussian)
    assert (gaussian["density"], gaussian["trained by"]) == ("exact, of dequantised data", "closed form")
    assert facts_of(ConditionalGAN)["labels"] == "yes"


def test_tables_have_names() -> None:
    with pytest.raises(ConfigError, match=r"'mnist-nil'; did you mean 'mnist-nll'"):
        reproduce("mnist-nil")


def test_tables_align_and_leave_out_what_is_not_known() -> None:
    rows = [{"model": "a", "nats": 9.5}, {"model": "long", "nats": None}]
    table = Table("x", "Title", {"model": "", "nats": ".2f"}, rows)
    assert str(table).splitlines() == ["Title", "", "model  nats", "-----  ----", "a      9.50", "long"]


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_checkpoints_reproduce_their_numbers(real_data: str, name: str) -> None:
    known = recorded(name)
    found = evaluate_checkpoint(checkpoint(name), on_slice=True, progress=False)
    assert found and all(recorded_value(known, m) is not None for m in found)  # each is compared below
    assert compare(known, found) == []


@pytest.mark.parametrize("name", ["nade-binarized-mnist", "fvsbn-binarized-mnist", "mixture-binarized-mnist", "rivers"])
def test_the_whole_test_set_gives_the_numbers_that_are_shown(real_data: str, name: str) -> None:
    known = recorded(name)
    found = evaluate_checkpoint(checkpoint(name), only=["likelihood"], progress=False)
    shown = {number.name: number.value for number in known if number.unit == "nats"}
    assert {m.name: m.value for m in found if m.unit == "nats"} == pytest.approx(shown, abs=1e-3)
    assert compare(known, found) == []


def test_a_diffusion_model_has_a_bound_and_an_estimate_in_a_table_of_likelihoods() -> None:
    rows = [row for row in reproduce("mnist-bpd", recompute=False).rows if row["model"] == "conditional-edm-mnist"]
    assert sorted(row["kind"] for row in rows) == ["bound", "estimate"]
    assert any("ode_steps = 50" in row["source"] for row in rows)
