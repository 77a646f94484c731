"""Checkpoint folders, the registry, sources and model cards."""

import errno
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import plugins
import pytest
import tiny_runs
import torch
from huggingface_hub import ModelCard

from zoo import Zoo
from zoo.autoregressive.made import MADE
from zoo.capabilities import EvidenceLowerBound, ZooModule
from zoo.classifier.lenet import LeNet
from zoo.density.gaussian import Gaussian
from zoo.errors import CheckpointError, ConfigError
from zoo.gan.gan import GAN
from zoo.measurement import Measurement
from zoo.store import registry as records
from zoo.store import release
from zoo.store.card import render_card
from zoo.store.checkpoint import FILES, Checkpoint, capabilities_of, sha256
from zoo.store.names import find_class
from zoo.vae.vae import VAE

NUMBER = Measurement(
    "elbo", -12.5, 0.25, "nats", "bound", 300, 0, "test", "digits", {"slice": {"n": 10, "value": -12.0}}
)


def tiny_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(event_shape=[1, 8, 8], latent_dim=3, channels=8, hidden=8)


MODELS = {
    "vae": tiny_vae,
    "made": lambda: MADE(event_shape=[1, 3, 3], hidden=6, num_masks=2, mask_seed=3),
    "gaussian": lambda: Gaussian(event_shape=[1, 3, 3], levels=256, logit=1e-6),
    "lenet": lambda: LeNet(event_shape=[1, 16, 16], channels=2, num_features=4),
    "gan": lambda: GAN(event_shape=[1, 8, 8], latent_dim=3, channels=8),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Zoo.save(tiny_vae(), tmp_path / "vae-digits", measurements=[NUMBER])


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a folder: file contents, None for folders."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


# --------------------------------------------------------------------------------------------------- saving, loading


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    folder = Zoo.save(model, tmp_path / name)
    state = torch.get_rng_state()
    loaded = Zoo.load(f"local-dir:{folder}")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model) and dict(loaded.hparams) == dict(model.hparams)
    assert not any(module.training for module in loaded.modules())
    assert [key for key, _ in loaded.named_parameters()] == [key for key, _ in model.named_parameters()]
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]) and tensor.dtype == loaded.state_dict()[key].dtype
    buffers = dict(loaded.named_buffers())  # also those that no file holds
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in model.named_buffers())


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    model = tiny_vae()
    full, half = Zoo.save(model, tmp_path / "full"), Zoo.save(model, tmp_path / "half", dtype="float16")
    assert (half / "model.safetensors").stat().st_size < 0.7 * (full / "model.safetensors").stat().st_size
    for key, tensor in Zoo.load(f"local-dir:{half}").state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, model.state_dict()[key].half().float())


def test_a_folder_holds_what_it_says(tmp_path: Path) -> None:
    recipe = "# reaches -12.5 nats\nseed: 1\nmodel: {class: vae.VAE}\n"
    folder = Zoo.save(tiny_vae(), tmp_path / "new" / "vae-digits", recipe=recipe, measurements=[NUMBER])
    assert set(tree(tmp_path / "new")) == {
        "vae-digits",
        *(f"vae-digits/{name}" for name in FILES if not name.endswith((".png", ".csv"))),
    }
    config, metrics = (json.loads((folder / name).read_text()) for name in ("config.json", "metrics.json"))
    assert config["class"] == "vae.VAE" and config["arguments"]["event_shape"] == [1, 8, 8]
    assert metrics["weights_sha256"] == sha256((folder / "model.safetensors").read_bytes())
    assert metrics["config_sha256"] == sha256((folder / "config.json").read_bytes())
    assert [Measurement.from_dict(record) for record in metrics["measurements"]] == [NUMBER]
    assert (folder / "recipe.yaml").read_text() == recipe


def test_weights_on_the_same_memory_stay_tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = plugins.install(
        tmp_path,
        monkeypatch,
        "Tied",
        "import torch\nfrom zoo.capabilities import GenerativeModel\n\n\n"
        "class Tied(GenerativeModel):\n"
        "    event_shape = (2,)\n\n"
        "    def __init__(self, width: int = 2):\n"
        "        super().__init__()\n"
        "        self.save_hyperparameters()\n"
        "        self.first = torch.nn.Linear(width, width)\n"
        "        self.second = torch.nn.Linear(width, width)\n"
        "        self.second.weight = self.first.weight\n"
        "        self.register_buffer('steps', torch.arange(width), persistent=False)\n\n"
        "    def draw(self, streams):\n"
        "        return torch.zeros(len(streams), 2)\n",
    )
    model = find_class(name, "here", [plugins.PACKAGE])(width=3)
    source = f"local-dir:{Zoo.save(model, tmp_path / 'tied')}"
    loaded: Any = Zoo.load(source, plugins=[plugins.PACKAGE])
    assert loaded.second.weight is loaded.first.weight and torch.equal(loaded.first.weight, model.first.weight)
    assert loaded.steps.tolist() == [0, 1, 2]


def test_classes_of_other_packages_need_consent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "imported"
    name = plugins.install(
        tmp_path,
        monkeypatch,
        "Coin",
        f"open({str(marker)!r}, 'w').close()\n"
        "import torch\nfrom zoo.capabilities import GenerativeModel\n\n\n"
        "class Coin(GenerativeModel):\n"
        "    event_shape = (1,)\n\n"
        "    def __init__(self, bias: float = 0.5):\n"
        "        super().__init__()\n"
        "        self.save_hyperparameters()\n"
        "        self.bias = torch.nn.Parameter(torch.tensor(bias))\n\n"
        "    def draw(self, streams):\n"
        "        return torch.zeros(len(streams), 1)\n",
    )
    with pytest.raises(
        ConfigError, match=r"if you trust that package, install it and pass plugins=\['their-package'\]"
    ):
        find_class(name, "here")
    assert not marker.exists(), "a name alone imports nothing"
    coin = find_class(name, "here", [plugins.PACKAGE])(bias=0.25)
    folder = Zoo.save(coin, tmp_path / "coin")
    assert json.loads((folder / "config.json").read_text())["class"] == name == "their-package:Coin"
    with pytest.raises(ConfigError, match="the model is Coin of the package 'their-package'"):
        Zoo.load(f"local-dir:{folder}")
    loaded: Any = Zoo.load(f"local-dir:{folder}", plugins=[plugins.PACKAGE])
    assert loaded.bias.item() == 0.25 and f'plugins=["{plugins.PACKAGE}"]' in (folder / "README.md").read_text()

    class Local(type(coin)):  # type: ignore[misc]
        pass

    with pytest.raises(ConfigError, match="or one that an installed package offers"):
        Zoo.save(Local(), tmp_path / "local")


def test_a_checkpoint_of_format_1_is_read(folder: Path) -> None:
    """It named the path of the class, and was else the same."""
    config, metrics = (json.loads((folder / name).read_text()) for name in ("config.json", "metrics.json"))
    assert config["format_version"] == metrics["format_version"] == 2
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 1, "class": "zoo.vae.vae.VAE"}))
    digest = sha256((folder / "config.json").read_bytes())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "format_version": 1, "config_sha256": digest}))
    found = Zoo.info(f"local-dir:{folder}")
    assert found.class_name == "vae.VAE" and found.numbers == [NUMBER] and isinstance(found.load(), VAE)
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 3}))
    with pytest.raises(ConfigError, match="expected format_version 1 to 2, found 3; update the zoo"):
        Zoo.load(f"local-dir:{folder}")


def test_a_kind_is_checked(folder: Path) -> None:
    assert isinstance(Zoo.load(f"local-dir:{folder}", VAE), VAE)
    with pytest.raises(ConfigError, match="expected a model that is LeNet, found VAE"):
        Zoo.load(f"local-dir:{folder}", LeNet)


def test_overwriting_replaces_the_folder_and_nothing_else(folder: Path) -> None:
    (folder / "samples.png").write_bytes(b"of the old weights")
    (folder / ".metrics.json.new-0123abcd").write_bytes(b"of an update that was killed")
    other = Zoo.save(MODELS["made"](), folder, overwrite=True)
    assert other == folder and type(Zoo.load(f"local-dir:{folder}")) is MADE
    assert not (folder / "samples.png").exists() and [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("moment", range(9))
def test_whatever_fails_while_overwriting_the_old_one_stays(
    moment: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that makes a folder, flushes to the disk or renames fails once."""
    calls = 0

    def failing(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == moment + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **kwargs)

        return call

    before = tree(folder.parent)
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "rename", failing(Path.rename))
    monkeypatch.setattr(Path, "mkdir", failing(Path.mkdir))
    if moment < 8:  # a new folder, four files, their folder, two renames; then the new one is in place
        with pytest.raises(CheckpointError, match="No space left on device; nothing was changed"):
            Zoo.save(MODELS["made"](), folder, overwrite=True)
        assert tree(folder.parent) == before
    else:
        Zoo.save(MODELS["made"](), folder, overwrite=True)
        assert calls == 9 and type(Zoo.load(f"local-dir:{folder}")) is MADE


def test_a_kill_while_overwriting_leaves_the_old_one_and_says_where(folder: Path) -> None:
    """Between the rename of the old folder and that of the new one, where there is none for a moment."""

    def work() -> None:
        tiny_runs.die_at_call(Path, "rename", 2)
        Zoo.save(MODELS["made"](), folder, overwrite=True)

    assert tiny_runs.child(work)
    with pytest.raises(
        CheckpointError, match=r"it does not exist, and a save that was killed has left .*\.old-"
    ) as error:
        Zoo.load(f"local-dir:{folder}")
    next(folder.parent.glob(".vae-digits.old-*")).rename(folder)
    assert isinstance(Zoo.load(f"local-dir:{folder}"), VAE) and "\n" not in str(error.value)


def test_update_puts_numbers_pictures_and_a_card(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    Zoo.update(
        Checkpoint.of_folder(folder),
        [NUMBER, {**NUMBER.to_dict(), "name": "iwae", "command": "zoo evaluate"}],
        dict.fromkeys(("samples.png", "curve.png", "curve.csv"), b"png"),
    )
    assert [number.name for number in Zoo.info(f"local-dir:{folder}").numbers] == ["elbo", "iwae"]
    assert "| iwae |" in (folder / "README.md").read_text() and "](samples.png)" in (folder / "README.md").read_text()
    assert (folder / "model.safetensors").read_bytes() == weights
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"recipe.yaml", "before_after.png"}


def test_every_flipped_bit_and_every_truncation_is_detected(folder: Path) -> None:
    path, draw = folder / "model.safetensors", random.Random(0)
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        for content in (bytes(damaged), whole[: draw.randrange(len(whole))]):
            path.write_bytes(content)
            with pytest.raises(CheckpointError) as caught:
                Zoo.load(f"local-dir:{folder}")
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert isinstance(Zoo.load(f"local-dir:{folder}"), VAE)


# --------------------------------------------------------------------------------------------------- names, registry


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with two checkpoints of its own."""
    root = tmp_path / "checkpoints"
    monkeypatch.setattr(records, "SHIPPED", root)
    monkeypatch.setattr(records, "REGISTRY", tmp_path / "registry.json")
    binary = {**NUMBER.to_dict(), "data": "binarized-digits", "name": "nll", "kind": "exact"}
    Zoo.save(tiny_vae(), root / "vae-digits", measurements=[NUMBER], recipe={"seed": 0})
    Zoo.save(MODELS["made"](), root / "made-binarized-digits", measurements=[binary])
    release.release()
    return root


def test_names_are_listed_by_pattern_and_by_what_models_are(catalog: Path) -> None:
    assert Zoo.list() == ["made-binarized-digits", "vae-digits"]
    assert Zoo.list("*-digits") == Zoo.list() and Zoo.list("vae*") == ["vae-digits"] and Zoo.list("gan*") == []
    assert Zoo.list(capability="EvidenceLowerBound") == Zoo.list(capability=EvidenceLowerBound) == ["vae-digits"]
    assert Zoo.list(data="binarized-digits") == Zoo.list(family="autoregressive") == ["made-binarized-digits"]
    assert Zoo.list(capability="GenerativeModel", family="vae", data="digits") == ["vae-digits"]
    with pytest.raises(ConfigError, match="did you mean 'TractableDensity'"):
        Zoo.list(capability="TractableDensty")


def test_a_name_loads_and_says_what_it_is(catalog: Path) -> None:
    assert isinstance(Zoo.load("vae-digits"), VAE)
    info = Zoo.info("vae-digits")
    assert (info.family, info.data_name, info.licence) == ("vae", "digits", "mit")
    assert info.size == (catalog / "vae-digits" / "model.safetensors").stat().st_size
    assert info.recipe == "seed: 0\n" and info.numbers == [NUMBER]
    assert (
        "elbo -12.5 +- 0.25 nats (bound" in str(info)
        and json.loads(json.dumps(info.to_dict()))["data_name"] == "digits"
    )


def test_the_registry_pins_the_weights_of_a_name(catalog: Path) -> None:
    """A folder that is whole in itself but is not the one that was registered."""
    Zoo.save(MODELS["vae"]().to(torch.float16).float(), catalog / "vae-digits", overwrite=True)
    assert isinstance(Zoo.load(f"local-dir:{catalog / 'vae-digits'}"), VAE)
    with pytest.raises(CheckpointError, match=r"model.safetensors: expected sha256 .* altered"):
        Zoo.load("vae-digits")


def test_cards_and_registry_of_the_shipped_checkpoints_are_fresh() -> None:
    checkpoints = release.shipped()
    assert [checkpoint.name for checkpoint in checkpoints] == Zoo.list()
    assert records.render(release.entries()) == records.REGISTRY.read_text(), "run python -m zoo.store.release"
    assert (records.SHIPPED.parent / "MODEL_CARDS.md").read_text() == release.render_index(checkpoints)
    for checkpoint in checkpoints:
        assert checkpoint.path("README.md").read_text() == render_card(checkpoint)


@pytest.mark.parametrize("name", release.shipped_names())
def test_every_shipped_checkpoint_loads(name: str) -> None:
    model = Zoo.load(name)
    assert isinstance(model, ZooModule) and capabilities_of(type(model)) == Zoo.info(name).capabilities
    assert Zoo.info(name).size <= 16e6 and Zoo.info(name).numbers and Zoo.info(name).recipe
    assert str(Zoo.info(name)).startswith(name)
    for number in Zoo.info(name).records:  # what recomputes it, as anyone can type it
        assert number["command"].split()[:3] == ["zoo", "evaluate", name]


def test_listing_imports_neither_torch_nor_lightning() -> None:
    code = (
        "import sys, zoo; from zoo import Zoo; names = Zoo.list(); infos = [str(Zoo.info(name)) for name in names];"
        "print(sorted({'torch', 'lightning', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------------------------------------------------- cards


def test_a_card_carries_the_metadata_of_the_hub(folder: Path) -> None:
    card = ModelCard((folder / "README.md").read_text())
    assert card.data.library_name == "generative-zoo" and card.data.pipeline_tag == "unconditional-image-generation"
    (result,) = card.data.eval_results or []
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("elbo", -12.5, "digits")
    assert "| elbo | -12.50 ± 0.25 | nats | bound | 300 | digits test |" in card.text
    assert "arxiv.org/abs/1312.6114" in card.text
    assert card.data.license is None  # that of a user's model is the user's affair


def test_the_card_of_a_shipped_model_names_its_licence(catalog: Path) -> None:
    card = ModelCard((catalog / "vae-digits" / "README.md").read_text())
    assert card.data.license == "mit" and 'Zoo.load("vae-digits")' in card.text
    cards = (catalog.parent / "MODEL_CARDS.md").read_text()
    assert "[`vae-digits`](checkpoints/vae-digits)" in cards and "## Autoregressive models" in cards
    assert "| elbo" not in cards and "nll -12.50 ± 0.25 nats" in cards and "library_name" not in cards


@pytest.mark.parametrize("name", MODELS)
def test_the_snippet_of_a_card_runs(name: str, tmp_path: Path) -> None:
    folder = Zoo.save(MODELS[name](), tmp_path / name)
    snippet, *_ = re.findall(r"```python\n(.*?)```", render_card(Checkpoint.of_folder(folder)), re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    results = [value for key, value in names.items() if isinstance(value, torch.Tensor)]
    assert results and all(len(value) == 8 and value.isfinite().all() for value in results)
