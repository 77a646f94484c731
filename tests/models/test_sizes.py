"""Colour images of any size: every model that is not bound to binary or grey pixels, or to points, takes them."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import complaint
from torch.utils.data import TensorDataset

from zoo.errors import ConfigError
from zoo.store.names import FAMILIES, find_class
from zoo.training import Trainer

BOUND = {
    "autoregressive": [
        "ConditionalGatedPixelCNN",
        "EoNADE",
        "FVSBN",
        "GatedPixelCNN",
        "MADE",
        "NADE",
        "PixelCNN",
        "PixelRNN",
        "RNN",
    ],  # binary
    "vae": ["LadderVAE"],  # binary
    "density": ["BernoulliMixture", "Memoriser", "Rivers", "GaussianMixture"],  # binary; points
    "flows": ["IAF", "PlanarFlow", "SplineFlow"],  # points
    "boltzmann": ["BoltzmannMachine", "DBM", "DBN", "RBM"],  # binary
    "energy": ["BinaryEBM", "EBM", "NCE"],  # binary; points
}
KINDS = [
    f"{family}.{title}"
    for family in FAMILIES
    for title in sorted(importlib.import_module(f"zoo.{family}").__all__)
    if title not in BOUND.get(family, [])
]
TINY: dict[str, dict[str, Any]] = {
    "vae": {"latent_dim": 2, "channels": 4, "hidden": 8},
    "gan": {"latent_dim": 4, "channels": 8},
    "diffusion": {"channels": [4, 4, 4]},
    "flows.Glow": {"num_steps": [1, 1], "hidden": [4, 4]},
    "flows.MAF": {"num_layers": 1, "hidden": 8, "num_hidden": 1},
    "flows.NICE": {"hidden": 8, "num_hidden": 1},
    "flows.RealNVP": {"num_couplings": 1, "hidden": 4, "levels": 256, "logit": 1e-6},
    "autoregressive.ColorPixelCNN": {"channels": 4, "num_layers": 1, "hidden": 4},
    "density.CausalGaussian": {"window": 1, "levels": 256, "jitter": 1e-3},
    "density.Gaussian": {"levels": 256, "jitter": 1e-3},
    "classifier.LeNet": {"channels": 2, "num_features": 4, "num_classes": 2},
    "classifier.ResNet": {"channels": [4, 4], "num_classes": 2},
}


def build(name: str, shape: tuple[int, ...], **arguments: Any) -> torch.nn.Module:
    kind = find_class(name, "test")
    if hasattr(kind, "num_classes"):
        arguments.setdefault("num_classes", 2)
    if name.startswith("vae.") and name != "vae.Autoencoder":
        arguments["likelihood"] = "discretized-logistic"
    return kind(event_shape=list(shape), **arguments)


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 12, 20), (1, 33, 33), (3, 128, 128)], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_a_model_takes_images_of_any_size_or_names_the_nearest_that_it_takes(name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        try:
            build(name, shape)
        except ConfigError as refusal:
            sizes = re.findall(r"(\d+)x(\d+)", str(refusal).partition("; the ")[2])
            sizes += [(least, least) for least in re.findall(r"at least (\d+)", str(refusal))]
            assert "\n" not in str(refusal) and sizes, refusal
            for height, width in sizes:
                build(name, (shape[0], int(height), int(width)))


@pytest.mark.parametrize("name", KINDS)
def test_a_model_learns_from_colour_images_that_are_not_square(name: str, tmp_path: Path) -> None:
    pixels = torch.randint(256, (20, 3, 12, 20), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    torch.manual_seed(0)
    model = build(name, (3, 12, 20), **(TINY.get(name) or TINY[name.partition(".")[0]]))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    options: dict[str, Any] = {"progress": False, "logger": False, "sample_grids": False, "limit_val_batches": 0}
    trainer = Trainer(tmp_path, max_epochs=1, max_steps=1, ema_decay=None, accelerator="cpu", **options)
    trainer.fit(model, TensorDataset(pixels, torch.arange(20) % 2))
    after = model.state_dict()
    assert any(not torch.equal(value, after[key]) for key, value in before.items())
    assert all(value.isfinite().all() for value in after.values())


def test_the_nearest_sizes_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        build("gan.DCGAN", (1, 33, 30))
    complaint(error, "multiples of 4, found 33x30; the nearest sizes are 32x28 and 36x32")
    with pytest.raises(ConfigError) as small:
        build("diffusion.DDPM", (1, 3, 8))
    complaint(small, "multiples of 4 for 3 levels, found 3x8; the nearest sizes are 4x8")
