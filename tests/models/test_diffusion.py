"""The shipped diffusion models of points, and what is special about single models."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from zoo import Zoo
from zoo.data import Toy2D
from zoo.diffusion import DDPM, EDM, ConditionalEDM, FlowMatching
from zoo.diffusion.likelihood import FlowSettings, flow_log_prob
from zoo.errors import ConfigError
from zoo.random import Streams, randn
from zoo.samplers import Euler


def _log_density_of_moons(x: Tensor) -> Tensor:
    """The density that the standardised points of `Toy2D` are drawn from, by a sum over 4,000 places on the arcs."""
    angle = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 * math.pi
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    arcs = torch.cat([upper, torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)])
    loc, scale = arcs.mean(0), (arcs.var(0) + 0.01).sqrt()  # of the draws, up to the size of the training set
    apart = torch.cdist(x.double() * scale + loc, arcs).square()
    return (-apart / 0.02).logsumexp(1) - math.log(len(arcs) * 2 * math.pi * 0.01) + scale.log().sum()


@pytest.mark.parametrize("name", ["edm-toy2d", "ddpm-toy2d", "flow-matching-toy2d"])
def test_shipped_models_of_points_know_the_density_of_the_moons(name: str) -> None:
    x = Toy2D("moons").split("test").x[:500]
    with torch.no_grad():
        found = flow_log_prob(Zoo.load(name), x, FlowSettings(steps=100))  # type: ignore[arg-type]
    difference = _log_density_of_moons(x) - found
    assert abs(difference.mean()) < 0.04  # an estimate of the Kullback-Leibler divergence, in nats
    assert difference.std() < 0.3


def test_eulers_method_in_sigma_is_that_of_rectified_flow_in_time() -> None:
    torch.manual_seed(0)
    model = FlowMatching([2], [8, 8])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sampler = Euler(steps=6)
    times = [sigma / (1 + sigma) for sigma in sampler.grid(model)]
    x = (1 - times[0]) * model.sigma_max * randn((10, 2), Streams(0, torch.arange(10)))
    with torch.no_grad():
        for t, to in pairwise(times):
            x = x + (to - t) * model.network(x, torch.full((10,), t))
        found = sampler(model, Streams(0, torch.arange(10)))
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("event_shape", [[2], [1, 4, 4]])
def test_a_model_without_labels_starts_as_one_with_labels_that_is_given_none(event_shape: list[int]) -> None:
    start, model = ConditionalEDM(3, event_shape=event_shape, channels=[8]), EDM(event_shape, channels=[8])
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    assert model.take_weights(start) == []
    y, sigma = torch.randn(5, *event_shape), torch.rand(5) + 0.1
    torch.testing.assert_close(model.denoise(y, sigma), start.denoise(y, sigma), atol=1e-4, rtol=1e-5)
    assert not torch.allclose(model.denoise(y, sigma), start.denoise(y, sigma, torch.zeros(5, dtype=torch.long)))
    other = EDM(event_shape, channels=[8])
    assert other.take_weights(model) == []
    assert torch.equal(other.denoise(y, sigma), model.denoise(y, sigma))


def test_the_network_of_ddpm_sees_the_noisy_example_and_its_step() -> None:
    seen = []

    class Watched(DDPM):
        def __init__(self) -> None:
            super().__init__([2], [8])
            self.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))

    x, epsilon = torch.randn(3, 2), torch.randn(3, 2)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[[0, 499, 999]].float()[:, None]
    sigma = ((1 - abar) / abar).sqrt()
    Watched().denoise(x + sigma * epsilon, sigma[:, 0])
    torch.testing.assert_close(seen[0][0], abar.sqrt() * x + (1 - abar).sqrt() * epsilon, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen[0][1], torch.tensor([0.001, 0.5, 1.0]), rtol=1e-3, atol=0)


def test_a_schedule_of_ddpm_that_falls_is_refused() -> None:
    with pytest.raises(ConfigError, match="beta_min of at most beta_max, found 1000 steps"):
        DDPM([2], [8], beta_min=0.1)
