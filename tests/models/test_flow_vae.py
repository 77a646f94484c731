"""VAEs whose posterior is a flow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.vae.flow_vae import FlowVAE
from zoo.vae.iaf import IAF
from zoo.vae.planar_vae import PlanarVAE
from zoo.vae.vae import VAE

SIZES: dict[str, Any] = {"event_shape": [1, 4, 8], "latent_dim": 4, "channels": 4, "hidden": 6}


def planar() -> PlanarVAE:
    return PlanarVAE(num_maps=3, **SIZES)


def iaf() -> IAF:
    return IAF(num_maps=3, width=9, **SIZES)


def shaken(model: FlowVAE) -> Any:
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape)
    return model.double().eval()


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return (torch.rand(3, 1, 4, 8) < 0.5).double()


@pytest.mark.parametrize("make", [planar, iaf])
def test_the_posterior_begins_near_that_of_a_vae_with_the_same_weights(make: Any, images: Tensor) -> None:
    model = make().double()
    vae = VAE(**SIZES).double()
    assert all(
        name.startswith("maps") for name in vae.load_state_dict(model.state_dict(), strict=False).unexpected_keys
    )
    epsilon = torch.randn(5, 3, 4, dtype=torch.float64)
    (z, log_q), (expected, expected_log_q) = (m.inferred(images, epsilon) for m in (model, vae))
    torch.testing.assert_close(z, expected, atol=0.05, rtol=0)
    torch.testing.assert_close(log_q, expected_log_q, atol=0.1, rtol=0)


@pytest.mark.parametrize("make", [planar, iaf])
def test_the_density_of_the_posterior_is_that_by_change_of_variables(make: Any, images: Tensor) -> None:
    torch.manual_seed(1)
    model = shaken(make())
    epsilon = torch.randn(2, 3, 4, dtype=torch.float64)
    z, log_q = model.inferred(images, epsilon)
    assert (z - model.encoder(images).chunk(2, 1)[0]).abs().max() > 0.1
    for k in range(2):
        torch.testing.assert_close(model.log_posterior(images, z[k]), log_q[k], atol=1e-8, rtol=1e-8)
        for i in range(3):
            row = images[i : i + 1]
            jacobian = torch.autograd.functional.jacobian(
                lambda e, row=row: model.inferred(row, e[None, None])[0].flatten(), epsilon[k, i]
            )
            normal = -epsilon[k, i].square().sum() / 2 - 2 * math.log(2 * math.pi)
            torch.testing.assert_close(log_q[k, i], normal - jacobian.slogdet().logabsdet, atol=1e-8, rtol=1e-8)


def test_maps_of_iaf_are_autoregressive_and_depend_on_the_image(images: Tensor) -> None:
    torch.manual_seed(1)
    model = shaken(iaf())
    layer, seen = model.maps[0], model.encoder[:-1](images)
    z = torch.randn(4, dtype=torch.float64)
    for row in seen:
        jacobian = torch.autograd.functional.jacobian(lambda v, row=row: layer(v[None], row[None])[0][0], z)
        assert torch.equal(jacobian, jacobian.tril()) and (jacobian.diagonal() > 0).all()
    moved = layer(z.expand(3, 4), seen)[0]
    assert (moved[0, 1:] != moved[1, 1:]).all()
