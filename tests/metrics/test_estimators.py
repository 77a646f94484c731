"""Which estimate of log p(x) a model has, by its capabilities; and samplers as a part of what identifies a number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from instances import INSTANCES, Instance
from test_metrics import BernoulliPixels, Given, LinearGaussianVAE, Projection, Ramp, gaussian_data, pixels
from torch import Tensor

from zoo.batch import Batch
from zoo.boltzmann import RBM
from zoo.capabilities import Dequantized, EvidenceLowerBound, GenerativeModel, Sampled, TractableDensity
from zoo.diffusion import EDM
from zoo.errors import ConfigError, DataError
from zoo.measurement import Measurement, compare, recorded_value
from zoo.metrics.conditional import class_accuracy
from zoo.metrics.estimators import ESTIMATORS, Effort, Estimate, estimators_of
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.extractors import ClassifierFeatures
from zoo.metrics.likelihood import log_likelihood, nll
from zoo.module import facts_of
from zoo.random import Source, Streams, rand
from zoo.samplers.base import Sampler

KINDS = {"exact": "exact", "exact, of dequantised data": "bound", "unnormalised": "exact"}  # of so few units


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda i: f"{i.cls.__name__}-{i.levels or 'real'}")
def test_a_model_has_estimates_of_the_kind_that_its_type_states(instance: Instance) -> None:
    """Models with a density or a bound have an estimator, and no others; real numbers are not dequantised."""
    density, estimators = facts_of(instance.cls).get("density", "none"), estimators_of(instance.cls)
    assert bool(estimators) == (density != "none")
    if issubclass(instance.cls, Dequantized) and instance.levels is None:
        density = "exact"
    model = instance.build()
    for make in estimators.values():
        assert make(model, Effort(k=3, draws=2)).kind == KINDS.get(density, "bound")


def test_the_more_specific_capability_wins() -> None:
    assert [*estimators_of(LinearGaussianVAE)] == ["neg_elbo", "nll"]
    assert estimators_of(Ramp)["nll"] is ESTIMATORS[Dequantized]["nll"]
    assert estimators_of(BernoulliPixels) == ESTIMATORS[TractableDensity]
    assert estimators_of(GenerativeModel) == {}

    class Both(BernoulliPixels, EvidenceLowerBound):
        def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
            return self.log_prob(x) - 1

    model, data = Both(torch.full((1, 3, 3), 0.3)), Given(pixels(80, 1, 3, 3, levels=2), levels=2)
    found = {m.name: m for m in nll(model, data, progress=False)}
    assert {name: m.kind for name, m in found.items()} == {"neg_elbo": "bound", "nll": "exact"}
    assert found["neg_elbo"].value == pytest.approx(found["nll"].value + 1)
    assert found["neg_elbo"].details["draws"] == 10 and "draws" not in found["nll"].details


class Counted(GenerativeModel):
    """A new capability: a density up to a constant, which is estimated with an error that all examples share."""

    facts: ClassVar = {"density": "up to a constant"}
    event_shape, levels = (1, 3, 3), 2

    def energy(self, x: Tensor) -> Tensor:
        return -x.flatten(1).sum(1) * math.log(3)  # each pixel is 1 with probability 3/4

    def draw(self, streams: Streams) -> Tensor:
        return (rand((len(streams), *self.event_shape), streams) < 0.75).float()


def by_counting(model: Counted, effort: Effort) -> Estimate:
    log_z, error = 9 * math.log(4), 0.01
    return Estimate(
        "estimate", lambda batch: -model.energy(batch.x) - log_z, settings={"log_z": log_z, "k": effort.k}, error=error
    )


def test_a_new_capability_adds_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Given(pixels(800, 1, 3, 3, levels=2), levels=2)
    assert evaluate(Counted(), data, progress=False) == []
    monkeypatch.setitem(ESTIMATORS, Counted, {"nll": by_counting})
    (found,) = evaluate(Counted(), data, Evaluation(k=7), progress=False)
    values = 9 * math.log(4) - math.log(3) * data.split("test").x.double().flatten(1).sum(1)
    assert (found.name, found.unit, found.kind) == ("nll", "nats", "estimate")
    assert found.value == pytest.approx(values.mean().item(), rel=1e-6)
    assert found.error == pytest.approx(math.hypot(values.std().item() / math.sqrt(400), 0.01), rel=1e-5)
    assert found.details["log_z"] == 9 * math.log(4) and found.details["k"] == 7
    each = log_likelihood(Counted(), data, progress=False)
    assert each is not None and (each.name, each.estimate.kind) == ("log_prob", "estimate")
    assert torch.allclose(-each.nats, values, rtol=1e-6)
    with pytest.raises(DataError, match="Counted has a likelihood of binary pixels, found 8-bit pixels"):
        nll(Counted(), Given(pixels(80, 1, 3, 3), levels=256), progress=False)


def test_estimates_are_made_in_evaluation_mode_and_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(model: Any, effort: Effort) -> Estimate:
        assert not model.training and not torch.is_grad_enabled()
        return Estimate("bound", lambda batch: batch.x.sum(1))

    monkeypatch.setitem(ESTIMATORS, LinearGaussianVAE, {"nll": watched})
    model = LinearGaussianVAE().train()
    assert len(nll(model, gaussian_data(model, 5), progress=False)) == 2 and model.training


# ------------------------------------------------------------------------------------------------------------ samplers


@dataclass(frozen=True)
class Darkening(Sampler):
    """Uniform noise to a power."""

    steps: int = 1

    def __call__(self, model: Any, streams: Streams, **given: Any) -> Tensor:
        return rand((len(streams), *model.event_shape), streams) ** self.steps


class Steps(Sampled):
    samplers = (Darkening,)

    def __init__(self, event_shape: tuple[int, ...] = (1, 28, 28)) -> None:
        super().__init__()
        self.event_shape = event_shape

    @property
    def sampler(self) -> Sampler:
        return Darkening()


def judged(sampler: Sampler | None = None, shape: tuple[int, ...] = (1, 28, 28)) -> dict[str, Measurement]:
    data, extractor = Given(pixels(400, *shape), levels=256), ClassifierFeatures(Projection(shape), "projection")
    found = evaluate(Steps(shape), data, Evaluation(num=150), extractor=extractor, sampler=sampler, progress=False)
    return {m.name: m for m in found}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 6)])
def test_a_sampler_is_a_part_of_what_identifies_a_number(shape: tuple[int, ...]) -> None:
    default, same, other = (judged(sampler, shape) for sampler in (None, Darkening(), Darkening(steps=3)))
    assert {m.details["sampler"]["steps"] for m in default.values()} == {1} and default == same
    assert other["fid"].details["sampler"] == {"sampler": "Darkening", "steps": 3}
    assert other["fid"].value > 2 * default["fid"].value
    assert "on given test, Darkening(steps=3))" in str(other["fid"])
    old, new = [*default.values()], [*other.values()]
    assert compare(old, new) != [] and all(difference.recorded is None for difference in compare(old, new))
    assert recorded_value(old, new[0]) is None and compare(old + new, new) == compare(new + old, old) == []
    assert Measurement.from_dict(new[0].to_dict()) == new[0]
    with pytest.raises(ConfigError, match="details: sampler must be dict"):
        Measurement.from_dict(new[0].to_dict() | {"details": {"sampler": "Darkening"}})


def test_models_that_draw_in_one_way_take_no_sampler() -> None:
    data = Given(pixels(80, 1, 3, 3, levels=2), levels=2)
    with pytest.raises(ConfigError, match="sampler: BernoulliPixels does not take any"):
        evaluate(BernoulliPixels(torch.full((1, 3, 3), 0.3)), data, sampler=Darkening(), progress=False)
    with pytest.raises(ConfigError, match="sampler: Projection draws nothing"):
        evaluate(Projection((1, 3, 3)), data, sampler=Darkening(), progress=False)


def test_labels_and_samplers_go_together() -> None:
    from test_metrics import Reading

    from zoo.capabilities import Conditional

    class Writing(Conditional, Steps):
        num_classes = 5

        def draw(self, streams: Streams, sampler: Sampler | None = None, **given: Any) -> Tensor:
            x = super().draw(streams, sampler)
            x[:, 0, 0, 0] = given["labels"] / 255
            return x

    reader = ClassifierFeatures(Reading(), "reading")
    options: dict[str, Any] = {"num": 20, "progress": False}
    (found,) = class_accuracy(Writing((1, 4, 4)), Given(pixels(4, 1, 4, 4)), reader, **options)
    assert found.value == 100 and found.sampler == "Darkening(steps=1)"
    (found,) = class_accuracy(Writing((1, 4, 4)), Given(pixels(4, 1, 4, 4)), reader, sampler=Darkening(2), **options)
    assert found.value == 100 and found.sampler == "Darkening(steps=2)"


# ---------------------------------------------------------------------------------------------------------------- ODE


@pytest.mark.parametrize(("shape", "levels"), [((2,), None), ((1, 4, 6), 256)])
def test_the_likelihood_by_the_ode_of_a_linear_denoiser_is_gaussian(shape: tuple[int, ...], levels: int | None) -> None:
    """An untrained EDM denoises N(0, sigma_data^2) in the best way; its Jacobian is a multiple of the identity."""
    scale, size = 0.6, math.prod(shape)
    model = EDM(list(shape), [8], sigma_data=scale, sigma_max=500.0, sigma_bound=0.001)
    x = scale * torch.randn(40, *shape, generator=torch.Generator().manual_seed(0))
    y, cell = x, 0.0
    if levels is not None:
        x = (255 * (x / 8 + 0.5).clamp(0, 1)).round().to(torch.uint8)
        y, cell = 2 * (x + 0.5) / 256 - 1, math.log(2 / 256)  # the noise of dequantisation has mean 1/2
    exact = torch.distributions.Normal(0.0, scale).log_prob(y[20:]).flatten(1).sum(1) + size * cell
    options: dict[str, Any] = {"on_request": True, "progress": False, "ode_steps": 200}
    found = nll(model, Given(x, levels=levels), **options)
    assert found[0].value == pytest.approx(-exact.mean().item(), abs=0.003 * size)
    assert {(m.name, m.kind, m.n) for m in found} == {("ode_nll", "estimate", 20)}
    assert found[0].details["ode_steps"] == 200 and ("probes" in found[0].details) == (size > 16)
    assert len(found) == (1 if levels is None else 2)
    assert nll(model.train(), Given(x, levels=levels), **options) == found


def test_log_z_can_be_left_out() -> None:
    instance = next(i for i in INSTANCES if i.cls is RBM)
    model, batch = instance.build(), Batch(instance.data(6), None, torch.arange(6))
    make = estimators_of(RBM)["nll"]
    free, whole = (make(model, effort).values(batch).double() for effort in (Effort(normalized=False), Effort()))
    torch.testing.assert_close(free - whole, model.exact_log_z().expand(6))
