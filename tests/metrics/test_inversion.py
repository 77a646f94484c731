"""How exactly a bijection comes back: against one that misses by a known amount."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo.data import Digits, Toy2D
from zoo.density.gaussian import Gaussian
from zoo.errors import DataError
from zoo.metrics.inversion import inversion_error


class Missing(Gaussian):
    """Comes back with an error of a quarter of what lies above 1."""

    def from_latent(self, z: Tensor) -> Tensor:
        x = super().from_latent(z)
        return x + 0.25 * (x - 1).clamp(min=0)


def test_the_error_is_the_largest_of_all_values() -> None:
    data = Toy2D("rings")
    (found,) = inversion_error(Missing([2]), data, progress=False)
    x = data.split("test").x[data.subset("test", 250, 0)]
    assert found.value == pytest.approx(0.25 * (x.max().item() - 1)) and found.n == 250
    assert (found.name, found.unit, found.details) == ("inversion_error", "", {"precision": "float32"})
    (alone,) = inversion_error(Missing([2]), data, batch_size=1, progress=False)
    assert alone == found
    (better,) = inversion_error(Missing([2]).double(), data, progress=False)
    assert better.details == {"precision": "float64"}


def test_grey_levels_are_dequantised_first() -> None:
    seen = []

    class Spy(Gaussian):
        def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(x)
            return super().to_latent(x)

    (found,) = inversion_error(Spy([1, 8, 8], levels=256), Digits(), progress=False)
    assert found.value < 1e-6
    x = torch.cat(seen) * 256
    assert (x != x.floor()).any() and x.min() >= 0 and x.max() < 256


def test_data_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError):
        inversion_error(Gaussian([3]), Toy2D("rings"), progress=False)
