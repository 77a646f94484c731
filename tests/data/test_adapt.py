"""Data sets of PyTorch and torchvision in place of data modules."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import SPLITS, complaint
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision import datasets, transforms

from zoo.data import as_data
from zoo.density.gaussian import Gaussian
from zoo.errors import ConfigError, DataError
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.training import Trainer
from zoo.vae.vae import VAE

PIXELS = torch.randint(256, (50, 3, 8, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = torch.arange(50) % 3
FLOATS = torch.rand(50, 3, 8, 12, generator=torch.Generator().manual_seed(1))


class Items(Dataset[Any]):
    """A data set of the given items."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 24 RGB images in two classes."""
    for number, x in enumerate(PIXELS[:24]):
        path = tmp_path / "images" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.permute(1, 2, 0).numpy()).save(path)
    return tmp_path / "images"


def together(data: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    whole = data.everything()
    return whole.x, whole.labels


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(PIXELS, LABELS),
        TensorDataset(PIXELS / 255, LABELS),
        Items([(x, int(label)) for x, label in zip(PIXELS, LABELS, strict=True)]),
        Items([(x.numpy() / np.float32(255), np.int64(label)) for x, label in zip(PIXELS, LABELS, strict=True)]),
        DataLoader(TensorDataset(PIXELS / 255, LABELS), batch_size=7),
    ],
    ids=["uint8", "floats", "items", "numpy", "loader"],
)
def test_images_and_labels_are_those_of_the_data_set(data: Any) -> None:
    found = as_data(data)
    assert (found.levels, found.event_shape, found.num_classes) == (256, (3, 8, 12), 3)
    x, labels = together(found)
    assert x.dtype == torch.uint8 and torch.equal(x, PIXELS)
    assert torch.equal(labels, LABELS)
    assert [len(found.split(which)) > 0 for which in SPLITS] == [True] * 3


@pytest.mark.parametrize("transform", [None, transforms.ToTensor()], ids=["PIL", "ToTensor"])
def test_an_image_folder_of_torchvision_keeps_its_classes(folder: Path, transform: Any) -> None:
    theirs = datasets.ImageFolder(str(folder), transform)
    found = as_data(theirs)
    assert (found.name, found.levels, found.classes) == ("ImageFolder", 256, ["cat", "dog"])
    x, labels = together(found)
    order = [int(Path(path).stem) for path, _ in theirs.samples]
    assert torch.equal(x, PIXELS[order])
    assert labels.tolist() == theirs.targets
    assert as_data(Subset(theirs, range(9))).classes == ["cat", "dog"]


def test_floats_between_grey_levels_are_continuous_and_black_and_white_is_binary() -> None:
    assert as_data(FLOATS).levels is None
    assert torch.equal(together(as_data(FLOATS))[0], FLOATS)
    mixed = together(as_data(TensorDataset(torch.cat([PIXELS / 255, FLOATS]))))[0]
    assert torch.allclose(mixed, torch.cat([PIXELS / 255, FLOATS]))
    binary = as_data((FLOATS > 0.5).float())
    assert binary.levels == 2 and torch.equal(together(binary)[0], (FLOATS > 0.5).to(torch.uint8))
    vectors = as_data(torch.randn(30, 5))
    assert (vectors.levels, vectors.event_shape, vectors.num_classes) == (None, (5,), None)


def test_splits_that_are_given_are_kept() -> None:
    found = as_data(PIXELS[:20], PIXELS[20:30], PIXELS[30:])
    assert [len(found.split(which)) for which in SPLITS] == [20, 10, 20]
    assert all(
        torch.equal(found.split(which).x, x) for which, x in zip(SPLITS, PIXELS.split([20, 10, 20]), strict=True)
    )
    partly = as_data(PIXELS[:20], PIXELS[20:30])
    assert len(partly.split("valid")) == 10 and len(partly.split("train")) + len(partly.split("test")) == 20
    assert torch.equal(as_data(test=PIXELS).split("test").x, PIXELS)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (2 * FLOATS - 1, ["expected images in [0, 1], found -0.9"]),
        (PIXELS.permute(0, 2, 3, 1), ["expected the channels first"]),
        (
            Items([(FLOATS[0], 1), (FLOATS[0, :, :4], 1)]),
            ["expected examples of one shape, found (3, 8, 12) and, at 1"],
        ),
        (Items([Image.new("RGBA", (4, 4))]), ["example 0: expected a grey or an RGB image, found mode RGBA"]),
        (Items([{"image": 1}]), ["example 0: expected x or (x, label)", "found {'image': 1}"]),
        (Items([]), ["Items: expected examples, found none"]),
        (torch.full((4, 1, 2, 2), torch.nan), ["found NaN or infinity in 4 of 4 examples"]),
        (TensorDataset(PIXELS.long()), ["expected uint8, bool or floats, found int64"]),
        ("photos", ["expected a data set or a loader of PyTorch, or an array, found 'photos'"]),
    ],
)
def test_other_data_are_refused_in_one_sentence(data: Any, parts: list[str]) -> None:
    with pytest.raises(DataError) as error:
        as_data(data)
    complaint(error, *parts)


def test_parts_of_several_shapes_are_refused() -> None:
    with pytest.raises(DataError) as error:
        as_data(PIXELS, PIXELS[..., 1:])
    complaint(error, "expected examples of one shape in all splits, found (3, 8, 12) in train, (3, 8, 11) in valid")


def test_the_trainer_takes_data_sets_and_finds_the_same_model(tmp_path: Path, folder: Path) -> None:
    theirs = datasets.ImageFolder(str(folder), transforms.ToTensor())
    models = []
    for number, data in enumerate((theirs, as_data(theirs))):
        models.append(Gaussian([3, 8, 12], levels=256, jitter=1e-3))
        Trainer(tmp_path / str(number), max_epochs=1, progress=False, sample_grids=False).fit(models[-1], data)
    assert torch.equal(*(model.sample(3, generator=torch.Generator().manual_seed(0)) for model in models))


def test_the_trainer_checks_data_sets_before_training(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run", max_epochs=1, progress=False)
    vae = VAE([3, 8, 8], latent_dim=2, channels=4, hidden=8, likelihood="discretized-logistic")
    with pytest.raises(ConfigError) as wrong:
        trainer.fit(vae, TensorDataset(PIXELS))
    complaint(wrong, "expected event_shape [3, 8, 12], the shape of the examples of arrays, found [3, 8, 8]")
    with pytest.raises(DataError) as other:
        trainer.fit(vae, FLOATS[..., :8])
    complaint(other, "VAE has a likelihood of 8-bit pixels, found real numbers")


def test_evaluation_of_a_data_set_takes_all_of_its_examples() -> None:
    vae = VAE([3, 8, 12], latent_dim=2, channels=4, hidden=8, likelihood="discretized-logistic").eval()
    found = evaluate(vae, TensorDataset(PIXELS / 255), Evaluation(k=2), progress=False)
    assert found[0].n == len(PIXELS)
