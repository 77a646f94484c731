"""The mathematics of every model: suites over the list of instances by capability, then what one model alone has."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from instances import INSTANCES, Instance, concrete, having
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import zoo
from zoo import Zoo
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.made import MADE
from zoo.autoregressive.raster import RasterOrder, forced, log_likelihood, pixel_by_pixel
from zoo.autoregressive.regularization import dropout, shift
from zoo.capabilities import (
    Adversarial,
    Autoregressive,
    Classifier,
    ClosedForm,
    Completable,
    Conditional,
    Decoder,
    Dequantized,
    Encoder,
    EvidenceLowerBound,
    GenerativeModel,
    ImportanceWeighted,
    KnownEntropy,
    TractableDensity,
    ZooModule,
)
from zoo.data import Arrays
from zoo.density.gaussian import Gaussian
from zoo.density.mixture import BernoulliMixture
from zoo.errors import ConfigError, DataError
from zoo.flows.dequantizer import Dequantizer
from zoo.gan.ali import ALI
from zoo.gan.gan import GAN
from zoo.laws import bounds, densities, drawing, training
from zoo.laws.law import follows, seeded
from zoo.nn.discretized import Discretized, DiscretizedGaussian, DiscretizedLogistic
from zoo.nn.point import Point
from zoo.pixelwise import receptive_field
from zoo.random import Streams, rand, seed_from
from zoo.training import Trainer
from zoo.vae.iwae import IWAE, importance_weighted
from zoo.vae.ladder_vae import LadderVAE, _combine
from zoo.vae.vae import VAE


def is_binary(instance: Instance) -> bool:
    return instance.levels == 2


def is_real(instance: Instance) -> bool:
    return instance.levels is None


def learns_a_density(instance: Instance) -> bool:
    """Not an estimate of one (EoNADE), and nothing added to it or put in its place."""
    is_other = instance.arguments.get("forcing", "teacher") != "teacher" or "prior" in instance.arguments
    return instance.cls is not EoNADE and not is_other


def is_autoregressive(instance: Instance) -> bool:
    return instance.logits is not None


# ---------------------------------------------------------------------------------------------------------- every model


def test_every_model_is_in_the_list() -> None:
    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        importlib.import_module(module.name)
    assert concrete(ZooModule) == {instance.cls for instance in INSTANCES}


@pytest.mark.parametrize("cls", [VAE, LadderVAE, GAN])
def test_images_are_made_of_patches(cls: type[ZooModule]) -> None:
    with pytest.raises(ConfigError, match="event_shape: expected a height and a width of multiples of 4, found 28x30"):
        cls(event_shape=[1, 28, 30])


def test_channels_of_a_generator_come_in_groups() -> None:
    with pytest.raises(ConfigError, match="channels: expected a multiple of 8, found 12"):
        GAN(channels=12)


@pytest.mark.parametrize("cls", [GAN, ALI])
def test_groups_of_a_generator_have_more_than_one_number(cls: type[GAN | ALI]) -> None:
    with pytest.raises(ConfigError, match=r"^channels: expected at least 16 for images of one patch, found 8$"):
        cls(event_shape=[3, 4, 4], channels=8)
    for shape, channels in (([1, 4, 4], 16), ([1, 4, 8], 8)):
        model = cls(event_shape=shape, channels=channels)
        assert model.sample(10, generator=seeded()).std(0).min() > 0


def test_every_number_in_a_configuration_has_bounds() -> None:
    def bare(hint: Any) -> bool:
        return hint in (int, float) or (get_origin(hint) is not Annotated and any(map(bare, get_args(hint))))

    for cls in concrete(ZooModule):
        hints = get_type_hints(cls.__init__, include_extras=True)
        assert not [name for name, hint in hints.items() if bare(hint)], cls


@having(ZooModule)
def test_arguments_are_plain_and_rebuild_the_model(instance: Instance) -> None:
    training.arguments_rebuild_the_model(instance)


@having(ZooModule)
def test_half_precision_files(instance: Instance, tmp_path: Path) -> None:
    model = instance.build()
    Zoo.save(model, tmp_path / "model", dtype="float16")
    loaded = Zoo.load(f"local-dir:{tmp_path / 'model'}")
    for name, value in model.state_dict().items():
        is_rounded = value.is_floating_point() and name not in model.unrounded
        expected = value.half().float() if is_rounded else value
        assert torch.equal(loaded.state_dict()[name], expected), name
    if isinstance(model, TractableDensity):
        x, given = instance.data(20), instance.given(20)
        torch.testing.assert_close(loaded.log_prob(x, **given), model.log_prob(x, **given), atol=0.05, rtol=0.01)
        if is_binary(instance):
            states = instance.states()
            assert loaded.log_prob(states, **instance.same_label(len(states))).double().logsumexp(0).abs() < 1e-5


@having(ZooModule)
def test_the_objective_reaches_every_parameter(instance: Instance) -> None:
    if issubclass(instance.cls, ClosedForm):
        assert not list(instance.build().parameters()), "what is fitted from statistics is a buffer"
        return
    training.every_parameter_gets_a_gradient(instance)


# --------------------------------------------------------------------------------------------------- what draws: sample


@having(GenerativeModel)
def test_samples(instance: Instance) -> None:
    drawing.samples_look_like_data(instance)
    model = instance.build()
    for num in (-1, 2.5, "2"):
        with pytest.raises(ConfigError, match="num_samples: expected a whole number, at least 0"):
            model.sample(num)
    for batch_size in (0, 2.5):
        with pytest.raises(ConfigError, match="batch_size: expected a whole number, at least 1"):
            model.sample(2, batch_size=batch_size)


@having(Conditional)
def test_labels_that_cannot_be(instance: Instance) -> None:
    model = instance.build()
    assert model.sample(0, labels=[]).shape == (0, *instance.event_shape)
    for labels in (["a"], "a", [[0], [0, 0]], [2**70, 0], [1j, 0], [0.5, 0], [], [0] * 3, [0, model.num_classes], -1):
        with pytest.raises(ConfigError, match=r"^labels: expected "):
            model.sample(2, labels=labels)
    with pytest.raises(ConfigError, match=r"^num_samples: expected a whole number"):
        model.sample(2.5, labels=0)


@having(Conditional, ImportanceWeighted)
def test_a_conditional_bound_wants_a_label_for_each(instance: Instance) -> None:
    model, x = instance.build(), instance.data(2)
    epsilon = torch.zeros(3, 2, *model.latent_shape)
    for compute in (
        lambda **given: model.elbo(x, generator=seeded(), **given),
        lambda **given: model.log_weights_at(x, epsilon, **given),
        lambda **given: model.encode(x, **given).mean,
        lambda **given: model.decode(epsilon[0], **given),
    ):
        for given in ({}, {"labels": [1]}, {"labels": [0, model.num_classes]}, {"labels": "a"}):
            with pytest.raises(ConfigError, match=r"^labels: "):
                compute(**given)
        for labels in (1, [1, 1], torch.tensor(1)):
            assert torch.equal(compute(labels=labels), compute(labels=torch.tensor([1, 1])))


@having(GenerativeModel)
def test_samples_depend_on_the_generator_alone(instance: Instance) -> None:
    drawing.samples_depend_on_the_generator_alone(instance)


@having(GenerativeModel)
def test_samples_come_one_batch_at_a_time(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def draw(self: Any, streams: Streams, **given: Any) -> Tensor:
        sizes.append(len(streams))
        return original(self, streams, **given)

    model, original = instance.build(), instance.cls.draw
    monkeypatch.setattr(instance.cls, "draw", draw)
    batches = model.iter_samples(10, batch_size=4)
    for expected in ([4], [4, 4], [4, 4, 2]):
        assert next(batches).shape[0] == expected[-1] and sizes == expected
    assert next(batches, None) is None


@having(GenerativeModel)
def test_samples_under_autocast(instance: Instance) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = instance.build().sample(4, generator=seeded())
    assert x.shape == (4, *instance.event_shape) and x.isfinite().all()


@having(TractableDensity)
def test_an_empty_batch_has_no_log_probs_samples_and_completions(instance: Instance) -> None:
    model, nothing, given = instance.build(), torch.empty(0, *instance.event_shape), instance.given(0)
    with torch.no_grad():
        assert model.log_prob(nothing, **given).shape == (0,)
        assert model.training_log_prob(nothing, Streams(0, []), **given).shape == (0,)
        assert model.draw(Streams(0, []), **given).shape == nothing.shape
    if isinstance(model, Completable):
        assert model.complete(nothing, nothing.bool()).shape == nothing.shape


@having(EvidenceLowerBound)
def test_an_empty_batch_has_no_bounds(instance: Instance) -> None:
    model, nothing, given = instance.build(), torch.empty(0, *instance.event_shape), instance.given(0)
    assert model.elbo(nothing, **given).shape == model.training_bound(nothing, Streams(0, []), **given).shape == (0,)
    if isinstance(model, ImportanceWeighted):
        assert model.log_weights(nothing, 3, **given).shape == (3, 0)


@having(GenerativeModel)
def test_an_empty_batch_has_no_draws_codes_and_images(instance: Instance) -> None:
    model, nothing, given = instance.build(), torch.empty(0, *instance.event_shape), instance.given(0)
    with torch.no_grad():
        assert model.draw(Streams(0, []), **model.defaults(Streams(0, []))).shape == nothing.shape
        if isinstance(model, Encoder):
            assert model.encode(nothing, **given).mean.shape == (0, *model.latent_shape)
        if isinstance(model, Decoder):
            assert model.decode(torch.empty(0, *model.latent_shape), **given).shape == nothing.shape


@having(Classifier)
def test_an_empty_batch_has_no_classes(instance: Instance) -> None:
    model = instance.build()
    features, logits = model.features_and_logits(torch.empty(0, *instance.event_shape))
    assert features.shape == (0, model.num_features) and logits.shape == (0, model.num_classes)


@having(TractableDensity)
def test_double_precision(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(5), instance.given(5)
    samples, log_probs = model.sample(20, generator=seeded()), model.log_prob(x, **given)
    model.double()
    torch.testing.assert_close(model.sample(20, generator=seeded()).float(), samples, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.log_prob(x.double(), **given).float(), log_probs, atol=1e-4, rtol=1e-4)
    if isinstance(model, Completable):
        mask = torch.zeros(instance.event_shape, dtype=torch.bool)
        assert model.complete(x.double(), mask).shape == x.shape


# --------------------------------------------------------------------------------------------------- exact, over pixels


@having(TractableDensity, where=is_binary)
def test_probabilities_sum_to_one(instance: Instance) -> None:
    densities.probabilities_sum_to_one(instance)


@having(TractableDensity, where=lambda instance: is_binary(instance) and learns_a_density(instance))
def test_what_a_step_of_training_sees_is_a_distribution(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given its noise, the same for all states: units left out, the masks whose turn it is. Where none is shifted."""
    model, states = instance.build().train(), instance.states()
    given = instance.same_label(len(states))
    max_shift, sums = getattr(model, "max_shift", 0), []
    for step in range(8):
        monkeypatch.setattr(instance.cls, "global_step", step)
        noise, shifts = (Streams(step, [0] * len(states)) for _ in range(2))
        if not max_shift or torch.equal(shift(states, max_shift, shifts)[0], states):
            sums.append(model.training_log_prob(states, noise, **given).double().logsumexp(0).abs())
    assert len(sums) > 1 and max(sums) < 1e-5


@having(KnownEntropy, where=is_binary)
def test_the_entropy_is_the_enumerated_one(instance: Instance) -> None:
    densities.the_entropy_is_that_of_the_probabilities(instance)


@having(TractableDensity, where=is_binary)
def test_samples_follow_the_probabilities(instance: Instance) -> None:
    densities.samples_follow_the_probabilities(instance)


@having(TractableDensity)
def test_densities_keep_to_their_own_example(instance: Instance) -> None:
    densities.densities_keep_to_their_own_example(instance)


@having(TractableDensity, where=is_autoregressive)
def test_a_pixel_depends_on_earlier_ones_of_its_image_alone(instance: Instance) -> None:
    assert instance.logits is not None
    x = instance.data(3)
    size = x[0].numel()
    for model in (instance.build(), instance.build().train()):
        seen = torch.zeros(size, size, dtype=torch.bool)  # [i, j]: pixel i sees pixel j
        for j in range(size):
            changed = x.clone()
            changed.view(3, size)[0, j] = 1 - changed.view(3, size)[0, j]
            for before, after in zip(instance.logits(model, x), instance.logits(model, changed), strict=True):
                assert torch.equal(before[1:], after[1:]) and torch.equal(before[0, : j + 1], after[0, : j + 1])
                seen[:, j] |= before[0] != after[0]
        assert torch.equal(seen, torch.ones_like(seen).tril(-1)), "a pixel does not see all the earlier ones"


@having(TractableDensity, where=is_autoregressive)
def test_the_density_is_the_mixture_of_products_of_conditionals(instance: Instance) -> None:
    assert instance.logits is not None
    model, x = instance.build(), instance.data(10)
    products = [
        torch.distributions.Bernoulli(logits=o).log_prob(x.flatten(1)).sum(1) for o in instance.logits(model, x)
    ]
    mixture = torch.stack(products).double().exp().mean(0).log()
    torch.testing.assert_close(model.log_prob(x).double(), mixture, atol=1e-5, rtol=1e-5)


@having(Autoregressive, where=lambda instance: is_binary(instance) and instance.conditional)
def test_expectations_are_the_enumerated_ones(instance: Instance) -> None:
    densities.expectations_are_those_of_the_probabilities(instance)


@having(TractableDensity, Completable, where=lambda instance: is_binary(instance) and instance.conditional)
def test_completions_follow_the_exact_conditional(instance: Instance) -> None:
    densities.completions_follow_the_exact_conditional(instance)


@having(Completable, TractableDensity, where=is_real)
def test_completions_follow_the_conditional_density(instance: Instance) -> None:
    """Stein's identity, as above: the score of the conditional is that of the density, of the unknown dimensions."""
    model, size = instance.build(), math.prod(instance.event_shape)
    for known in torch.cartesian_prod(*[torch.tensor([False, True])] * size)[:-1]:
        template = instance.data(1).where(known.view(instance.event_shape), math.nan)
        x = model.complete(template.expand(20_000, *instance.event_shape), known.view(instance.event_shape))
        x.requires_grad_()
        (score,) = torch.autograd.grad(model.log_prob(x).sum(), x)
        free, score = x.detach().flatten(1)[:, ~known], score.flatten(1)[:, ~known]
        assert torch.equal(x.flatten(1)[:, known], template.flatten(1)[:, known].expand(20_000, -1))
        for terms in (score, free[:, :, None] * score[:, None] + torch.eye(free.shape[1])):
            z = terms.mean(0) / (terms.std(0) / math.sqrt(len(x)))
            assert (z.abs() < 4.5).all()


@having(Completable)
def test_completions_come_one_batch_at_a_time(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, sizes, original = instance.build(), instance.data(7), [], instance.cls.fill

    def fill(self: Any, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        sizes.append(len(x))
        return original(self, x, known, streams)

    monkeypatch.setattr(instance.cls, "fill", fill)
    mask = (torch.arange(x[0].numel()) < 2).view(instance.event_shape)
    together, apart = (model.complete(x, mask, generator=seeded(), batch_size=size) for size in (250, 3))
    torch.testing.assert_close(apart, together)
    assert sizes == [7, 3, 3, 1]


@having(Completable)
def test_completions_depend_on_the_generator_alone_and_each_image_has_its_mask(instance: Instance) -> None:
    drawing.completions_keep_what_is_known(instance)


@having(Completable)
def test_known_pixels_that_the_model_cannot_know_are_refused(instance: Instance) -> None:
    model, x = instance.build(), instance.data(2)
    mask = (torch.arange(x[0].numel()) < 1).view(instance.event_shape)
    wrong = x.clone()
    wrong.view(2, -1)[1, 0] = math.nan
    with pytest.raises(DataError, match="complete: "):
        model.complete(wrong, mask)
    assert model.complete(wrong, ~mask & False).isfinite().all()  # where it is not known, it does not matter
    if model.levels == 2:
        wrong.view(2, -1)[1, 0] = 0.3
        with pytest.raises(DataError, match="binarise"):
            model.complete(wrong, mask)
        expected = model.complete(x, mask, generator=seeded())
        for kind in (torch.uint8, torch.bool, torch.float64):
            assert torch.equal(model.complete(x.to(kind), mask, generator=seeded()), expected)


# ---------------------------------------------------------------------------------------------------- exact, over reals


@having(TractableDensity, where=is_real)
def test_the_density_integrates_to_one(instance: Instance) -> None:
    densities.the_density_integrates_to_one(instance)


@having(TractableDensity, where=is_real)
def test_samples_follow_the_density(instance: Instance) -> None:
    densities.samples_follow_the_density(instance)


@having(Dequantized, where=lambda instance: instance.levels is not None)
def test_dequantisation_fills_the_cell_of_a_level(instance: Instance) -> None:
    model, x, levels = instance.build(), instance.data(200), instance.levels
    y = model.dequantize(x, generator=seeded())
    assert y.min() >= 0 and y.max() < 1
    assert torch.equal((y * levels).floor(), (x * (levels - 1)).round())
    if getattr(model, "dequantizer", None) is None:
        assert stats.kstest((y * levels % 1).flatten().numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(y, model.dequantize(x, generator=seeded()))


@having(Dequantized, where=lambda instance: instance.levels is not None)
def test_dequantisation_stays_below_one(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.capabilities.rand", lambda size, *_: torch.full(size, 1 - 2.0**-24))
    assert instance.build().dequantize(torch.ones(2, *instance.event_shape)).max() < 1


@having(Dequantized, where=is_real)
def test_real_data_are_not_dequantised(instance: Instance) -> None:
    x = instance.data(3)
    assert instance.build().dequantize(x) is x


# --------------------------------------------------------------------------------------------------------------- bounds


def grid_of_codes(model: Any) -> tuple[Tensor, float]:
    """Codes of dimension 1 or 2 that cover the prior, and the logarithm of the volume between them."""
    axis = torch.linspace(-7, 7, 2001 if model.latent_shape == (1,) else 141)
    z = torch.cartesian_prod(*[axis] * model.latent_shape[0]).view(-1, *model.latent_shape)
    return z, model.latent_shape[0] * math.log(axis[1] - axis[0])


def log_evidence(model: Any, x: Tensor, given: dict[str, Tensor]) -> Tensor:
    """log p(x), given labels where the model is conditional, by quadrature over the code: [B]."""
    z, log_cell = grid_of_codes(model)
    prior, rows = model.prior().log_prob(z).double(), []
    for i, row in enumerate(x):
        pixels = model.likelihood(z, **{name: value[i].expand(len(z)) for name, value in given.items()})
        with torch.no_grad():
            rows.append(pixels.log_prob(row.expand(len(z), *row.shape)).flatten(1).sum(1).double() + prior)
    return torch.stack(rows).logsumexp(1) + log_cell


@having(ImportanceWeighted)
def test_bounds_are_bounds_and_tighten(instance: Instance) -> None:
    bounds.importance_samples_tighten_the_bound(instance)
    model, x, given = instance.build(), instance.data(3), instance.given(3)
    exact = log_evidence(model, x, given)
    means, errors = bounds.bounds_of(model, x, given)
    assert (means[3] > means[0] + 0.05).all(), "the posterior is too good to tell the bounds apart"
    assert all((mean < exact + 4.5 * error).all() for mean, error in zip(means, errors, strict=True))
    # the weights themselves are unbiased, so that the bounds tend to log p(x)
    with torch.no_grad():
        ratios = (model.log_weights(x, 20_000, generator=seeded(), **given) - exact).double().exp()
    mean, error = ratios.mean(0), ratios.std(0) / math.sqrt(len(ratios))
    assert ((mean - 1).abs() < 4.5 * error).all() and (error < 0.1).all()


@having(ImportanceWeighted, where=is_binary)
def test_training_climbs_the_importance_weighted_bound(instance: Instance) -> None:
    """Its value is the bound's; its gradient, which passes through one drawn sample, is the bound's on average."""
    model, x = instance.build(), instance.data(2)
    repeated, given = x.repeat(100, 1, 1, 1), instance.given(200)
    differences, offsets = [], []
    for seed in range(25):
        bound = importance_weighted(model, repeated, 4, Streams(seed, range(200)), **given)
        log_weights = model.log_weights(repeated, 4, generator=Streams(seed, range(200)), **given)
        exact = log_weights.logsumexp(0) - math.log(4)
        torch.testing.assert_close(bound, exact)
        options = {"retain_graph": True, "materialize_grads": True}  # a part of a model may have no say in its bound
        found, expected, other = (
            torch.cat([g.flatten() for g in torch.autograd.grad(value.mean(), [*model.parameters()], **options)])
            for value in (bound, exact, log_weights)
        )
        differences.append(found - expected)
        offsets.append(found - other)
    scores = [torch.stack(d).mean(0) / (torch.stack(d).std(0) / 5) for d in (differences, offsets)]
    assert scores[0].nan_to_num().abs().max() < 7
    assert scores[1].nan_to_num().abs().max() > 9, "the gradients of L_4 and of L_1 cannot be told apart"


@having(EvidenceLowerBound)
def test_the_noise_of_a_bound_belongs_to_its_example(instance: Instance) -> None:
    bounds.the_noise_of_a_bound_belongs_to_its_example(instance)


# ------------------------------------------------------------------------------------------------ encoders and decoders


@having(Encoder)
def test_encoders(instance: Instance) -> None:
    training.codes_keep_to_their_own_example(instance)


def test_a_point_is_where_it_is() -> None:
    loc = torch.randn(3, 2, 4)
    point = Point(loc)
    assert point.batch_shape == (3,) and point.event_shape == (2, 4)
    assert torch.equal(point.sample((5,)), loc.expand(5, 3, 2, 4)) and torch.equal(point.mean, loc)
    elsewhere = loc.clone()
    elsewhere[1, 0, 3] += 1
    assert point.log_prob(elsewhere).tolist() == [0, -math.inf, 0]


@having(Decoder)
def test_samples_are_decoded_from_the_prior(instance: Instance) -> None:
    training.samples_are_decoded_from_the_prior(instance)


@having(ImportanceWeighted, Decoder, where=is_binary)
def test_pairs_of_pixels_of_samples_follow_the_likelihood(instance: Instance) -> None:
    model, num = instance.build(), 20_000
    codes, _ = grid_of_codes(model)
    with torch.no_grad():
        weights = model.prior().log_prob(codes).softmax(0)
        p = model.decode(codes, **instance.same_label(len(codes))).flatten(1)
    x = model.sample(num, generator=seeded(), batch_size=num, **instance.same_label(num)).flatten(1)
    expected, found = (weights[:, None] * p).T @ p, x.T @ x / num
    z = (found - expected) / (expected * (1 - expected) / num).sqrt()
    assert z[~torch.eye(len(z), dtype=torch.bool)].abs().max() < 4.5


# --------------------------------------------------------------------------------------------- adversaries, classifiers


@having(Adversarial)
def test_a_generator_step_leaves_the_critic_alone_and_the_other_way_round(instance: Instance) -> None:
    training.each_player_trains_its_own_network(instance)


@having(Classifier)
def test_classifiers(instance: Instance) -> None:
    model, batch = instance.build(), instance.batch()
    features, logits = model.features(batch.x), model(batch.x)
    assert features.shape == (6, model.num_features) and logits.shape == (6, model.num_classes)
    torch.testing.assert_close(model(batch.x[2:3])[0], logits[2])
    expected = -logits.log_softmax(1)[torch.arange(6), batch.labels].mean()
    torch.testing.assert_close(model.training_step(batch, 0)["loss"], expected)


# ------------------------------------------------------------------------------------------------------------- Gaussian


def gaussian(instance_data: Tensor, **arguments: Any) -> Gaussian:
    model = Gaussian(event_shape=list(instance_data.shape[1:]), **arguments)
    model.statistics = model.gather(instance_data, generator=seeded())
    model.finish(model.statistics)
    return model.eval()


def correlated(num: int, size: int) -> Tensor:
    generator = seeded(7)
    mixing = torch.randn(size, size, generator=generator)
    return torch.randn(num, size, generator=generator) @ mixing + torch.randn(size, generator=generator)


def test_gaussian_fit_is_the_mean_and_covariance_of_numpy() -> None:
    x = correlated(500, 4) * 0.1 + 1000  # far from zero, where sums of squares cancel
    model = Gaussian(event_shape=[4], jitter=0.25)
    parts = [model.gather(part) for part in x.split(120)]
    model.statistics = {name: sum(part[name] for part in parts) for name in parts[0]}
    model.finish(model.statistics)
    factor = model._cholesky().double()
    data = x.double().numpy()
    np.testing.assert_allclose(model.loc.numpy(), data.mean(0), rtol=1e-6)
    expected = np.cov(data, rowvar=False, bias=True) + 0.25 * np.eye(4)
    np.testing.assert_allclose((factor @ factor.T).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gaussian_density_is_that_of_torch_and_scipy() -> None:
    x = correlated(300, 5)
    model = gaussian(x)
    torch.testing.assert_close(
        model.log_prob(x), MultivariateNormal(model.loc, scale_tril=model._cholesky()).log_prob(x)
    )
    factor = model._cholesky().double().numpy()
    expected = stats.multivariate_normal(model.loc.double().numpy(), factor @ factor.T).logpdf(x.double().numpy())
    np.testing.assert_allclose(model.log_prob(x).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_gaussian_change_of_variables_is_that_of_autograd() -> None:
    instance = Instance(Gaussian, {"event_shape": [1, 2, 2], "levels": 256, "logit": 1e-3, "jitter": 0.1}, 256)
    model, x = instance.build(), instance.data(20).double()
    y = model.double().dequantize(x, generator=seeded())
    base = MultivariateNormal(model.loc, scale_tril=model._cholesky())
    for row in y:
        jacobian = torch.autograd.functional.jacobian(lambda v: model._transform(v[None])[0][0], row.flatten())
        expected = base.log_prob(model._transform(row[None])[0][0]) + torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(model.log_prob(row[None])[0], expected)
    transformed = torch.logit(1e-3 + (1 - 2e-3) * y.flatten(1))
    torch.testing.assert_close(model._transform(y)[0], transformed)


def test_gaussian_logit_keeps_its_digits_at_black_and_white() -> None:
    """Float32 against float64 where the logit is steepest."""
    model = Gaussian(event_shape=[3], levels=256, logit=1e-6)
    x = torch.tensor([[0.0, 1.0, 0.5], [2.0**-30, 1 - 2.0**-24, 1e-3], [1e-5, 1 - 2.0**-18, 0.9]])
    for single, double in zip(model._transform(x), model._transform(x.double()), strict=True):
        torch.testing.assert_close(single.double(), double, atol=2e-5, rtol=1e-6)


def test_dequantisation_bounds_the_probability_of_the_pixels() -> None:
    """One pixel of 8 levels under a narrow Gaussian, where the probability of a level is a difference of erf."""
    levels = 8
    model = Gaussian(event_shape=[1], levels=levels)
    model.loc.fill_(0.4)
    model.scale_tril.fill_(0.15)
    edges = stats.norm(0.4, 0.15).cdf(np.arange(levels + 1) / levels)
    exact = np.log(np.diff(edges))
    x = (torch.arange(levels) / (levels - 1))[:, None]
    y = model.dequantize(x.expand(4000, levels, 1), generator=seeded())
    draws = model.log_prob(y.reshape(-1, 1)).view(4000, levels) - math.log(levels)
    bound, error = draws.mean(0).numpy(), (draws.std(0) / math.sqrt(len(draws))).numpy()
    assert (bound < exact + 4 * error).all()
    gap = [
        exact[k] - integrate.quad(lambda y: stats.norm(0.4, 0.15).logpdf(y), k / levels, (k + 1) / levels)[0] * levels
        for k in range(levels)
    ] + np.log(levels)
    np.testing.assert_array_less(np.abs(exact - gap - bound), 4.5 * error)
    assert gap.max() > 0.1


def test_learned_dequantisation_bounds_the_probability_of_each_image() -> None:
    """All images of 2 x 2 pixels and 3 levels under independent Gaussians, whose cells have known probabilities.

    The mean importance weight p(y)/q(y | x) is the probability for any q, and the mean of its logarithm is lower.
    """
    levels, num = 3, 2000
    model = Gaussian(event_shape=[1, 2, 2], levels=levels)
    loc, scale = np.array([0.2, 0.5, 0.4, 0.7]), 0.25
    model.loc.copy_(torch.from_numpy(loc))
    model.scale_tril.mul_(scale)
    cells = np.log(np.diff(stats.norm(loc[:, None], scale).cdf(np.arange(levels + 1) / levels), axis=1))  # [4, levels]
    codes = torch.cartesian_prod(*[torch.arange(levels)] * 4)
    exact = cells[np.arange(4), codes.numpy()].sum(1)
    x = (codes / (levels - 1)).view(-1, 1, 2, 2)
    generator = seeded()
    model.dequantizer = Dequantizer([1, 2, 2], 4)
    optimizer = torch.optim.Adam(model.dequantizer.parameters(), 0.02)

    def bound(x: Tensor) -> Tensor:
        y, log_noise = model.noised(x, generator)
        return model.log_prob(y) - log_noise - 4 * math.log(levels)

    with torch.no_grad():
        uniform = bound(x.repeat(num, 1, 1, 1)).view(num, -1).mean()
    for _ in range(60):
        optimizer.zero_grad()
        (-bound(x.repeat(4, 1, 1, 1)).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        draws = bound(x.repeat(num, 1, 1, 1)).view(num, -1).double()
    error = draws.std(0).numpy() / math.sqrt(num)
    assert (draws.mean(0).numpy() < exact + 4 * error).all()
    weights = draws.exp()
    deviation = (weights.mean(0).numpy() - np.exp(exact)) / (weights.std(0).numpy() / math.sqrt(num))
    assert np.abs(deviation).max() < 4.5
    assert exact.mean() - draws.mean().item() < 0.5 * (exact.mean() - uniform.item())


@pytest.mark.parametrize("logit", [None, 1e-3])
def test_gaussian_samples_have_the_probabilities_of_their_levels(logit: float | None) -> None:
    levels = 8
    model = Gaussian(event_shape=[1], levels=levels, logit=logit)
    model.loc.fill_(0.4 if logit is None else -0.5)
    model.scale_tril.fill_(0.3 if logit is None else 1.5)
    edges = np.arange(1, levels) / levels
    y = edges if logit is None else np.log((s := logit + (1 - 2 * logit) * edges) / (1 - s))
    inner = stats.norm(float(model.loc), float(model.scale_tril)).cdf(y)
    x = model.sample(20_000, generator=seeded(), batch_size=20_000)
    counts = torch.bincount((x * (levels - 1)).round().long().flatten(), minlength=levels)
    follows(counts, torch.tensor(np.diff([0, *inner, 1])).log())


# --------------------------------------------------------------------------------------------- the discretised logistic

LEVELS = torch.arange(256) / 255
LOCS = [-100.0, -0.3, 0.0, 0.2, 0.501, 1.0, 1.7, 100.0]
SCALES = [1e-4, 9e-4, 0.01, 0.2, 20.0, 1e4]


KINDS = {DiscretizedLogistic: stats.logistic, DiscretizedGaussian: stats.norm}


def discretized() -> Iterator[tuple[tuple[type, float, float], Discretized]]:
    for kind in KINDS:
        for loc in LOCS:
            for scale in SCALES:
                yield (kind, loc, scale), kind(torch.tensor(loc), torch.tensor(scale))


def discretized_log_probs(kind: type, loc: float, scale: float) -> np.ndarray:
    """By scipy, in float64; through the upper tail above the centre, where differences of the other cancel."""
    cut = (np.arange(257) - 0.5) / 255
    cut[[0, -1]] = -np.inf, np.inf
    lower, upper = KINDS[kind].cdf(cut, loc, scale), KINDS[kind].sf(cut, loc, scale)
    probs = np.where(cut[:-1] > loc, upper[:-1] - upper[1:], lower[1:] - lower[:-1])
    with np.errstate(divide="ignore"):
        return np.log(probs)


def test_discretised_distributions_sum_to_one_at_extremes_too() -> None:
    for case, distribution in discretized():
        log_probs = distribution.log_prob(LEVELS)
        assert log_probs.dtype == torch.float32 and log_probs.isfinite().all(), case
        assert log_probs.double().logsumexp(0).abs() < 2e-4, case


def test_discretised_distributions_are_differences_of_the_distribution_functions_of_scipy() -> None:
    for case, distribution in discretized():
        expected = discretized_log_probs(*case)
        is_sure = expected > -600  # beyond it scipy's differences underflow
        found = distribution.log_prob(LEVELS).double().numpy()
        np.testing.assert_allclose(found[is_sure], expected[is_sure], rtol=1e-4, atol=1e-3, err_msg=str(case))


def test_discretised_distributions_have_exact_gradients_and_finite_ones_at_extremes() -> None:
    for case, _ in discretized():
        found, exact = (torch.tensor(case[1:], dtype=kind, requires_grad=True) for kind in (torch.float, torch.double))
        for parameters in (found, exact):
            case[0](parameters[0], parameters[1]).log_prob(LEVELS).sum().backward()
        assert found.grad is not None and exact.grad is not None and found.grad.isfinite().all(), case
        if 0 <= case[1] <= 1 and 0.01 <= case[2] <= 20:
            torch.testing.assert_close(found.grad, exact.grad.float(), rtol=1e-3, atol=1e-2, msg=str(case))


def test_discretised_means_are_the_enumerated_ones() -> None:
    for case, distribution in discretized():
        expected = float((distribution.log_prob(LEVELS).double().exp() * LEVELS.double()).sum())
        assert math.isclose(float(distribution.mean), expected, abs_tol=1e-4), case


def test_discretised_distributions_draw_by_their_probabilities() -> None:
    uniforms = rand((1, 40_000), Streams(0, [0]))[0]
    for case, distribution in discretized():
        x = distribution.icdf(uniforms)
        numbers = (x * 255).round()
        assert torch.equal(numbers / 255, x) and (x.sort().values == x[uniforms.argsort()]).all(), case
        follows(torch.bincount(numbers.long(), minlength=256), torch.tensor(discretized_log_probs(*case)))


def test_discretised_distributions_draw_at_the_ends_of_the_unit_interval() -> None:
    for kind in KINDS:
        x = kind(torch.tensor(0.5), torch.tensor(0.2)).icdf(torch.tensor([0.0, 1 - 2.0**-24, 1.0]))
        assert x.tolist() == [0, 1, 1]


# ------------------------------------------------------------------------------------------------------------------ VAE


@having(ImportanceWeighted, Encoder, Decoder)
def test_the_analytic_divergence_is_the_sampled_one(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(3), instance.given(3)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        posterior, prior = model.encode(x, **given), model.prior()
        z = posterior.sample((20_000,))
        terms = posterior.log_prob(z) - prior.log_prob(z)
        error = terms.std(0) / math.sqrt(len(z))
        assert ((terms.mean(0) - kl_divergence(posterior, prior)).abs() < 4.5 * error).all()
        # and it is the one in the elbo: with the same noise, elbo + kl is the likelihood at one code
        noise = Streams(0, range(3))
        elbo, weights = (
            f(x, *a, generator=Streams(0, range(3)), **given) for f, a in ((model.elbo, ()), (model.log_weights, (1,)))
        )
        z = posterior.base_dist.loc + posterior.base_dist.scale * torch.special.ndtri(
            rand((3, *model.latent_shape), noise)
        )
        sampled = posterior.log_prob(z) - prior.log_prob(z)
        torch.testing.assert_close(elbo + kl_divergence(posterior, prior), weights[0] + sampled, atol=1e-3, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------- IWAE, ladder VAE


def test_iwae_begins_with_the_elbo(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = next(i for i in INSTANCES if i.cls is IWAE)
    model, x = IWAE(**{**instance.arguments, "first_steps": 3}), instance.data(4)
    for step in (0, 2, 3):
        monkeypatch.setattr(IWAE, "global_step", step)
        log_weights = model.log_weights(x, 3, generator=Streams(0, range(4)))
        expected = model.elbo(x, generator=Streams(0, range(4))) if step < 3 else log_weights.logsumexp(0) - math.log(3)
        torch.testing.assert_close(model.training_bound(x, Streams(0, range(4))), expected)


def test_the_ladder_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = next(i for i in INSTANCES if i.cls is LadderVAE)
    model, x = LadderVAE(**{**instance.arguments, "warmup_steps": 10}), instance.data(4)
    bounds = []
    for step in (0, 5, 10, 11):
        monkeypatch.setattr(LadderVAE, "global_step", step)
        bounds.append(model.training_bound(x, Streams(0, range(4))))
    torch.testing.assert_close(bounds[2], model.elbo(x, generator=Streams(0, range(4))))
    torch.testing.assert_close(bounds[3], bounds[2])
    assert (bounds[0] > bounds[2]).all()
    torch.testing.assert_close(bounds[1], (bounds[0] + bounds[2]) / 2)


@pytest.mark.parametrize(("cls", "warmup"), [(IWAE, {"first_steps": 5}), (LadderVAE, {"warmup_steps": 5})])
def test_what_comes_from_a_checkpoint_is_warm(cls: type[IWAE | LadderVAE], warmup: Any, tmp_path: Path) -> None:
    instance = next(i for i in INSTANCES if i.cls is cls)
    model, x = cls(**{**instance.arguments, **warmup}), instance.data(4)
    loaded = zoo.Zoo.load(f"local-dir:{zoo.Zoo.save(model, tmp_path / 'model')}")
    cold, warm = (m.training_bound(x, Streams(0, range(4))) for m in (model, loaded))  # at step 0
    assert not torch.allclose(cold, warm)
    loaded.pretrained = False
    torch.testing.assert_close(loaded.training_bound(x, Streams(0, range(4))), cold)


def test_the_posterior_of_the_ladder_weighs_evidence_and_prior() -> None:
    """Each layer against the product of the two densities, by quadrature; without evidence, it is the prior."""
    small = next(i for i in INSTANCES if i.cls is LadderVAE)
    instance = Instance(LadderVAE, {**small.arguments, "map_channels": [2, 1]}, 2)
    model, x = instance.build(), instance.data(1)
    epsilon = torch.randn(1, 4, generator=seeded())
    evidence = model._ascend(x)
    assert [tuple(e.loc.shape[1:]) for e in evidence] == [(1,), (2, 1, 1), (1, 1, 1)]
    grid = torch.linspace(-30, 30, 60_001).double()
    p = Normal(0.4, 1.7)
    product = (p.log_prob(grid) + Normal(-0.3, 0.6).log_prob(grid)).exp()
    mean = (product * grid).sum() / product.sum()
    variance = (product * (grid - mean) ** 2).sum() / product.sum()
    combined = _combine(Normal(torch.tensor(-0.3), torch.tensor(0.6)), Normal(torch.tensor(0.4), torch.tensor(1.7)))
    assert float(combined.loc) == pytest.approx(float(mean), abs=1e-5)
    assert float(combined.scale) == pytest.approx(float(variance.sqrt()), abs=1e-5)
    vague = [Normal(e.loc, e.scale * 1e6) for e in evidence]
    with torch.no_grad():
        free, told = model._descend(epsilon), model._descend(epsilon, vague)
    torch.testing.assert_close(free.pixels.logits, told.pixels.logits, atol=1e-4, rtol=1e-4)
    assert told.kl.abs() < 1e-4 and not free.kl.any()


# --------------------------------------------------------------------------------------------------------- raster order


@torch.no_grad()
def assert_drawn_by_passes(model: RasterOrder, x: Tensor, known: int, **given: Tensor) -> None:
    """The same uniforms give the same bits as one pass for each pixel after the first, known ones."""
    mask = (torch.arange(x[0].numel()) < known).view_as(x[0])
    uniforms = rand(tuple(x.shape), Streams(seed_from(seeded()), range(len(x))))
    expected = pixel_by_pixel(partial(model.logits, **given), forced(uniforms, x, mask.expand_as(x)))
    assert torch.equal(model.complete(x, mask, generator=seeded(), **given), expected)


@having(RasterOrder)
def test_draws_and_completions_are_those_of_one_pass_per_pixel(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(200), instance.given(200)
    for known in (0, x[0].numel() // 2):
        assert_drawn_by_passes(model, x, known, **given)
    with torch.no_grad():
        drawn = model.draw(Streams(seed_from(seeded()), range(200)), **given)
    nothing = torch.zeros(x[0].shape, dtype=torch.bool)
    assert torch.equal(drawn, model.complete(x, nothing, generator=seeded(), **given))


@having(Autoregressive)
def test_every_receptive_field_holds_the_earlier_values(instance: Instance) -> None:
    """Of every channel, in the order in which the model draws."""
    model, (channels, height, width) = instance.build(), instance.event_shape
    (order,) = model.order(Streams(seed_from(seeded()), [0]))
    rank = order.argsort().view(channels, height, width)
    for row in range(height):
        for column in range(width):
            fields, before = receptive_field(model, row, column, num=20, generator=seeded())
            for channel in range(channels):
                assert torch.equal(before[channel], rank < rank[channel, row, column])
                assert torch.equal(fields[channel] > 0, before[channel])


# ------------------------------------------------------------------------------------------------------------- mixtures


def test_em_never_loses_likelihood_and_finds_the_components() -> None:
    generator = seeded()
    means = torch.tensor([[0.9, 0.9, 0.9, 0.1, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9, 0.1, 0.9]])
    which = (torch.rand(4000, generator=generator) < 0.3).long()
    x = (torch.rand(4000, 6, generator=generator) < means[which]).float().view(-1, 1, 2, 3)
    model = BernoulliMixture(event_shape=[1, 2, 3], num_components=2, prior=1e-6)
    likelihoods = []
    for _ in range(40):
        model.statistics = model.gather(x, generator=Streams(0, range(len(x))))
        model.finish(model.statistics)
        likelihoods.append(model.log_prob(x).double().mean().item())
    assert all(after > before - 1e-6 for before, after in pairwise(likelihoods))
    order = model.log_weights.argsort(descending=True)
    torch.testing.assert_close(model.log_weights[order].exp(), torch.tensor([0.7, 0.3]), atol=0.03, rtol=0)
    torch.testing.assert_close(model.logits[order].sigmoid(), means, atol=0.03, rtol=0)


def test_em_of_pixels_that_are_always_on() -> None:
    """Sums in single precision may then exceed the number of examples."""
    x = torch.ones(30_000, 1, 2, 3)
    x[:, 0, 0, 0] = (torch.rand(30_000, generator=seeded()) < 0.3).float()
    model = BernoulliMixture(event_shape=[1, 2, 3], num_components=7, prior=1e-3)
    for _ in range(5):
        model.statistics = model.gather(x, generator=Streams(0, range(len(x))))
        model.finish(model.statistics)
        assert model.logits.isfinite().all() and (model.logits[:, 1:] > 10).all()
    model.statistics["sums"] += 1e-3
    model.finish(model.statistics)
    assert model.logits.isfinite().all() and model.log_prob(x[:10]).isfinite().all()


def test_an_epoch_is_a_step_of_em(tmp_path: Path) -> None:
    x = (torch.rand(59, 1, 2, 2, generator=seeded()) < 0.4).float().mul(255).to(torch.uint8)
    data = Arrays.from_array(x, batch_size=12)  # 48 images to train on
    trained = BernoulliMixture(event_shape=[1, 2, 2], num_components=3)
    Trainer(tmp_path, max_epochs=4, progress=False, accelerator="cpu").fit(trained, data)
    assert trained.fitted
    expected = BernoulliMixture(event_shape=[1, 2, 2], num_components=3)
    expected.load_state_dict(trained.state_dict())
    images = data.split("train").x.float() / 255
    expected.statistics = expected.gather(images)
    expected.finish(expected.statistics)  # a fifth step
    trainer = Trainer(tmp_path / "more", max_epochs=1, progress=False, accelerator="cpu")
    trainer.fit(trained, data)
    torch.testing.assert_close(trained.logits, expected.logits, atol=1e-4, rtol=1e-4)


def em_run(folder: Path, x: Tensor, **options: Any) -> tuple[BernoulliMixture, list[dict[str, Tensor]]]:
    """A mixture fitted by the Trainer, four batches an epoch, and the statistics of its steps."""
    model, gathered = BernoulliMixture(event_shape=[1, 2, 2], num_components=3), []

    def gather(x: Tensor, *, generator: Any) -> dict[str, Tensor]:
        gathered.append(BernoulliMixture.gather(model, x, generator=generator))
        return gathered[-1]

    model.gather = gather  # type: ignore[method-assign]
    trainer = Trainer(folder, progress=False, accelerator="cpu", **options)
    trainer.fit(model, Arrays.from_array(x, batch_size=12))
    return model, gathered


def test_em_that_stops_early_fits_what_it_has_seen(tmp_path: Path) -> None:
    x = (torch.rand(59, 1, 2, 2, generator=seeded()) < 0.4).float().mul(255).to(torch.uint8)
    model, gathered = em_run(tmp_path / "steps", x, max_epochs=-1, max_steps=3)
    assert model.fitted and len(gathered) == 3
    expected = BernoulliMixture(event_shape=[1, 2, 2], num_components=3)
    expected.finish({name: sum(part[name] for part in gathered) for name in gathered[0]})
    torch.testing.assert_close(model.state_dict(), expected.state_dict())


def test_em_leaves_out_a_part_of_a_later_epoch(tmp_path: Path) -> None:
    x = (torch.rand(59, 1, 2, 2, generator=seeded()) < 0.4).float().mul(255).to(torch.uint8)
    model, gathered = em_run(tmp_path / "steps", x, max_epochs=-1, max_steps=6)
    expected, _ = em_run(tmp_path / "epoch", x, max_epochs=1)
    assert len(gathered) == 6
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), atol=0, rtol=0)


# ----------------------------------------------------------------------------------------------------------------- MADE


@pytest.mark.parametrize("hidden", [3, 40, 150])
@pytest.mark.parametrize("event_shape", [[1, 1, 1], [1, 4, 5], [2, 6, 6]])  # 72 pixels are three blocks
def test_made_draws_the_bits_of_one_pass_per_pixel(event_shape: list[int], hidden: int) -> None:
    model = Instance(MADE, {"event_shape": event_shape, "hidden": hidden, "num_masks": 3}, 2).build()
    with torch.no_grad():
        for num in (1, 200):
            masks, uniforms = torch.arange(num) % 3, rand((num, *event_shape), Streams(0, range(num)))
            expected = inspect.unwrap(MADE.from_uniforms)(model, uniforms, masks)
            assert torch.equal(model.from_uniforms(uniforms, masks), expected)


def test_made_degrees_obey_the_paper() -> None:
    model = MADE(event_shape=[1, 6, 6], hidden=400, num_masks=2)
    first, second = model.degrees.long().unbind(1)
    assert first.min() == 1 and first.max() == 35 and second.max() == 35
    assert (second.amin(1) >= first.amin(1)).all() and not torch.equal(first[0], first[1])
    assert torch.equal(model.degrees, MADE(event_shape=[1, 6, 6], hidden=400, num_masks=2).degrees)
    assert not torch.equal(model.degrees, MADE(event_shape=[1, 6, 6], hidden=400, num_masks=2, mask_seed=1).degrees)
    near = MADE(event_shape=[1, 6, 6], hidden=400, num_masks=3, spread=4).degrees.long()
    assert near.min() == 1 and near.max() == 35 and set((near[1:] - near[0]).unique().tolist()) == set(range(-4, 5))


@pytest.mark.parametrize(("num_masks", "spread"), [(1, None), (3, None), (3, 1)])
def test_made_keeps_the_weights_that_its_masks_use(num_masks: int, spread: int | None) -> None:
    """Equations 12 and 13, and those of the connections past a layer: from pixels to h2, from h1 to o."""
    model = MADE(event_shape=[1, 4, 5], hidden=30, num_masks=num_masks, spread=spread)
    pixel, (m1, m2) = torch.arange(1, 21), model.degrees.long().unbind(1)
    used = {
        "first": m1[:, :, None] >= pixel,
        "second": m2[:, :, None] >= m1[:, None],
        "output": pixel[:, None] > m2[:, None],
        "pixels_to_second": m2[:, :, None] >= pixel,
        "first_to_output": pixel[:, None] > m1[:, None],
        "direct": (pixel[:, None] > pixel).expand(num_masks, -1, -1),
    }
    with torch.no_grad():
        for parameter in model.weights.values():
            parameter.copy_(torch.arange(1, parameter.numel() + 1))
    every = model._matrices()
    assert every.keys() == used.keys() == model.weights.keys()
    for name, masks in used.items():
        kept = every[name] != 0
        assert kept[masks.any(0)].all() and torch.equal(every[name][kept], model.weights[name][0])
        assert torch.equal(kept, masks.any(0)) or (name == "second" and num_masks > 1)
        for k, mask in enumerate(masks):
            assert torch.equal(model._matrices(k)[name], every[name] * mask)


def test_made_trains_its_masks_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = next(i for i in INSTANCES if i.cls is MADE and i.arguments["num_masks"] == 3)
    model, x = instance.build(), instance.data(5)
    mixture = model.log_prob(x)
    components = []
    for step in range(6):
        monkeypatch.setattr(MADE, "global_step", step)
        components.append(model.training_log_prob(x, Streams(0, range(5))))
    assert torch.equal(torch.stack(components[:3]), torch.stack(components[3:]))
    assert not torch.allclose(components[0], components[1])
    torch.testing.assert_close(torch.stack(components[:3]).logsumexp(0) - math.log(3), mixture)


def test_shifts() -> None:
    """Every shift up to the largest, as often as the others, half of the time none; what is not moved out is kept."""
    x = torch.zeros(8000, 2, 5, 6)
    x[:, 0, 1, 2] = x[:, 1, 4, 0] = 1
    moved, shifts = shift(x, 1, Streams(0, range(len(x))))
    assert moved.shape == x.shape
    counts = {by: int((shifts == torch.tensor(by)).all(1).sum()) for by in product((-1, 0, 1), repeat=2)}
    assert counts.pop((0, 0)) == pytest.approx(8000 * (1 / 2 + 1 / 18), rel=0.05)
    assert [*counts.values()] == pytest.approx([8000 / 18] * 8, rel=0.2)
    for up, left in product((-1, 0, 1), repeat=2):
        down, right = -up, -left
        expected = torch.zeros(2, 5, 6)
        expected[0, 1 + down, 2 + right] = 1
        if down < 1 and right > -1:
            expected[1, 4 + down, right] = 1
        assert (moved[(shifts == torch.tensor([up, left])).all(1)] == expected).all()


@having(TractableDensity, where=lambda instance: is_autoregressive(instance) and "max_shift" in instance.arguments)
def test_shifted_images_have_a_density_of_their_own(instance: Instance) -> None:
    """Given any shift, the probabilities of all images sum to one, and those of no shift are the model's.

    What training maximises is the log-probability of the shifted image given its shift.
    """
    instance = replace(instance, arguments={**instance.arguments, "dropout": 0.0})
    model, states = instance.build(), instance.states()
    (biases,) = (parameter for name, parameter in model.named_parameters() if "shift" in name)
    with torch.no_grad():
        biases[4] = 0  # where no gradient gets

    def log_prob(x: Tensor, shifts: Tensor | None) -> Tensor:
        logits = model.logits(x, 0, shifts) if isinstance(model, MADE) else model.logits(x, shifts)
        return log_likelihood(logits, x).sum(1)

    every = [torch.tensor(by).expand(len(states), -1) for by in product((-1, 0, 1), repeat=2)]
    log_probs = [log_prob(states, shifts) for shifts in every]
    for each in log_probs:
        assert each.double().logsumexp(0).abs() < 1e-5
    assert torch.equal(log_probs[4], log_prob(states, None)) and not torch.allclose(log_probs[0], log_probs[4])
    x = instance.data(500)
    found, (moved, shifts) = model.training_log_prob(x, Streams(0, range(500))), shift(x, 1, Streams(0, range(500)))
    torch.testing.assert_close(found, log_prob(moved, shifts))
    found.sum().backward()
    assert biases.grad.flatten(1).any(1).tolist() == [True] * 4 + [False] + [True] * 4


def test_dropout() -> None:
    x = torch.rand(500, 3, 40) + 1
    dropped = dropout(x, 0.3, Streams(0, range(500)))
    kept = dropped != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(dropped[kept], x[kept] / 0.7)
    assert torch.equal(dropped[7:9], dropout(x[7:9], 0.3, Streams(0, range(7, 9))))
    assert dropout(x, 0.3, None) is x


def test_made_refuses_masks_that_it_cannot_condition_on() -> None:
    model, x = MADE(event_shape=[1, 3, 3], hidden=4, num_masks=2), torch.zeros(2, 1, 3, 3)
    hole = torch.ones(1, 3, 3, dtype=torch.bool)
    hole[0, 1, 1] = False
    right_half = torch.tensor([False, True, True]).expand(1, 3, 3)
    for mask in (hole, right_half, torch.stack([torch.ones_like(hole), hole])):
        with pytest.raises(ConfigError, match="raster order"):
            model.complete(x, mask)
    for mask in (hole.float(), hole[:, :2], hole.expand(3, 1, 3, 3)):
        with pytest.raises(ConfigError, match="expected a bool mask"):
            model.complete(x, mask)
