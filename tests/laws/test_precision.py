"""Every model in every precision: types of numbers come from the weights."""

from __future__ import annotations

import pytest
import torch
from instances import Instance, having
from test_models import given_of, seeded
from torch import nn

from zoo.capabilities import Classifier, EvidenceLowerBound, GenerativeModel, TractableDensity, ZooModule
from zoo.random import Streams

NEEDS_SINGLE = {"Glow", "SplineFlow"}  # torch inverts no matrix of half precision


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@having(GenerativeModel, where=lambda instance: instance.cls.__name__ not in NEEDS_SINGLE)
def test_models_sample_in_any_precision(instance: Instance, dtype: torch.dtype) -> None:
    model = instance.build().to(dtype)
    x = model.sample(7, generator=seeded())
    assert x.shape == (7, *instance.event_shape) and x.is_floating_point() and x.isfinite().all()
    assert len(x.unique(dim=0)) > 1
    if instance.levels is not None:
        assert x.min() >= 0 and x.max() <= 1


@having(TractableDensity)
def test_log_probs_in_double_precision_are_those_in_single(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(5), given_of(instance, 5)
    single = model.log_prob(x, **given)
    double = model.double().log_prob(x.double(), **given)
    torch.testing.assert_close(double.float(), single, atol=1e-3, rtol=1e-3)


@having(EvidenceLowerBound)
def test_bounds_in_double_precision_are_those_in_single(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(5), given_of(instance, 5)
    single = model.elbo(x, generator=Streams(0, range(5)), **given)
    for inputs in (x, x.double()):  # single precision is welcome in a model of double precision
        double = model.double().elbo(inputs, generator=Streams(0, range(5)), **given)
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, atol=1e-3, rtol=1e-3)


@having(EvidenceLowerBound)
def test_bounds_are_computed_in_single_precision_at_least(instance: Instance) -> None:
    """Half precision rounds the weights; the grey levels and the sum over pixels stay exact."""
    model, x, given = instance.build(), instance.data(5), given_of(instance, 5)
    rounded = instance.build()
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    expected = rounded.elbo(x, generator=Streams(0, range(5)), **given)
    found = model.bfloat16().elbo(x, generator=Streams(0, range(5)), **given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.5, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@having(Classifier)
def test_classifiers_in_any_precision(instance: Instance, dtype: torch.dtype) -> None:
    model, x = instance.build(), instance.data(5)
    logits = model(x)
    found = model.to(dtype)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), logits, atol=0.05, rtol=0.05)


@having(ZooModule, where=lambda instance: instance.cls.__name__ != "Rivers")  # it has no weights
def test_a_part_of_another_module_goes_where_that_goes(instance: Instance) -> None:
    model = instance.build()
    for cast, dtype in (("double", torch.float64), ("bfloat16", torch.bfloat16), ("float", torch.float32)):
        getattr(nn.Sequential(model), cast)()
        assert model.dtype == dtype
    nn.Sequential(model).to("meta")
    assert model.device == torch.device("meta")
