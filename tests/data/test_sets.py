"""What the data sets contain, and the noise that some of them draw."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from small_data import SPLITS, Grey, attached, complaint
from torchvision import datasets

import zoo.data
from zoo.data import CIFAR10, MNIST, Bars, BinarizedMNIST, DataModule, Digits, FashionMNIST, Shapes64, Toy1D, Toy2D
from zoo.data.mnist import most_likely_sources
from zoo.errors import ConfigError


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_equals_that_of_torchvision(kind: type[DataModule], real_data: str) -> None:
    data = kind()
    train, test = (getattr(datasets, kind.__name__)(real_data, train=train) for train in (True, False))
    for which, images, labels in (
        ("train", train.data[:50_000], train.targets[:50_000]),
        ("valid", train.data[50_000:], train.targets[50_000:]),
        ("test", test.data, test.targets),
    ):
        split = data.split(which)
        assert split.x.dtype == torch.uint8
        assert torch.equal(split.x[:, 0], images)
        assert torch.equal(split.labels, labels)
    batch = next(data.batches("test", index=torch.tensor([7, 3])))
    assert torch.equal(batch.x, test.data[[7, 3], None] / 255)
    assert batch.index.tolist() == [7, 3]


def test_cifar_equals_that_of_torchvision(real_data: str) -> None:
    data = CIFAR10()
    oracle = datasets.CIFAR10(real_data, train=True)
    whole = torch.cat([data.split("train").x, data.split("valid").x])
    assert torch.equal(whole, torch.from_numpy(oracle.data).permute(0, 3, 1, 2))
    assert torch.cat([data.split("train").labels, data.split("valid").labels]).tolist() == oracle.targets
    assert len(data.split("valid")) == 5_000
    assert len(data.split("test")) == 10_000


def test_binarized_mnist_equals_the_text_of_its_files(real_data: str) -> None:
    data = BinarizedMNIST()
    for which, size in zip(SPLITS, (50_000, 10_000, 10_000), strict=True):
        split = data.split(which)
        assert split.x.shape == (size, 1, 28, 28)
        assert split.x.unique().tolist() == [0, 1]
        assert split.labels is None
        text = np.loadtxt(Path(real_data, f"binarized_mnist/binarized_mnist_{which}.amat"), max_rows=50)
        assert np.array_equal(split.x[:50].flatten(1).numpy(), text)
    assert next(data.batches("test")).x.unique().tolist() == [0.0, 1.0]


def test_labels_of_binarized_mnist_are_those_of_the_grey_images(real_data: str) -> None:
    """The test file is sorted by class, which the search for the grey images confirms."""
    split, grey = BinarizedMNIST(labels=True).split("test"), MNIST().split("test")
    sources = most_likely_sources(split.x[::50], grey.x)
    assert len(sources.unique()) == 200
    assert torch.equal(grey.labels[sources], split.labels[::50])


def test_binary_images_find_their_sources() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.randint(256, (100, 1, 8, 8), generator=generator, dtype=torch.uint8)
    sources = torch.randperm(100, generator=generator)
    x = torch.bernoulli(grey[sources] / 255, generator=generator).to(torch.uint8)
    assert torch.equal(most_likely_sources(x, grey), sources)


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, digits = Digits(seed=3), load_digits()
    assert [len(data.split(which)) for which in SPLITS] == [1297, 200, 300]
    counts = torch.cat([data.split(which).labels for which in SPLITS]).bincount()
    assert counts.tolist() == np.bincount(digits.target).tolist()
    grey = torch.cat([next(data.batches(which, batch_size=2000)).x for which in SPLITS])
    assert 0 == grey.min() < grey.max() == 1
    assert grey.mean().item() == pytest.approx(digits.images.mean() / 16, abs=0.5 / 255)
    assert torch.equal(Digits(seed=3).split("test").x, data.split("test").x)
    assert not torch.equal(Digits(seed=4).split("test").x, data.split("test").x)


@pytest.mark.parametrize(
    ("toy", "kind"),
    [
        (Toy1D, "gaussian"),
        (Toy1D, "mixture"),
        *((Toy2D, kind) for kind in ("moons", "spirals", "gaussians", "rings", "checkerboard")),
    ],
)
def test_toys_are_standardised_and_come_from_the_seed(toy: type[Toy1D] | type[Toy2D], kind: str) -> None:
    data = toy(kind, seed=1)
    x, dim = data.split("train").x, data.event_shape[0]
    assert x.shape == (10_000, dim)
    assert torch.allclose(x.mean(0), torch.zeros(dim), atol=1e-5)
    assert torch.allclose(x.std(0), torch.ones(dim), atol=1e-5)
    assert torch.equal(toy(kind, seed=1).split("test").x, data.split("test").x)
    assert not torch.equal(toy(kind, seed=2).split("test").x, data.split("test").x)
    test = data.split("test").x
    assert torch.allclose(test.mean(0), torch.zeros(dim), atol=0.12)
    assert torch.allclose(test.std(0), torch.ones(dim), atol=0.12)
    assert torch.equal(next(data.batches("test", batch_size=2000)).x, test)  # continuous data are not scaled again


@pytest.mark.parametrize("shape", [(4, 4), (3, 2), (2, 3), (1, 3), (3, 1), (1, 1)])
def test_bars_are_all_sets_of_full_rows_or_full_columns(shape: tuple[int, int]) -> None:
    height, width = shape
    rows = [np.repeat(np.array(bits)[:, None], width, 1) for bits in product((0, 1), repeat=height)]
    columns = [np.repeat(np.array(bits)[None], height, 0) for bits in product((0, 1), repeat=width)]
    expected = {image.astype(np.uint8).tobytes() for image in rows + columns}
    data = Bars(height, width)
    images = data.images()
    assert images.dtype == torch.uint8 and images.shape[1:] == data.event_shape == (1, height, width)
    assert {image.numpy().tobytes() for image in images} == expected
    assert len(images) == len(expected) == 2**height + 2**width - 2  # each exactly once
    assert data.entropy == pytest.approx(math.log(len(expected)))


def test_bars_are_drawn_uniformly_from_the_seed() -> None:
    data = Bars(seed=1)
    assert [len(data.split(which)) for which in SPLITS] == [10_000, 2_000, 2_000]
    assert torch.equal(Bars(seed=1).split("test").x, data.split("test").x)
    assert not torch.equal(Bars(seed=2).split("test").x, data.split("test").x)
    matches = (data.split("train").x[:, None] == data.images()).flatten(2).all(2)  # [10000, 30]
    counts = matches.sum(0)
    assert counts.sum() == 10_000  # every example is one of the images
    assert stats.chisquare(counts).pvalue > 1e-3
    assert next(data.batches("train")).x.unique().tolist() == [0.0, 1.0]


def test_photographs_are_mirrored_every_second_time_in_training_alone() -> None:
    x, index = torch.arange(3 * 32 * 32 * 400, dtype=torch.int64).remainder(251).view(400, 3, 32, 32), torch.arange(400)
    data = CIFAR10(seed=3, mirror=True)

    def mirrored(step: int, index: torch.Tensor = index, seed: int = 3) -> list[bool]:
        found = CIFAR10(seed=seed, mirror=True).convert(x[index], index, step)
        plain = x[index] / 255
        flipped = (found == plain.flip(-1)).flatten(1).all(1)
        assert torch.equal(flipped, ~(found == plain).flatten(1).all(1))
        return flipped.tolist()

    first = mirrored(0)
    assert 150 < sum(first) < 250 and first == mirrored(0)
    assert first != mirrored(1) and first != mirrored(0, seed=4)
    assert [first[i] for i in (9, 2, 7)] == mirrored(0, torch.tensor([9, 2, 7])), "the image decides, not the batch"
    for passed in (-1, -2, -3):
        assert torch.equal(data.convert(x, index, passed), x / 255)
    assert torch.equal(CIFAR10(seed=3).convert(x, index, 0), x / 255)


def test_dynamic_binarisation_depends_on_the_image_and_the_pass_alone() -> None:
    data = Grey(binarize="dynamic", seed=3)
    assert (data.name, data.levels) == ("dynamic-mnist", 2)
    draw = {size: torch.cat([batch.x for batch in data.batches("test", batch_size=size)]) for size in (1, 4, 23)}
    assert torch.equal(draw[1], draw[23])
    assert torch.equal(draw[4], draw[23])
    assert draw[23].unique().tolist() == [0.0, 1.0]
    assert torch.equal(next(data.batches("test", index=torch.tensor([9, 2]))).x, draw[23][[9, 2]])

    def epochs(seed: int, rank: int = 0, world: int = 1) -> list[dict[int, torch.Tensor]]:
        """The pixels of each example in two epochs of training."""
        data = attached(Grey(batch_size=22, binarize="dynamic", seed=seed), rank, world, training=True)
        loader = data.train_dataloader()
        passes = [[data.on_after_batch_transfer(batch, 0) for batch in loader] for _ in range(2)]
        return [dict(zip(batch.index.tolist(), batch.x, strict=True)) for (batch,) in passes]

    first, second = epochs(seed=3)
    changed = [not torch.equal(first[key], second[key]) for key in first.keys() & second.keys()]
    assert sum(changed) > 10
    other = epochs(seed=4)[0]
    assert sum(not torch.equal(first[key], other[key]) for key in first.keys() & other.keys()) > 10
    for rank in range(2):
        part = epochs(3, rank, 2)[1]
        assert len(part) == 11
        assert all(torch.equal(second[key], x) for key, x in part.items())
    for stage, which in (("validating", "valid"), ("sanity_checking", "valid"), ("testing", "test")):
        batch = attached(data, **{stage: True}).on_after_batch_transfer(data.rows(which, torch.arange(23)), 0)
        assert torch.equal(batch.x, next(data.batches(which)).x)


def test_dynamic_binarisation_has_the_grey_values_as_probabilities() -> None:
    data = Grey(binarize="dynamic")
    grey = data.rows("train", torch.arange(23))
    num = 4000
    mean = sum(data.convert(grey.x, grey.index, epoch) for epoch in range(num)) / num
    p = grey.x / 255
    error = (mean - p) / (p * (1 - p) / num).sqrt().clamp(min=1e-9)
    assert error.abs().max() < 4.5  # 92 pixels
    assert mean[grey.x == 0].eq(0).all()
    assert mean[grey.x == 255].eq(1).all()


def test_the_noise_of_the_data_is_not_the_noise_of_a_model_of_the_same_seed() -> None:
    from zoo.random import Streams, rand

    data = Grey(binarize="dynamic", seed=0)
    x = torch.full((50, 1, 2, 2), 128, dtype=torch.uint8)
    ours = data.convert(x, torch.arange(50), 0)
    models = (rand((50, 1, 2, 2), Streams(0, range(50), 0)) < x / 255).float()
    assert 0.3 < (ours == models).float().mean() < 0.7


def test_binarize_knows_one_word() -> None:
    with pytest.raises(ConfigError) as error:
        MNIST(binarize="static")
    complaint(error, "'static'", "BinarizedMNIST")


def test_subsets_are_drawn_without_replacement_from_a_seed() -> None:
    data = Grey()
    index = data.subset("test", 10, seed=1)
    assert len(set(index.tolist())) == 10
    assert index.tolist() != list(range(10))
    assert torch.equal(data.subset("test", 4, seed=1), index[:4])
    assert not torch.equal(data.subset("test", 10, seed=2), index)
    with pytest.raises(ConfigError) as error:
        data.subset("test", 24, seed=0)
    complaint(error, "0 to 23", "found 24")


def test_arguments_out_of_range() -> None:
    with pytest.raises(ConfigError) as error:
        Digits(batch_size=0)
    complaint(error, "batch_size", "found 0")
    with pytest.raises(ConfigError) as error:
        Digits().split("validation")
    complaint(error, "train, valid, test", "'validation'")
    with pytest.raises(ConfigError) as error:
        Toy2D("circles")
    complaint(error, "moons", "'circles'")
    with pytest.raises(ConfigError) as error:
        Bars(0, 17)
    complaint(error, "from 1 to 16", "found 0 and 17")


def test_sections_of_recipes_are_built() -> None:
    data = zoo.data.build({"class": "Bars", "height": 2}, seed=3)
    assert isinstance(data, Bars) and (data.event_shape, data.seed) == ((1, 2, 4), 3)
    assert zoo.data.build({"class": "Digits", "seed": 5}, seed=3).seed == 5
    for section, *parts in (
        ({"class": "Barz"}, "data: no class 'Barz'", "'Bars'"),
        ({"class": "DataModule"}, "data: no class 'DataModule'"),
        ({"class": "Split"}, "data: no class 'Split'"),
        ({"height": 2}, "data: no class 'None'"),
        ({"class": "Bars", "hight": 2}, "data: Bars", "'hight'", "'height'"),
        ({"class": "Toy1D", "kind": "moons"}, "data: Toy1D: kind", "'mixture'"),
    ):
        with pytest.raises(ConfigError) as error:
            zoo.data.build(section)
        complaint(error, *parts)


def test_splits_are_read_once() -> None:
    data = Digits()
    assert data.split("train") is data.split("train")


def test_shapes_are_a_function_of_split_and_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.data.shapes._SIZES", {"train": 60, "valid": 16, "test": 24})
    data, again = Shapes64(), Shapes64(seed=1)
    for which, num in zip(SPLITS, (60, 16, 24), strict=True):
        split = data.split(which)
        assert split.x.shape == (num, 3, 64, 64) and split.x.dtype == torch.uint8
        assert torch.equal(split.x, again.split(which).x) and torch.equal(split.labels, torch.arange(num) % 8)
    monkeypatch.setattr("zoo.data.shapes._SIZES", {"train": 60, "valid": 16, "test": 8})
    assert torch.equal(Shapes64().split("test").x, data.split("test").x[:8])  # an image needs no others
    every = torch.cat([data.split(which).x for which in SPLITS]).flatten(1)
    assert len(every.unique(dim=0)) == 100  # splits are disjoint, and no image is drawn twice


def test_shapes_have_the_area_of_their_kind() -> None:
    """Relative to the disc of their circumscribed circle, from the formulas of geometry."""
    data = Shapes64()
    area = {
        "circle": math.pi,
        "crescent": math.pi - _lens(1, 0.8, 0.5),
        "cross": 4 * (2 * 0.96 * 0.3 - 0.3**2),
        "hexagon": 1.5 * math.sqrt(3),
        "ring": math.pi * (1 - 0.56**2),
        "square": 2,
        "star": 10 * 0.5 * 0.42 * math.sin(math.pi / 5),
        "triangle": 0.75 * math.sqrt(3),
    }
    y, x = torch.meshgrid(*[torch.linspace(-1.1, 1.1, 500)] * 2, indexing="ij")
    for name in data.classes:
        inside = zoo.data.shapes._SHAPES[name](x, y) < 0
        assert inside.float().mean().item() * 2.2**2 == pytest.approx(area[name], rel=0.01), name
        assert torch.hypot(x, y)[inside].max() < 1.01


def _lens(a: float, b: float, distance: float) -> float:
    """Area of the intersection of two discs of radii a and b."""
    p = (distance**2 + a**2 - b**2) / (2 * distance)
    q = distance - p
    return sum(r**2 * math.acos(d / r) - d * math.sqrt(r**2 - d**2) for r, d in ((a, p), (b, q)))


def test_a_shape_stands_out_from_its_ground() -> None:
    split = Shapes64().split("valid")
    x = split.x.float() / 255
    corner = x[:, :, :3, :3].mean((2, 3), keepdim=True)  # shapes keep two pixels away from the edge
    far = (x - corner).abs().amax(1).flatten(1)
    assert (far.amax(1) > 0.15).all() and (far.median(1).values < 0.35).all()
    assert split.labels.bincount().tolist() == [250] * 8
