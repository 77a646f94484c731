"""What the residual classifier alone has: its fixed first layer, its shifts, its stages."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from scipy.fft import dctn
from torch import Tensor
from torch.nn import functional as F

from zoo.capabilities import Batch
from zoo.classifier.resnet import ResNet, _Cosines, _shifted
from zoo.errors import ConfigError
from zoo.random import Streams


def images(num: int, *shape: int) -> Tensor:
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(0))


def tiny(event_shape: tuple[int, int, int] = (3, 16, 16), **arguments: Any) -> ResNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet(event_shape, channels=[8, 12, 16], **arguments)


@pytest.mark.parametrize("inputs", [1, 3])
def test_the_first_layer_is_the_cosine_transform_of_each_patch(inputs: int) -> None:
    x = images(2, inputs, 5, 4)
    y = _Cosines(inputs)(x)
    for image, row, column in product(range(2), range(4), range(3)):
        patch = x[image, :, row : row + 2, column : column + 2]
        expected = torch.from_numpy(dctn(patch.numpy(), norm="ortho")).flatten()
        torch.testing.assert_close(y[image, :, row, column], torch.cat([expected, -expected]))


def test_shifts_are_crops_of_the_mirrored_image_and_all_occur() -> None:
    x = images(1, 3, 6, 7)
    padded = F.pad(x, [1] * 4, mode="reflect")
    crops = torch.cat([padded[..., i : i + 6, j : j + 7] for i, j in product(range(3), range(3))])
    shifted = _shifted(x.expand(900, -1, -1, -1), 1, Streams(0, torch.arange(900)))
    is_crop = (shifted[:, None] == crops).flatten(2).all(2)  # [900, 9]
    assert (is_crop.sum(1) == 1).all()
    assert (is_crop.sum(0) - 100).abs().max() < 40  # four standard deviations
    assert _shifted(x, 0, Streams(0, torch.arange(1))) is x


@pytest.mark.parametrize("event_shape", [(1, 16, 16), (3, 16, 21), (3, 32, 32), (1, 128, 128)])
def test_logits_are_linear_in_the_features_whatever_the_shape(event_shape: tuple[int, int, int]) -> None:
    model = tiny(event_shape).eval()
    x = images(3, *event_shape)
    with torch.no_grad():
        features, logits = model.features_and_logits(x)
        assert features.shape == (3, 16) and model.num_features == 16
        torch.testing.assert_close(model.features(x), features)
        torch.testing.assert_close(model(x), logits)
        torch.testing.assert_close(F.linear(features, model.head.weight, model.head.bias), logits)


def test_an_image_alone_is_evaluated_as_in_a_batch() -> None:
    model = tiny()
    with torch.no_grad():
        model(images(50, 3, 16, 16))  # moves the running statistics
        model.eval()
        x = images(4, 3, 16, 16)
        torch.testing.assert_close(torch.cat([model(one[None]) for one in x]), model(x))


def test_it_learns_a_few_images_by_heart() -> None:
    model, x = tiny(max_shift=0), images(32, 3, 16, 16)
    batch = Batch(x, torch.arange(32) % 10, torch.arange(32))
    optimizer = torch.optim.Adam(model.parameters())
    model.train()
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 100)  # running statistics settle as the steps shrink
        optimizer.zero_grad()
        model.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    assert not model.eval().validation_step(batch, 0)["error_rate"].any()


def test_the_targets_of_training_are_smoothed() -> None:
    model = tiny(max_shift=0, label_smoothing=0.2)
    x, labels = images(6, 3, 16, 16), torch.arange(6)
    targets = 0.8 * F.one_hot(labels, 10) + 0.2 / 10
    expected = -(targets * model(x).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(model.training_step(Batch(x, labels, torch.arange(6)), 0)["loss"], expected)


def test_images_must_be_large_enough_for_the_stages_and_the_shifts() -> None:
    with pytest.raises(ConfigError, match=r"sides of at least 9 for 3 stages and shifts of up to 2, found 8x32"):
        ResNet((3, 8, 32))
    with pytest.raises(ConfigError, match=r"sides of at least 21 .*, found 16x16; use fewer channels or a smaller max"):
        ResNet((3, 16, 16), max_shift=20)
    with pytest.raises(ConfigError, match="channels: expected at least one stage"):
        ResNet(channels=[])
    assert ResNet((3, 9, 9)).eval()(images(2, 3, 9, 9)).shape == (2, 10)
