"""Consistency models against a Gaussian, whose paths are known: f(y; sigma) = m + s/sqrt(s^2 + sigma^2) (y - m)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from zoo import denoising
from zoo.batch import Batch
from zoo.diffusion import ConditionalEDM, ConsistencyModel
from zoo.objectives import Consistency as Objective
from zoo.random import Streams, randn
from zoo.samplers import Consistency

MEAN, SCALE = 0.7, 0.4


class Exact(ConsistencyModel):
    """The paths of N(MEAN, SCALE^2 I) in the plane."""

    def __init__(self) -> None:
        super().__init__(3, 0.0, [2], [8])
        self.factor = nn.Parameter(torch.ones(()))

    def denoise(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.factor * (MEAN + SCALE / (SCALE**2 + sigma[:, None] ** 2).sqrt() * (y - MEAN))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_jumps_along_exact_paths_draw_from_the_data(steps: int) -> None:
    num = 20_000
    x = Exact().sample(
        num, sampler=Consistency(steps=steps, sigma_max=500.0), generator=torch.Generator().manual_seed(0)
    )
    assert x.mean(0) == pytest.approx([MEAN, MEAN], abs=5 * SCALE / math.sqrt(num))
    assert x.std(0) == pytest.approx([SCALE, SCALE], abs=5 * SCALE / math.sqrt(2 * num))


def test_the_noise_level_halves_its_distance_as_training_goes_on() -> None:
    model = ConsistencyModel(3, event_shape=[2], channels=[8], most_halvings=3, steps_per_halving=10)
    sigma = torch.tensor([0.01, 1.0, 50.0])
    start = model.earlier(sigma)
    assert start.tolist() == pytest.approx([0.01 * 1e-3, 1e-3, 25.0])  # at low noise f learns to denoise first
    for step, k in ((10, 2), (20, 3), (1000, 3)):
        model._own_steps = step
        wanted = [s * max(1e-3, 1 - 2**-k * (1 + 8 / (1 + math.exp(s)))) for s in sigma.tolist()]
        assert model.earlier(sigma).tolist() == pytest.approx(wanted)
    model._own_steps = 0
    model.take_weights(ConditionalEDM(3, event_shape=[2], channels=[8]))
    assert torch.equal(model.earlier(sigma), start)
    model.take_weights(ConsistencyModel(3, event_shape=[2], channels=[8]))
    assert model.earlier(sigma)[2] == pytest.approx(50 * 7 / 8)


def test_the_loss_compares_two_states_of_one_path_and_trains_the_noisier_one() -> None:
    model, rows = Exact(), torch.arange(64)
    x, labels = torch.randn(64, 2), torch.zeros(64, dtype=torch.long)
    loss = Objective().training_step(model, Batch(x, labels, rows))["loss"]
    streams = Streams(model.seed, rows, 0)
    sigma, epsilon = model.training_sigma(streams)[:, None], randn((64, 2), streams)
    earlier = model.earlier(sigma)
    factor = torch.ones((), requires_grad=True)
    ends = [MEAN + SCALE / (SCALE**2 + s**2).sqrt() * (x + s * epsilon - MEAN) for s in (sigma, earlier)]
    distance = (factor * ends[0] - ends[1]).square().sum(1)
    wanted = (((distance + 0.03**2).sqrt() - 0.03) / (sigma - earlier)[:, 0]).mean()
    torch.testing.assert_close(loss, wanted)
    (gradient,), (wanted_gradient,) = (
        torch.autograd.grad(a, b) for a, b in ((loss, [model.factor]), (wanted, [factor]))
    )
    torch.testing.assert_close(gradient, wanted_gradient)


def test_drawings_are_edited_by_jumps() -> None:
    x = torch.full((2000, 2), 3.0)
    edited = denoising.edit(Exact(), x, 1.0, labels=0, generator=torch.Generator().manual_seed(0))
    assert (edited - x).abs().min() > 0 and edited.std(0) == pytest.approx([SCALE, SCALE], rel=0.1)
    assert torch.equal(denoising.edit(Exact(), x, 0.0, labels=0), x)
