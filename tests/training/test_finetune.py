"""Fine-tuning: what it keeps, what it plans from the checkpoint's recipe, and how folders become labels and splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import plugins
import pytest
import tiny_runs
import torch
import yaml
from PIL import Image
from test_training import Bell, points, run

from zoo import Zoo
from zoo.classifier.lenet import LeNet
from zoo.cli import main
from zoo.config import load_yaml
from zoo.data import Arrays, ImageFolder, build
from zoo.density.gaussian import Gaussian
from zoo.density.memoriser import Memoriser
from zoo.density.mixture import BernoulliMixture
from zoo.density.rivers import Rivers
from zoo.energy.nce import NCE
from zoo.errors import ConfigError
from zoo.measurement import Measurement
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.extractors import ClassifierFeatures
from zoo.objectives import energy_score
from zoo.optim import Optimization
from zoo.store.checkpoint import Checkpoint
from zoo.training import Trainer
from zoo.training import finetune as module
from zoo.training.callbacks import KeepBest
from zoo.training.finetune import finetune
from zoo.training.recipe import begin, build_model, fit, make
from zoo.vae.vae import VAE

QUIET = {"trainer.progress": False, "trainer.accelerator": "cpu"}
BY_STEPS = {"max_epochs": -1, "check_val_every_n_epoch": None}


def paint(folder: Path, *names: str, num: int = 10, size: int = 12) -> Path:
    """Grey images in folders of these names; images of one folder are alike."""
    noise = np.random.default_rng(0)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(num):
            x = noise.integers(0, 60, (size, size)) + 20 * (number % 10)
            Image.fromarray(x.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints `vae` and `lenet`, untrained, and `clothes`, images of 8x8 pixels."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    own = {"optimizer": "muon", "lr": 0.004, "schedule": "linear", "warmup": 500, "weight_decay": 0.02}
    recipe = {"data": {"class": "Digits", "batch_size": 100}, "optimization": own, "evaluation": {"k": 5}}
    vae = VAE(event_shape=[1, 8, 8], latent_dim=2, channels=4, hidden=8, likelihood="discretized-logistic")
    Zoo.save(vae, folder / "vae", recipe=recipe)
    Zoo.save(LeNet([1, 12, 12], channels=4, num_features=8), folder / "lenet", recipe={"data": {"class": "MNIST"}})
    x = np.random.default_rng(0).integers(0, 60, (200, 1, 8, 8), np.uint8)
    np.save(folder / "clothes.npy", x)
    return folder


# ------------------------------------------------------------------------------------------------------ keep the best


def test_the_energy_score_is_its_definition() -> None:
    fake, real = torch.rand(7, 1, 3, 3), torch.rand(4, 1, 3, 3)
    among = [(a - b).norm() for i, a in enumerate(fake) for j, b in enumerate(fake) if i != j]
    expected = [torch.stack([(x - y).norm() for x in fake]).mean() - sum(among) / len(among) / 2 for y in real]
    assert torch.allclose(energy_score(fake, real), torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize("other", ["shifted", "wide", "narrow", "one point"])
def test_no_distribution_has_a_better_energy_score_than_that_of_the_data(other: str) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 3000, 2, generator=generator)
    worse = {"shifted": fake + 0.5, "wide": 1.5 * fake, "narrow": 0.5 * fake, "one point": 0 * fake}[other]
    assert energy_score(fake, real).mean() < energy_score(worse, real).mean() - 0.02


def keeper(trainer: Any) -> KeepBest:
    return next(callback for callback in trainer.callbacks if isinstance(callback, KeepBest))


def test_the_weights_with_the_best_validation_number_are_kept(tmp_path: Path) -> None:
    """A rate so high that the point overshoots: the best weights are in the middle of the run."""
    model = Bell()
    model.optimization = Optimization(optimizer="sgd", lr=0.9, beta1=0.99)
    options = {**BY_STEPS, "max_steps": 40, "val_check_interval": 2, "keep_best": True, "ema_decay": None}
    trainer, probe = run(model, tmp_path, **options)
    found, data = keeper(trainer), points()
    assert 0 < found.step < 40 and found.step % 2 == 0
    assert torch.equal(model.loc, probe.weights[found.step - 1]["loc"])
    x = next(iter(data.batches("valid"))).x
    numbers = [float((0.5 * (x - weights["loc"]).square().sum(-1)).mean()) for weights in probe.weights[1::2]]
    assert found.value == pytest.approx(min(numbers)) and found.step == 2 * (1 + int(np.argmin(numbers)))


def test_the_start_is_kept_if_nothing_is_better_and_training_stops(tmp_path: Path) -> None:
    model = Bell()
    model.loc.data = points().split("valid").x.mean(0)  # nothing is better
    best = model.loc.detach().clone()
    model.optimization = Optimization(optimizer="sgd", lr=0.5)
    options = {**BY_STEPS, "max_steps": 40, "val_check_interval": 2, "keep_best": True, "patience": 3}
    trainer, _ = run(model, tmp_path, **options)
    assert torch.equal(model.loc, best) and trainer.global_step == 6
    assert keeper(trainer).step == 0 and keeper(trainer).value == keeper(trainer).start


def test_patience_needs_a_number_to_wait_for(tmp_path: Path) -> None:
    for options in ({"patience": 3}, {"patience": 0, "keep_best": True}):
        with pytest.raises(ConfigError, match="patience must be at least 1 and needs keep_best"):
            Trainer(tmp_path, **options)


def test_mixtures_fit_the_part_of_the_epoch_that_they_have_seen(tmp_path: Path) -> None:
    data = {"class": "Digits", "binarize": True, "batch_size": 100}
    section = {"class": "density.BernoulliMixture", "event_shape": [1, 8, 8], "num_components": 5}
    recipe = {"data": data, "model": section, "trainer": {"max_epochs": -1, "max_steps": 3, "progress": False}}
    model = fit(recipe, tmp_path / "run")
    assert isinstance(model, BernoulliMixture) and model.fitted and model.logits.std() > 0.5


# --------------------------------------------------------------------------------------------------------------- plan


def test_the_recipe_is_made_from_that_of_the_checkpoint(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIAL_STEPS", 10)
    finetune(f"local-dir:{home / 'vae'}", home / "clothes.npy", tmp_path / "mine", steps=55, overrides=QUIET)
    recipe = load_yaml(tmp_path / "mine" / "recipe.yaml")
    found, optimization = recipe["trainer"], recipe["optimization"]
    size, num = recipe["data"]["batch_size"], len(Arrays(str(home / "clothes.npy")).split("train"))
    assert 25 <= size <= 32 and num % size < num // size  # an epoch leaves out less than one example a batch
    assert optimization.pop("lr") in [pytest.approx(rate * 0.004) for rate in module.RATES]
    assert optimization == {"optimizer": "muon", "schedule": "linear", "warmup": 2, "weight_decay": 0.02}
    assert found["max_steps"] == 60 and found["val_check_interval"] == 6 and found["keep_best"]
    printed = capsys.readouterr().out
    assert "trial runs: " in printed and printed.splitlines()[-1].startswith("learned: ")
    before, after = printed.splitlines()[-1].removeprefix("learned: ").split(" nats per image")[0].split(" -> ")
    number = next(number for number in Checkpoint.of_folder(tmp_path / "mine").numbers if number.name == "nll")
    assert float(before) == pytest.approx(number.details["before"], rel=1e-3)
    assert float(after) == pytest.approx(number.value, rel=1e-3) and number.value < number.details["before"]
    assert "](before_after.png)" in (tmp_path / "mine" / "README.md").read_text()
    with Image.open(tmp_path / "mine" / "before_after.png") as picture:
        assert picture.width > 2.5 * picture.height


@pytest.mark.parametrize(("shape", "size"), [((1, 28, 28), 32), ((3, 32, 32), 10), ((3, 64, 64), 8), ((2,), 32)])
def test_small_batches_of_large_images_are_smaller(shape: tuple[int, ...], size: int) -> None:
    assert module._small_batch(shape) == size
    assert size == module.SMALLEST_BATCH or size * np.prod(shape) <= module.BATCH_VALUES


def test_minutes_become_steps(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIAL_STEPS", 5)
    began = module.time.monotonic()
    finetune(f"local-dir:{home / 'vae'}", home / "clothes.npy", tmp_path / "mine", minutes=0.03, overrides=QUIET)
    assert 10 <= load_yaml(tmp_path / "mine" / "recipe.yaml")["trainer"]["max_steps"] < 2000
    assert module.time.monotonic() - began < 60


def test_a_result_that_is_no_better_is_the_start_and_says_so(home: Path, tmp_path: Path, capsys: Any) -> None:
    changes = {**QUIET, "optimization.lr": 1e-30}
    finetune(f"local-dir:{home / 'vae'}", home / "clothes.npy", tmp_path / "mine", steps=4, overrides=changes)
    found, start = (Zoo.load(f"local-dir:{folder}").state_dict() for folder in (tmp_path / "mine", home / "vae"))
    assert all(torch.equal(found[name], value) for name, value in start.items())
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("learned nothing: the checkpoint as it was suits your validation images best; add images")


def test_a_gaussian_of_few_images_is_regularised_by_what_validation_says(tmp_path: Path) -> None:
    """Fewer examples than pixels have a covariance without an inverse."""
    recipe = {"data": {"class": "Digits", "batch_size": 500}}
    Zoo.save(Gaussian([1, 8, 8], levels=256), tmp_path / "bell", recipe=recipe)
    data = build(recipe["data"])
    np.save(tmp_path / "few.npy", data.split("train").x[:50].numpy())
    finetune(f"local-dir:{tmp_path / 'bell'}", tmp_path / "few.npy", tmp_path / "mine", overrides=QUIET)
    made = Checkpoint.of_folder(tmp_path / "mine")
    assert made.arguments["jitter"] in [module.WEAKEST * strength for strength in module.STRENGTHS]
    number = made.numbers[0]
    assert number.name == "nll" and number.value < number.details["before"]


PIXELS = """
import torch
from torch import Tensor, nn
from zoo.capabilities import TractableDensity
from zoo.random import rand


class Pixels(TractableDensity):
    levels = 2

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = (1, size, size)
        self.bias = nn.Parameter(torch.zeros(size * size))

    def log_prob(self, x: Tensor) -> Tensor:
        return -nn.functional.softplus((1 - 2 * x.flatten(1)) * self.bias).sum(1)

    def draw(self, streams) -> Tensor:
        return (rand((len(streams), *self.event_shape), streams) < self.bias.sigmoid().view(self.event_shape)).float()
"""


def test_classes_of_other_packages_are_trained_and_fine_tuned_by_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    name = plugins.install(tmp_path, monkeypatch, "Pixels", PIXELS)
    digits = {"class": "Digits", "binarize": True, "batch_size": 100}
    recipe = {"data": digits, "model": {"class": name}, "optimization": {"lr": 0.1}, "trainer": {"max_epochs": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["fit", f"{tmp_path}/recipe.yaml", "--out", f"{tmp_path}/one", "--trainer.accelerator", "cpu"]
    assert main(words) == 1 and "plugins=['their-package']" in capsys.readouterr().err
    assert main([*words, "--plugin", plugins.PACKAGE]) == 0
    np.save(tmp_path / "x.npy", build(digits).split("train").x[:60].bool().numpy())
    words = ["finetune", f"local-dir:{tmp_path}/one", "--data", f"{tmp_path}/x.npy", "--out", f"{tmp_path}/two"]
    assert main([*words, "--steps", "10", "--trainer.accelerator", "cpu", "--plugin", plugins.PACKAGE]) == 0
    assert "learned: " in capsys.readouterr().out
    found = Zoo.load(f"local-dir:{tmp_path}/two", plugins=[plugins.PACKAGE])
    assert type(found).__name__ == "Pixels"


@pytest.mark.parametrize("kind", [Rivers, Memoriser, NCE])
def test_models_that_data_cannot_change_are_refused(kind: type, tmp_path: Path) -> None:
    data = {"class": "Digits", "binarize": True}
    more = {Memoriser: ["Digits"], NCE: ["mixture"]}
    model = kind([1, 8, 8], *more.get(kind, []))
    Zoo.save(model, tmp_path / "fixed", recipe={"data": data})
    np.save(tmp_path / "x.npy", np.zeros((20, 1, 8, 8), bool))
    with pytest.raises(ConfigError, match="cannot be fine-tuned, since it"):
        finetune(f"local-dir:{tmp_path / 'fixed'}", tmp_path / "x.npy", tmp_path / "mine")
    assert not list(tmp_path.glob("mine*"))


def test_numbers_of_numpy_are_taken_and_a_failed_start_leaves_nothing(home: Path, tmp_path: Path) -> None:
    source, data, out = f"local-dir:{home / 'vae'}", home / "clothes.npy", tmp_path / "mine"
    changes = {**QUIET, "optimization.lr": np.float64(1e-3), "data.batch_size": np.int64(20)}
    with pytest.raises(ConfigError, match="no option 'max_step'"):
        finetune(source, data, out, steps=2, overrides={**changes, "trainer.max_step": 1})
    with pytest.raises(ConfigError, match="expected a value that YAML can hold, found <object"):
        finetune(source, data, out, steps=2, overrides={**changes, "optimization.lr": object()})
    with pytest.raises(ConfigError, match=r"val_check_interval.*must be less than or equal"):
        fit(tiny_runs.recipe("likelihood", val_check_interval=1000), tmp_path / "mine.run")
    assert not list(tmp_path.glob("mine*"))
    finetune(source, data, out, steps=2, overrides=changes)
    recipe = load_yaml(out / "recipe.yaml")
    assert recipe["optimization"]["lr"] == 1e-3 and recipe["data"]["batch_size"] == 20


@pytest.mark.parametrize("strategy", ["ddp_notebook", "ddp_spawn", "ddp_fork", "ddp_find_unused_parameters_true_fork"])
def test_strategies_that_copy_the_process_are_refused(strategy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"copies this process.*choose ddp"):
        make(tiny_runs.recipe("likelihood", strategy=strategy), tmp_path / "mine")
    assert not list(tmp_path.glob("mine*"))


def test_resuming_adds_the_numbers_that_are_missing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words: Any = (f"local-dir:{home / 'vae'}", home / "clothes.npy", tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(*words, steps=4, overrides=QUIET)
    trained = (tmp_path / "mine" / "model.safetensors").read_bytes()
    assert not Checkpoint.of_folder(tmp_path / "mine").numbers
    with pytest.raises(ConfigError, match=r"exists already|there is a run already"):
        finetune(*words, steps=4, overrides=QUIET)
    finetune(*words, steps=4, overrides=QUIET, resume=True)
    made = Checkpoint.of_folder(tmp_path / "mine")
    assert [number.name for number in made.numbers] == ["neg_elbo", "neg_elbo", "nll", "nll"]
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == trained


# ------------------------------------------------------------------------------------------------- labels and splits


def test_folders_called_like_classes_of_the_model_are_these_classes(home: Path, tmp_path: Path, capsys: Any) -> None:
    names = [str(digit) for digit in range(10) if digit != 4]
    paint(tmp_path / "digits", *names)
    finetune(f"local-dir:{home / 'lenet'}", tmp_path / "digits", tmp_path / "mine", steps=2, overrides=QUIET)
    recipe = load_yaml(tmp_path / "mine" / "recipe.yaml")
    data = build(recipe["data"])
    assert recipe["data"]["classes"] == [*"0123456789"] and "model" not in recipe
    whole = data.everything()  # type: ignore[attr-defined]
    assert [int(path.parts[0]) for path in data.used] == whole.labels.tolist()  # type: ignore[attr-defined]
    assert "labels: " not in capsys.readouterr().out
    assert Checkpoint.of_folder(tmp_path / "mine").classes == [*"0123456789"]


def test_other_folders_are_labels_in_their_order_and_the_model_gets_as_many(
    home: Path, tmp_path: Path, capsys: Any
) -> None:
    paint(tmp_path / "pets", "dog", "cat", "emu")
    finetune(f"local-dir:{home / 'lenet'}", tmp_path / "pets", tmp_path / "mine", steps=2, overrides=QUIET)
    printed = capsys.readouterr().out
    assert "labels: 0 = cat, 1 = dog, 2 = emu" in printed and "had 10 labels and now has 3" in printed
    made = Checkpoint.of_folder(tmp_path / "mine")
    assert made.classes == ["cat", "dog", "emu"] and made.arguments["num_classes"] == 3
    old = Zoo.load(f"local-dir:{home / 'lenet'}")
    fresh = begin({"start": f"local-dir:{home / 'lenet'}", "model": load_yaml(made.folder / "recipe.yaml")["model"]})
    assert torch.equal(fresh.head.weight, old.head.weight[:3]) and fresh.num_classes == 3
    assert torch.equal(fresh.body[0].weight, old.body[0].weight)


def test_more_labels_keep_the_rows_that_are_there(home: Path) -> None:
    section = {"class": "classifier.LeNet", "event_shape": [1, 12, 12], "channels": 4, "num_features": 8}
    new = build_model({**section, "num_classes": 12})
    old = Zoo.load(f"local-dir:{home / 'lenet'}")
    fresh = begin({"start": f"local-dir:{home / 'lenet'}", "model": {**section, "num_classes": 12}})
    assert torch.equal(fresh.head.weight, torch.cat([old.head.weight, new.head.weight[10:]]))
    with pytest.raises(ConfigError, match="do not fit"):
        begin({"start": f"local-dir:{home / 'lenet'}", "model": {**section, "num_features": 9}})


def test_folders_of_splits_are_splits(tmp_path: Path) -> None:
    paint(tmp_path / "x", *(f"{split}/{name}" for split in ("train", "val", "test") for name in "ab"), num=3)
    data = ImageFolder(str(tmp_path / "x"))
    assert data.classes == ["a", "b"]
    for which, first in (("train", 0), ("valid", 2), ("test", 4)):
        split = data.split(which)  # type: ignore[arg-type]
        assert split.labels is not None and split.labels.tolist() == [0, 0, 0, 1, 1, 1]
        brightness = split.x.float().flatten(1).mean(1) - 29.5
        assert torch.allclose(brightness, 20.0 * (first + split.labels), atol=10)


@pytest.mark.parametrize("missing", ["valid", "test"])
def test_a_split_without_a_folder_is_a_tenth_of_the_training_images(missing: str, tmp_path: Path) -> None:
    other = {"valid": "test", "test": "validation"}[missing]
    paint(tmp_path / "x", "train", other, num=100, size=2)
    data = ImageFolder(str(tmp_path / "x"))
    sizes = {which: len(data.split(which)) for which in ("train", "valid", "test")}  # type: ignore[arg-type]
    assert data.classes is None and sum(sizes.values()) == 200
    assert 3 <= sizes.pop(missing) <= 20 and sizes.pop("train") > 75 and sizes.popitem()[1] == 100


def test_a_folder_of_classes_one_of_which_is_called_test(tmp_path: Path) -> None:
    assert ImageFolder(str(paint(tmp_path / "x", "exam", "test"))).classes == ["exam", "test"]


@pytest.mark.parametrize(("names", "is_told"), [("AEK", False), ("012", True)])
def test_no_inception_score_of_classes_that_the_classifier_does_not_know(
    names: str, is_told: bool, tmp_path: Path
) -> None:
    paint(tmp_path / "x", *names, num=40)
    data = ImageFolder(str(tmp_path / "x"))
    classifier = ClassifierFeatures(LeNet([1, 12, 12], channels=4, num_features=8), "tiny", classes=[*"0123456789"])
    model = VAE([1, 12, 12], latent_dim=2, channels=4, hidden=8, likelihood="discretized-logistic")
    found = evaluate(model, data, Evaluation(num=40), only=["quality"], extractor=classifier, progress=False)
    assert {"kid", "precision", "recall"} <= {number.name for number in found}
    assert any(number.name == "inception_score" for number in found) == is_told
    array = Arrays.from_array(data.split("train").x)
    found = evaluate(model, array, Evaluation(num=40), only=["quality"], extractor=classifier, progress=False)
    assert all(number.name != "inception_score" for number in found)


def test_sampling_by_the_name_of_a_class() -> None:
    from zoo.cli.options import _label

    classes = ["cat", "3", "dog"]
    assert [_label(word, classes) for word in ("dog", "3", "0", "7")] == [2, 1, 0, 7]
    for word, advice in (("dgo", "did you mean 'dog'"), ("-1", "known: 3, cat, dog")):
        with pytest.raises(ConfigError, match=advice):
            _label(word, classes)


def test_words() -> None:
    old, new = (Measurement("accuracy", value, 1.0, "%", "estimate", 9, 0, "test", "x") for value in (40.0, 30.0))
    model, other = LeNet(channels=4), LeNet(channels=4)
    said = module._in_words(model, other, [old], [new], 9)
    assert said.startswith("learned nothing that the test images show: 40 -> 30 % of the labels right on 9 test")
    assert module._in_words(model, other, [new], [old], 9) == "learned: 30 -> 40 % of the labels right on 9 test images"


def test_the_page_shows_what_the_benchmark_found() -> None:
    import finetuning

    results = json.loads(finetuning.RESULTS.read_text())
    page = (finetuning.ROOT / "docs" / "own-data.md").read_text()
    assert finetuning.table(results) in page
    for found in results.values():
        name, (before, after, _) = next(iter(found["numbers"].items()))
        assert after > before if name == "accuracy" else after < before
