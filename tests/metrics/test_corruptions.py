"""Spoiled images: nothing at strength 0, within range, reproducible, and each by its definition."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from zoo.metrics.corruptions import Corruption, blur, foreign, noise, rectangles, salt_and_pepper, swirl

OTHERS = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(2))
ALL = {c.__name__: c for c in (noise, blur, rectangles, swirl, salt_and_pepper)} | {"foreign": foreign(OTHERS)}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(ALL))
def test_strength_zero_changes_nothing_and_more_changes_more(name: str, images: Tensor) -> None:
    corrupt: Corruption = ALL[name]
    kept = images.clone()
    assert torch.equal(corrupt(images, 0.0, 0), images)
    apart = [(corrupt(images, strength, 0) - images).square().mean().item() for strength in (0.1, 0.3, 0.5)]
    assert sorted(apart) == apart and apart[-1] > 1e-4
    for strength in (0.5, 1.0, 4.0):
        found = corrupt(images, strength if name in ("noise", "blur", "swirl") else min(strength, 1.0), 0)
        assert found.shape == images.shape and found.isfinite().all()
        assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(images, kept)


@pytest.mark.parametrize("name", ["noise", "rectangles", "salt_and_pepper", "foreign"])
def test_what_is_random_is_seeded_image_by_image(name: str, images: Tensor) -> None:
    corrupt = ALL[name]
    whole = corrupt(images, 0.3, 5)
    assert torch.equal(whole, corrupt(images, 0.3, 5)) and not torch.equal(whole, corrupt(images, 0.3, 6))
    assert torch.equal(whole[:7], corrupt(images[:7], 0.3, 5))


def test_blur_is_that_of_scipy(images: Tensor) -> None:
    one = torch.ones_like(images[:1])
    found, weight = (ndimage.gaussian_filter(x[0, 0].numpy(), 1.5, mode="constant", radius=5) for x in (images, one))
    assert torch.allclose(blur(images, 1.5)[0, 0], torch.from_numpy(found / weight), atol=1e-5)


def test_shares_are_what_they_say() -> None:
    grey = torch.full((200, 1, 28, 28), 0.5)
    spoiled = salt_and_pepper(grey, 0.3)
    assert (spoiled == 0).double().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (spoiled == 1).double().mean().item() == pytest.approx(0.15, abs=0.01)
    mixed = foreign(torch.zeros_like(grey))(grey, 0.3, 0)
    assert (mixed == 0).all(3).all(2).sum().item() == pytest.approx(60, abs=20)
    assert (noise(grey, 0.1) - grey).std().item() == pytest.approx(0.1, rel=0.02)


def test_rectangles_are_black_squares_inside_the_image() -> None:
    white = torch.ones(300, 1, 28, 28)
    erased = (rectangles(white, 0.25) == 0).sum((1, 2, 3))  # squares of 7 pixels, which may overlap
    assert erased.min() >= 49 and erased.max() <= 5 * 49 and erased.double().mean() > 3 * 49
    assert (rectangles(white, 0.25) == 0).double().mean(0).min() > 0  # corners are reached too


def test_swirl_turns_the_centre_and_leaves_the_edge() -> None:
    image = torch.zeros(1, 1, 29, 29)
    image[..., 14, 15] = 1  # to the right of the centre
    angle = math.pi / 2 / math.exp(-5 / (math.log(2) * 25 * 29 / 64))
    turned = swirl(image, angle)
    assert turned[0, 0, 13, 14].item() == pytest.approx(1, abs=1e-4)  # what comes from there now stands above it
    edge = torch.rand(1, 1, 29, 29)
    assert torch.allclose(swirl(edge, 1.0)[..., 0, :], edge[..., 0, :], atol=5e-3)
