"""Every model in every precision: types of numbers come from the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from instances import Instance, having
from torch import Tensor, nn

from zoo import Zoo
from zoo.capabilities import (
    Classifier,
    Encoder,
    EvidenceLowerBound,
    GenerativeModel,
    TractableDensity,
    UnnormalizedDensity,
    ZooModule,
)
from zoo.diffusion.denoiser import DiffusionModel
from zoo.laws.law import seeded
from zoo.random import Streams


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@having(GenerativeModel)
def test_models_sample_in_any_precision(instance: Instance, dtype: torch.dtype) -> None:
    model = instance.build().to(dtype)
    x = model.sample(7, generator=seeded())
    assert x.shape == (7, *instance.event_shape) and x.is_floating_point() and x.isfinite().all()
    assert len(x.unique(dim=0)) > 1
    if instance.levels is not None:
        assert x.min() >= 0 and x.max() <= 1


@having(TractableDensity)
def test_log_probs_in_double_precision_are_those_in_single(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(5), instance.given(5)
    single = model.log_prob(x, **given)
    double = model.double().log_prob(x.double(), **given)
    torch.testing.assert_close(double.float(), single, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@having(TractableDensity)
def test_half_precision_rounds_the_weights_of_a_density_alone(instance: Instance, dtype: torch.dtype) -> None:
    model, x, given = instance.build(), instance.data(5), instance.given(5)
    rounded = instance.build().to(dtype).float()
    expected = rounded.log_prob(x, **given)
    model.to(dtype)
    for inputs in [x, x.double(), *([x.to(dtype)] if instance.levels == 2 else [])]:
        found = model.log_prob(inputs, **given)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
    if trained := list(model.parameters()):
        found.sum().backward()
        assert all(p.grad is None or p.grad.dtype == dtype for p in trained)
        assert any(p.grad is not None and p.grad.any() for p in trained)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@having(UnnormalizedDensity)
def test_energies_in_any_precision(instance: Instance, dtype: torch.dtype) -> None:
    model, x = instance.build().to(dtype), instance.data(5)
    expected = instance.build().to(dtype).float().energy(x)
    found = model.energy(x)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.float(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@having(Encoder, where=lambda instance: not issubclass(instance.cls, DiffusionModel))  # an ODE amplifies rounding
def test_codes_in_any_precision(instance: Instance, dtype: torch.dtype) -> None:
    model, x, given = instance.build(), instance.data(5), instance.given(5)
    expected = model.encode(x, **given).mean
    torch.testing.assert_close(model.to(dtype).encode(x, **given).mean.float(), expected, atol=0.1, rtol=0.1)


@having(ZooModule)
def test_the_default_type_of_numbers_does_not_matter_to_a_model(instance: Instance, tmp_path: Path) -> None:
    model, x = instance.build(), instance.data(3)
    Zoo.save(model, tmp_path / "model")

    def output(model: Any) -> Tensor:
        with torch.no_grad():
            return model(x) if isinstance(model, Classifier) else model.sample(3, generator=seeded())

    expected = output(model)
    torch.set_default_dtype(torch.float64)
    try:
        loaded = Zoo.load(f"local-dir:{tmp_path / 'model'}")
        assert torch.get_default_dtype() == torch.float64
        assert {k: v.dtype for k, v in loaded.state_dict().items()} == {
            k: v.dtype for k, v in model.state_dict().items()
        }
        torch.testing.assert_close(output(loaded), expected)
        if isinstance(loaded, TractableDensity):
            given = instance.given(len(x))
            torch.testing.assert_close(loaded.log_prob(x, **given), model.log_prob(x, **given))
        built = instance.cls(**instance.arguments).eval()
        assert output(built).isfinite().all()
    finally:
        torch.set_default_dtype(torch.float32)


@having(GenerativeModel)
def test_a_part_of_a_module_that_was_cast_draws(instance: Instance) -> None:
    part: Any = nn.Sequential(instance.build()).double()[0]
    assert part.sample(2, generator=seeded()).isfinite().all()


@having(EvidenceLowerBound)
def test_bounds_in_double_precision_are_those_in_single(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(5), instance.given(5)
    single = model.elbo(x, generator=Streams(0, range(5)), **given)
    for inputs in (x, x.double()):  # single precision is welcome in a model of double precision
        double = model.double().elbo(inputs, generator=Streams(0, range(5)), **given)
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, atol=1e-3, rtol=1e-3)


@having(EvidenceLowerBound)
def test_bounds_are_computed_in_single_precision_at_least(instance: Instance) -> None:
    """Half precision rounds the weights; the grey levels and the sum over pixels stay exact."""
    model, x, given = instance.build(), instance.data(5), instance.given(5)
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
