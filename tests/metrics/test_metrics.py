"""Metrics against closed forms, brute force and implementations that are not ours."""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from zoo.capabilities import (
    Classifier,
    Conditional,
    Dequantized,
    Encoder,
    GenerativeModel,
    ImportanceWeighted,
    TractableDensity,
)
from zoo.data import MNIST, BinarizedMNIST, FashionMNIST
from zoo.data.base import DataModule, Split
from zoo.errors import ConfigError, DataError, DownloadError, ZooError
from zoo.measurement import Difference, Measurement, compare, recorded_value
from zoo.metrics.classification import accuracy
from zoo.metrics.codes import code_accuracy
from zoo.metrics.conditional import class_accuracy
from zoo.metrics.distances import fid, inception_score, kid, precision_recall
from zoo.metrics.evaluate import Evaluation, evaluate
from zoo.metrics.extractors import INCEPTION, ClassifierFeatures, Extractor, Inception, to_bytes
from zoo.metrics.likelihood import log_likelihood, nll
from zoo.metrics.memorisation import closer, nearest, neighbours
from zoo.metrics.outliers import auroc, foreign_to, outlier_detection
from zoo.metrics.quality import evaluate_quality, extract, quality_floor
from zoo.random import Source, Streams, rand, randn
from zoo.vae.autoencoder import Autoencoder


class Given(DataModule):
    """Tensors as a data set: the same ones in every split but for their number."""

    def __init__(self, x: Tensor, labels: Tensor | None = None, levels: int | None = None) -> None:
        super().__init__()
        self.name, self.event_shape, self.levels = "given", tuple(x.shape[1:]), levels
        self.x, self.labels = x, labels

    def load(self, which: str) -> Split:
        part = slice(0, len(self.x) // 2) if which == "train" else slice(len(self.x) // 2, None)
        return Split(self.x[part], None if self.labels is None else self.labels[part])


def pixels(num: int, *shape: int, levels: int = 256) -> Tensor:
    return torch.randint(levels, (num, *shape), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_key(measurements: list[Measurement]) -> dict[tuple[str, str], Measurement]:
    return {(m.name, m.unit): m for m in measurements}


# ---------------------------------------------------------------------------------------------------------- likelihood


class LinearGaussianVAE(ImportanceWeighted):
    """x = W z + noise of scale s; the posterior that encodes is the exact one, widened by `widening`."""

    def __init__(self, widening: float = 1.3) -> None:
        super().__init__()
        self.event_shape, self.latent_shape, self.scale = (6,), (2,), 0.7
        self.register_buffer("weight", torch.randn(6, 2, generator=torch.Generator().manual_seed(2)))
        self.widening = widening

    def marginal(self) -> MultivariateNormal:
        return MultivariateNormal(torch.zeros(6), self.weight @ self.weight.T + self.scale**2 * torch.eye(6))

    def posterior(self, x: Tensor) -> MultivariateNormal:
        precision = torch.eye(2) + self.weight.T @ self.weight / self.scale**2
        covariance = precision.inverse()
        return MultivariateNormal(x @ self.weight @ covariance / self.scale**2, self.widening * covariance)

    def _draw(self, posterior: MultivariateNormal, epsilon: Tensor) -> Tensor:
        return posterior.loc + epsilon @ posterior.scale_tril[0].T

    def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
        q = self.posterior(x)
        z = self._draw(q, randn((len(x), 2), generator))
        prior = MultivariateNormal(torch.zeros(2), torch.eye(2))
        return Normal(z @ self.weight.T, self.scale).log_prob(x).sum(-1) - kl_divergence(q, prior)

    def log_weights_at(self, x: Tensor, epsilon: Tensor) -> Tensor:
        q = self.posterior(x)
        z = self._draw(q, epsilon)
        log_joint = Normal(z @ self.weight.T, self.scale).log_prob(x).sum(-1) + Normal(0, 1).log_prob(z).sum(-1)
        return log_joint - q.log_prob(z)

    def draw(self, streams: Streams) -> Tensor:
        raise AssertionError("no likelihood needs samples")


def gaussian_data(model: LinearGaussianVAE, num: int) -> Given:
    x = randn((2 * num, 6), Streams(3, range(2 * num))) @ model.marginal().scale_tril.T
    return Given(x)


def test_importance_weighted_bound_reaches_the_closed_form() -> None:
    model = LinearGaussianVAE()
    data = gaussian_data(model, 60)
    truth = -model.marginal().log_prob(data.split("test").x).mean().item()
    found = by_key(nll(model, data, k=5000, batch_size=5000, progress=False))
    assert found["nll", "nats"].value == pytest.approx(truth, abs=0.02)
    assert found["nll", "nats"].kind == found["neg_elbo", "nats"].kind == "bound"
    assert found["nll", "nats"].details["k"] == 5000


def test_bounds_tighten_with_the_number_of_samples() -> None:
    model = LinearGaussianVAE(widening=2.0)
    data = gaussian_data(model, 1000)
    found = [by_key(nll(model, data, k=k, batch_size=5000, progress=False)) for k in (1, 2, 8, 130)]
    bounds = [results["nll", "nats"].value for results in found]
    truth = -model.marginal().log_prob(data.split("test").x).mean().item()
    # E[log w] at k = 1 is the ELBO, in closed form: log p(x) - KL(q || posterior)
    gap = 0.5 * (2 * 2.0 - 2 - 2 * math.log(2.0))
    assert found[0]["neg_elbo", "nats"].value == pytest.approx(truth + gap, abs=0.02)
    assert bounds[0] == pytest.approx(truth + gap, abs=0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(bounds))
    assert truth - 0.01 < bounds[-1] < truth + 0.02


class BernoulliPixels(TractableDensity):
    levels = 2

    def __init__(self, probs: Tensor) -> None:
        super().__init__()
        self.event_shape = tuple(probs.shape)
        self.register_buffer("probs", probs)

    def log_prob(self, x: Tensor) -> Tensor:
        return Bernoulli(self.probs).log_prob(x).flatten(1).sum(1)

    def draw(self, streams: Streams) -> Tensor:
        return (rand((len(streams), *self.event_shape), streams) < self.probs).float()


def test_exact_density_of_binary_data() -> None:
    model = BernoulliPixels(torch.linspace(0.1, 0.9, 9).view(1, 3, 3))
    data = Given(pixels(400, 1, 3, 3, levels=2), levels=2)
    (found,) = nll(model, data, progress=False)
    x = data.split("test").x.double()
    each = -(x * model.probs.log() + (1 - x) * (1 - model.probs).log()).flatten(1).sum(1)
    assert (found.name, found.unit, found.kind, found.n) == ("nll", "nats", "exact", 200)  # no bits/dim of binary data
    assert found.value == pytest.approx(each.mean().item(), rel=1e-6)
    assert found.error == pytest.approx(each.std().item() / math.sqrt(200), rel=1e-5)


def test_a_likelihood_of_other_grey_levels_is_none() -> None:
    """Cross-entropy with grey targets sums to no distribution: its number would look like one, and be too good."""
    model = BernoulliPixels(torch.full((1, 3, 3), 0.5))
    with pytest.raises(DataError, match=r"BernoulliPixels has a likelihood of binary pixels, found 8-bit pixels"):
        nll(model, Given(pixels(40, 1, 3, 3), levels=256), progress=False)


class UniformLevels(TractableDensity):
    """Every 8-bit image alike."""

    event_shape, levels = (3, 4, 4), 256

    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), -48 * math.log(256))

    def draw(self, streams: Streams) -> Tensor:
        return (rand((len(streams), *self.event_shape), streams) * 256).floor() / 255


class Ramp(Dequantized):
    """Independent pixels with density a + 2 (1 - a) y on [0, 1)."""

    def __init__(self, level: float, levels: int | None = 256) -> None:
        super().__init__()
        self.event_shape, self.levels, self.level = (3, 4, 4), levels, level

    def log_prob(self, x: Tensor) -> Tensor:
        return (self.level + 2 * (1 - self.level) * x).log().flatten(1).sum(1)

    def draw(self, streams: Streams) -> Tensor:
        return torch.zeros(len(streams), *self.event_shape)


@pytest.mark.parametrize(("model", "kind"), [(UniformLevels(), "exact"), (Ramp(1.0), "bound")])
def test_uniform_images_cost_eight_bits_per_dimension(model: TractableDensity, kind: str) -> None:
    found = by_key(nll(model, Given(pixels(100, 3, 4, 4), levels=256), progress=False))
    assert found["nll", "bits/dim"].value == pytest.approx(8.0, abs=1e-6)
    assert found["nll", "nats"].value == pytest.approx(48 * math.log(256), rel=1e-7)
    assert found["nll", "bits/dim"].kind == kind


def test_dequantization_averages_over_the_cell() -> None:
    data = Given(pixels(400, 3, 4, 4), levels=256)
    found = by_key(nll(Ramp(0.0), data, draws=50, progress=False))["nll", "bits/dim"]
    level = data.split("test").x.double()
    lower, upper = level / 256, (level + 1) / 256
    integral = torch.special.xlogy(upper, upper) - torch.special.xlogy(lower, lower) - 1 / 256  # of log y over the cell
    truth = 8 - ((math.log(2) + 256 * integral).mean() / math.log(2)).item()
    assert found.value == pytest.approx(truth, abs=2e-3)
    assert found.kind == "bound" and found.details["draws"] == 50


def test_dequantized_density_and_data_must_agree_on_the_levels() -> None:
    for model, data in [
        (Ramp(1.0, levels=256), Given(pixels(8, 3, 4, 4, levels=2), levels=2)),  # binary data are never dequantised
        (Ramp(1.0, levels=None), Given(pixels(8, 3, 4, 4), levels=256)),  # a density of 8-bit points means nothing
    ]:
        with pytest.raises(DataError, match="Ramp has a likelihood of"):
            nll(model, data, progress=False)


@pytest.mark.parametrize("make", [LinearGaussianVAE, lambda: Ramp(0.3)])
def test_likelihoods_do_not_depend_on_the_batch_size(make: Any) -> None:
    model = make()
    data = gaussian_data(model, 40) if isinstance(model, LinearGaussianVAE) else Given(pixels(80, 3, 4, 4), levels=256)
    settings = {"k": 120, "draws": 3, "progress": False}
    whole = nll(model, data, batch_size=1000, **settings)
    assert whole == nll(model, data, batch_size=1000, **settings)
    for one, other in zip(whole, nll(model, data, batch_size=7, **settings), strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)


def test_a_slice_gives_the_value_that_the_whole_recorded() -> None:
    model = LinearGaussianVAE()
    data = gaussian_data(model, 300)
    whole = nll(model, data, k=100, batch_size=5000, progress=False)
    part = nll(model, data, k=100, index="slice", batch_size=5000, progress=False)
    assert [m.n for m in part] == [250, 100]  # what costs more has the smaller slice
    for one, other in zip(whole, part, strict=True):
        assert one.n == 300 and "slice" not in other.details
        assert one.details["slice"] == {"n": other.n, "value": pytest.approx(other.value, rel=1e-6)}
    given = nll(model, data, k=100, index=data.subset("test", 100, 0), progress=False)
    assert given[1].value == pytest.approx(part[1].value, rel=1e-6)


class Drawing(GenerativeModel):
    """Draws grey noise of some darkness, and cannot do anything else."""

    event_shape = (1, 28, 28)

    def __init__(self, exponent: float = 1.0) -> None:
        super().__init__()
        self.exponent = exponent

    def draw(self, streams: Streams) -> Tensor:
        return rand((len(streams), *self.event_shape), streams) ** self.exponent


def test_what_only_draws_has_no_likelihood() -> None:
    assert nll(Drawing(), Given(pixels(8, 1, 28, 28), levels=256), progress=False) == []


def test_likelihoods_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ZooError, match="given test: expected a finite value, found inf"):
        nll(Ramp(0.0, levels=None), Given(torch.zeros(20, 3, 4, 4)), progress=False)
    with pytest.raises(DataError, match=r"\(3, 4, 4\).*\(1, 4, 4\)"):
        nll(UniformLevels(), Given(pixels(20, 1, 4, 4), levels=256), progress=False)
    with pytest.raises(ConfigError, match="k: expected at least 1"):
        nll(LinearGaussianVAE(), gaussian_data(LinearGaussianVAE(), 3), k=0, progress=False)


def test_measuring_leaves_the_mode_and_the_generator_alone() -> None:
    model = LinearGaussianVAE().train()
    state = torch.get_rng_state()
    nll(model, gaussian_data(model, 5), k=10, progress=False)
    assert model.training and torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())


def test_measuring_is_done_in_full_precision() -> None:
    class Watched(LinearGaussianVAE):
        def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
            assert not self.training and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.enabled
            assert torch.get_float32_matmul_precision() == "highest"
            return super().elbo(x, generator=generator)

    model = Watched().train()
    data = gaussian_data(model, 5)
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nll(model, data, k=1, progress=False)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == nll(model, data, k=1, progress=False)


# ------------------------------------------------------------------------------------------------------------- quality


def features(num: int, width: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    return (torch.randn(num, width, generator=generator) * scale @ mix + shift).relu() + 0.1 * mix[0]


def with_moments(num: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> Tensor:
    """Points of exactly this mean and (unbiased) covariance."""
    x = torch.randn(num, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return x @ torch.linalg.cholesky(torch.tensor(covariance)).T + torch.tensor(mean)


def test_fid_of_gaussians_is_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 5, 5))
    mean_a, mean_b, cov_a, cov_b = np.zeros(5), np.arange(5.0), a @ a.T + np.eye(5), b @ b.T + 0.1 * np.eye(5)
    truth = np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    found, error = fid(with_moments(300, mean_a, cov_a, 1), with_moments(400, mean_b, cov_b, 2))
    assert found == pytest.approx(truth, rel=1e-6)
    assert error > 0
    same = with_moments(300, mean_a, cov_a, 3)
    assert fid(same, same)[0] == pytest.approx(0, abs=1e-9)


def test_fid_kid_and_inception_score_equal_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    samples, reference = features(700, 24, 1, 0.2), features(700, 24, 2)
    statistics = [fid_features_to_statistics(x.double()) for x in (samples, reference)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(samples, reference)[0] == pytest.approx(expected, rel=1e-3)

    whole = kid_features_to_metric(samples, reference, kid_subsets=2, kid_subset_size=700, verbose=False)
    expected = whole["kernel_inception_distance_mean"]
    assert kid(samples, reference, subsets=2, subset_size=700)[0] == pytest.approx(expected, rel=1e-3)
    part = kid_features_to_metric(samples, reference, kid_subsets=100, kid_subset_size=200, verbose=False)
    mean, error = kid(samples, reference, subset_size=200)
    assert mean == pytest.approx(part["kernel_inception_distance_mean"], abs=2 * error)
    assert error == pytest.approx(part["kernel_inception_distance_std"] / math.sqrt(3.5), rel=0.3)

    logits = 3 * features(700, 10, 3)
    expected = isc_features_to_metric(logits, splits=1)["inception_score_mean"]
    assert inception_score(logits, splits=1)[0] == pytest.approx(expected, rel=1e-3)
    split = isc_features_to_metric(logits, splits=10)
    mean, error = inception_score(logits)
    assert mean == pytest.approx(split["inception_score_mean"], abs=2 * error)


def test_fid_equals_torch_fidelity_where_features_are_many_and_some_are_dead() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    wide = [
        torch.cat([x, x[:, :5] * 2, torch.zeros(700, 9)], 1) for x in (features(700, 130, 1), features(700, 130, 2))
    ]
    statistics = [fid_features_to_statistics(x.double()) for x in wide]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(*wide)[0] == pytest.approx(expected, rel=1e-3)


def test_inception_score_of_few_images_has_splits_of_equal_size() -> None:
    certain = 50.0 * torch.eye(2).repeat(13, 1)[:25]
    scores = [inception_score(certain, seed=seed) for seed in range(20)]
    assert scores == [inception_score(certain[:20], seed=seed) for seed in range(20)]
    pairs = torch.tensor(scores)  # of each split the score is 2 or 1: both labels, or one
    assert torch.allclose(pairs[:, 0] * 10, (pairs[:, 0] * 10).round(), atol=1e-4)


def test_inception_score_of_known_labels() -> None:
    certain = 50.0 * torch.eye(10).repeat(100, 1)
    assert inception_score(certain, splits=1)[0] == pytest.approx(10, rel=1e-6)  # certain, and all labels alike often
    assert inception_score(torch.zeros(1000, 10))[0] == pytest.approx(1, rel=1e-9)  # no idea


def test_error_of_the_fid_is_the_spread_of_repetitions() -> None:
    pairs = [(features(400, 4, 2 * i, 0.3), features(600, 4, 2 * i + 1)) for i in range(200)]
    values, errors = np.array([fid(*pair) for pair in pairs]).T
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.2)


def test_fid_needs_more_images_than_features() -> None:
    with pytest.raises(DataError, match="expected more images than the 24 features, found 24"):
        fid(features(24, 24, 1), features(100, 24, 2))


def test_dead_features_do_no_harm() -> None:
    samples, reference = features(300, 6, 1, 0.2), features(300, 6, 2)
    dead = [torch.cat([x, torch.zeros(300, 2)], 1) for x in (samples, reference)]
    assert fid(*dead) == pytest.approx(fid(samples, reference), rel=1e-6)


def test_precision_and_recall_against_brute_force() -> None:
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    samples, reference = features(60, 5, 1, 0.3, 0.6), features(90, 5, 2)

    def share(points: Tensor, centres: Tensor) -> float:
        inside = 0
        for point in points.double():
            for centre in centres.double():
                radius = sorted((centres.double() - centre).square().sum(1).tolist())[3]  # [0] is the centre itself
                if (point - centre).square().sum() <= radius:
                    inside += 1
                    break
        return inside / len(points)

    (precision, error), (recall, _) = precision_recall(samples, reference, distances=17 * 90)
    assert precision == pytest.approx(share(samples, reference), abs=1e-12)
    assert recall == pytest.approx(share(reference, samples), abs=1e-12)
    assert 0 < recall < precision < 1
    assert error == pytest.approx(math.sqrt(precision * (1 - precision) / 60))
    oracle = calculate_precision_recall_full(samples.double(), reference.double())
    assert (precision, recall) == pytest.approx(oracle, abs=1e-6)


def test_memorised_images_are_precise_and_foreign_ones_are_not() -> None:
    reference = features(200, 5, 1)
    assert precision_recall(reference[:100], reference)[0][0] == 1
    assert precision_recall(reference + 100, reference) == ((0, 0), (0, 0))


def test_images_are_clamped_and_rounded() -> None:
    given = torch.tensor([-0.01, 0.0, 0.5 / 255 + 1e-4, 254.6 / 255, 1.0, 1.2])
    assert to_bytes(given).tolist() == [0, 0, 1, 255, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(levels.float() / 255), levels)
    assert to_bytes(levels) is levels
    with pytest.raises(DataError, match="nan"):
        to_bytes(torch.tensor([0.5, math.nan]))


class Projection(Classifier):
    """A classifier with random weights."""

    def __init__(self, event_shape: tuple[int, ...] = (1, 28, 28), num_features: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.event_shape, self.num_features, self.num_classes = event_shape, num_features, 10
        size = math.prod(event_shape)
        self.register_buffer("body", torch.randn(size, num_features, generator=generator) / size**0.5)
        self.register_buffer("head", torch.randn(num_features, 10, generator=generator))

    def features(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.body).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.head


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return ClassifierFeatures(Projection(), "projection")


@pytest.fixture(scope="module")
def grey() -> Given:
    return Given(pixels(600, 1, 28, 28), levels=256)


def draws(exponent: float, num: int, batch_size: int = 250) -> Iterator[Tensor]:
    return Drawing(exponent).iter_samples(num, generator=torch.Generator().manual_seed(1), batch_size=batch_size)


def test_quality_names_everything_that_it_depends_on(extractor: Extractor, grey: Given) -> None:
    found = evaluate_quality(draws(1.0, 200), grey, extractor, num=200, seed=3, progress=False)
    assert [m.name for m in found] == ["fid", "kid", "inception_score", "precision", "recall"]
    for m in found:
        assert (m.kind, m.n, m.seed, m.split, m.data) == ("estimate", 200, 3, "test", "given")
        assert m.details["extractor"] == "projection" and len(m.details["extractor_sha256"]) == 64
        assert m.details["resize"] == "none" and m.details["num_reference"] == 200
        assert m.error is not None and json.loads(json.dumps(m.to_dict())) == m.to_dict()
    assert found[1].details["subset_size"] == 100
    floor = quality_floor(grey, extractor, num=200, seed=3, progress=False)
    assert [m.name for m in floor] == [f"{m.name}_floor" for m in found]
    assert [m.value for m in floor] == [m.details["floor"] for m in found]


def test_the_floor_of_a_reference_of_training_images_is_of_others(extractor: Extractor, grey: Given) -> None:
    floor = by_key(quality_floor(grey, extractor, num=100, reference="train", progress=False))
    assert floor["fid_floor", ""].value > 1e-3 and floor["precision_floor", ""].value < 1
    mirrored = by_key(quality_floor(grey, extractor, num=100, progress=False))
    assert floor["fid_floor", ""].value == pytest.approx(mirrored["fid_floor", ""].value, rel=1e-4)


def test_quality_orders_samples_by_their_distance_from_the_data(extractor: Extractor, grey: Given) -> None:
    good, bad = (
        by_key(evaluate_quality(draws(exponent, 300), grey, extractor, num=300, progress=False))
        for exponent in (1.0, 3.0)
    )
    assert good["fid", ""].value < 3 * good["fid", ""].details["floor"] < bad["fid", ""].value
    assert good["kid", ""].value < bad["kid", ""].value
    assert good["precision", ""].value > bad["precision", ""].value + 0.05


def test_quality_does_not_depend_on_batches(extractor: Extractor, grey: Given) -> None:
    def run(batch_size: int) -> list[float]:
        samples = draws(1.0, 150, batch_size=batch_size)
        return [m.value for m in evaluate_quality(samples, grey, extractor, num=150, progress=False)]

    assert run(150) == pytest.approx(run(7), rel=1e-5)
    assert run(64) == run(64)  # torchmetrics permutes at random: here by the seed


def test_only_the_first_samples_count_and_too_few_are_refused(extractor: Extractor) -> None:
    images = pixels(50, 1, 28, 28)
    whole = extract([images], extractor, 50, label="samples", progress=False)
    part = extract(iter([images[:30], images[30:]]), extractor, 40, label="samples", progress=False)
    assert torch.allclose(part.values, whole.values[:40], rtol=1e-5)
    with pytest.raises(DataError, match="expected 51 images, found 50"):
        extract([images], extractor, 51, label="samples", progress=False)
    with pytest.raises(DataError, match="nan"):
        extract([images / math.nan], extractor, 5, label="samples", progress=False)
    with pytest.raises(DataError, match=r"\(3, 28, 28\)"):
        extract([images.expand(-1, 3, -1, -1)], extractor, 5, label="samples", progress=False)


def test_extractors_are_what_torchmetrics_takes(extractor: Extractor) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    samples, reference = pixels(100, 1, 28, 28), pixels(300, 1, 28, 28)[100:] // 2
    ours = [extract([x], extractor, len(x), label="x", progress=False).values for x in (samples, reference)]
    for normalize in (True, False):
        metric = FrechetInceptionDistance(extractor, normalize=normalize)
        metric.update(reference / 255 if normalize else reference, real=True)
        metric.update(samples / 255 if normalize else samples, real=False)
        assert metric.compute().item() == pytest.approx(fid(*ours)[0], rel=1e-3)


def test_inception_score_of_torchmetrics_takes_the_logits_of_an_extractor(extractor: Extractor) -> None:
    from torchmetrics.image.inception import InceptionScore

    samples = pixels(100, 1, 28, 28)
    with torch.no_grad():
        expected = inception_score(extractor.features_and_logits(samples)[1], splits=1)[0]
    metric = InceptionScore(extractor.logits, splits=2)
    metric.splits = 1
    metric.update(samples)
    assert metric.compute()[0].item() == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A file like torch-fidelity's, with random weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3("random", ["2048"], empty)
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_equals_torch_fidelity(inception_file: Any) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    grey = pixels(1, 1, 28, 28)
    module = Inception(inception_file)
    found, logits = module.features_and_logits(grey)
    wanted = FeatureExtractorInceptionV3("oracle", ["2048", "logits_unbiased"], str(inception_file))(
        grey.expand(-1, 3, -1, -1)
    )
    assert torch.allclose(found, wanted[0], rtol=1e-4) and torch.allclose(logits, wanted[1], rtol=1e-4, atol=1e-5)
    assert found.shape == (1, module.num_features) == (1, 2048)
    assert torch.allclose(module(grey / 255), found, rtol=1e-4)
    assert not module.training and len(module.details()["extractor_sha256"]) == 64


def test_inception_refuses_what_is_not_its_weights(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (tmp_path / "harm").touch, ()

    torch.save({"weight": Harmful()}, tmp_path / "harmful.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    for name in ("harmful.pth", "other.pth", "noise.pth", "absent.pth"):
        with pytest.raises(DataError, match=name) as caught:
            Inception(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()

    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    monkeypatch.setattr("zoo.metrics.extractors.INCEPTION", type(INCEPTION)(*_unreachable()))
    with pytest.raises(DownloadError, match="put the file at") as failed:
        Inception()
    assert "\n" not in str(failed.value)


def _unreachable() -> tuple[str, str, str]:
    return INCEPTION.path, INCEPTION.sha256, "http://127.0.0.1:9/weights.pth"


# ----------------------------------------------------------------------------------------- likelihoods image by image


def test_auroc_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(0)
    inliers, outliers = generator.normal(0.7, 1, 300).round(1), generator.normal(0, 1.5, 200).round(1)  # with ties
    labels = np.repeat([1, 0], [300, 200])
    value, error = auroc(torch.from_numpy(inliers), torch.from_numpy(outliers))
    assert value == pytest.approx(roc_auc_score(labels, np.concatenate([inliers, outliers])), abs=1e-12)
    repeated = [
        auroc(torch.from_numpy(generator.normal(0.7, 1, 300)), torch.from_numpy(generator.normal(0, 1.5, 200)))[0]
        for _ in range(300)
    ]
    assert error == pytest.approx(np.std(repeated), rel=0.25)
    assert auroc(torch.zeros(5), torch.zeros(3))[0] == 0.5
    assert auroc(torch.ones(5), torch.zeros(3)) == (1, 0) and auroc(torch.zeros(5), torch.ones(3)) == (0, 0)


def test_log_likelihoods_average_to_the_nll() -> None:
    for model, data in [
        (LinearGaussianVAE(), gaussian_data(LinearGaussianVAE(), 40)),
        (Ramp(0.3), Given(pixels(80, 3, 4, 4), levels=256)),
        (BernoulliPixels(torch.full((1, 3, 3), 0.3)), Given(pixels(80, 1, 3, 3, levels=2), levels=2)),
    ]:
        settings: dict[str, Any] = {"k": 60, "draws": 3, "progress": False}
        found = log_likelihood(model, data, **settings)
        assert found is not None
        expected = by_key(nll(model, data, **settings))["nll", "nats"]
        assert -found.nats.mean().item() == pytest.approx(expected.value, rel=1e-9)
        assert found.estimate.kind == expected.kind
    assert log_likelihood(Drawing(), Given(pixels(8, 1, 28, 28), levels=256), progress=False) is None


class ByLabel(Conditional, TractableDensity):
    """Pixels that are 1 with a probability that the label says."""

    event_shape, num_classes, levels = (1, 3, 3), 4, 2

    def log_prob(self, x: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        probs = (labels + 1).view(-1, 1, 1, 1) / 5
        return Bernoulli(probs.expand_as(x)).log_prob(x).flatten(1).sum(1)

    def draw(self, streams: Streams, labels: Tensor) -> Tensor:
        return (rand((len(streams), *self.event_shape), streams) < (labels + 1).view(-1, 1, 1, 1) / 5).float()


def test_a_conditional_density_is_averaged_over_its_classes() -> None:
    states = torch.tensor(list(itertools.product((0, 1), repeat=9)), dtype=torch.uint8).view(-1, 1, 3, 3)
    data = Given(torch.cat([states, states]), levels=2)  # no labels are needed
    found = log_likelihood(ByLabel(), data, progress=False)
    assert found is not None and found.estimate.settings["averaged_over"] == "labels"
    assert found.nats.logsumexp(0).item() == pytest.approx(0, abs=1e-5)


def test_outliers_are_told_from_the_models_own_data(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BernoulliPixels(torch.linspace(0.05, 0.95, 9).view(1, 3, 3))
    own, foreign = Given(model.sample(400).to(torch.uint8), levels=2), Given(pixels(400, 1, 3, 3, levels=2), levels=2)
    monkeypatch.setattr("zoo.metrics.outliers.foreign_to", lambda data: (own, foreign))
    (found,) = outlier_detection(model, own, num=150, progress=False)
    assert (found.name, found.n, found.details["num_against"], found.details["score"]) == (
        "auroc",
        150,
        150,
        "log_prob",
    )
    assert 0.8 < found.value < 1
    (swapped,) = (m for m in evaluate(model, own, only=["outliers"], progress=False))
    assert swapped.n == 200 and evaluate(model, own, progress=False) == nll(model, own, progress=False)
    assert outlier_detection(Drawing(), own, progress=False) == []


def test_foreign_data_are_the_other_ones_in_the_same_pixels() -> None:
    pairs = {d.name: foreign_to(d) for d in (MNIST(), FashionMNIST(), BinarizedMNIST(), MNIST(binarize="dynamic"))}
    assert {name: [d.name for d in pair or ()] for name, pair in pairs.items()} == {
        "mnist": ["mnist", "fashion-mnist"],
        "fashion-mnist": ["fashion-mnist", "mnist"],
        "binarized-mnist": ["dynamic-mnist", "dynamic-fashion-mnist"],
        "dynamic-mnist": ["dynamic-mnist", "dynamic-fashion-mnist"],
    }
    assert foreign_to(Given(pixels(8, 1, 28, 28))) is None


# -------------------------------------------------------------------------------------------- classifiers, evaluation


def test_accuracy_and_its_binomial_error() -> None:
    model = Projection((1, 4, 4))
    x = pixels(200, 1, 4, 4)
    truth = model(x.float() / 255).argmax(-1)
    labels = torch.where(torch.arange(200) % 4 == 0, (truth + 1) % 10, truth)  # every fourth is wrong
    (found,) = accuracy(model, Given(x, labels, levels=256), progress=False)
    assert (found.name, found.unit, found.value, found.n) == ("accuracy", "%", 75.0, 100)
    assert found.error == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 100))
    with pytest.raises(DataError, match="labels"):
        accuracy(model, Given(x, levels=256), progress=False)


class Reading(Classifier):
    """Reads the label off the first pixel."""

    event_shape, num_classes, num_features = (1, 4, 4), 5, 16

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, 0, 0, :1] * 255 - torch.arange(5)).abs()


class Writing(Conditional):
    """Writes the label into the first pixel, and 0 in place of 3; the rest is noise."""

    event_shape, num_classes = (1, 4, 4), 5

    def draw(self, streams: Streams, labels: Tensor) -> Tensor:
        x = rand((len(streams), *self.event_shape), streams)
        x[:, 0, 0, 0] = labels.where(labels != 3, 0) / 255
        return x


def test_class_accuracy_is_the_share_of_samples_that_show_their_label() -> None:
    reader = ClassifierFeatures(Reading(), "reading")
    (found,) = class_accuracy(Writing(), Given(pixels(4, 1, 4, 4)), reader, num=203, batch_size=50, progress=False)
    assert (found.name, found.unit, found.kind, found.n) == ("class_accuracy", "%", "estimate", 203)
    share = 1 - 40 / 203  # 203 = 40 times 0, 1, 2, 3, 4, and 0, 1, 2
    assert found.value == pytest.approx(100 * share)
    assert found.error == pytest.approx(100 * math.sqrt(share * (1 - share) / 203))
    assert found.details["classes"] == {"0": 100.0, "1": 100.0, "2": 100.0, "3": 0.0, "4": 100.0}
    (few,) = class_accuracy(Writing(), Given(pixels(4, 1, 4, 4)), reader, num=2, progress=False)
    assert few.details["classes"] == {"0": 100.0, "1": 100.0}


class UpperHalf(Encoder):
    """The code of an image is its upper half."""

    event_shape, latent_shape = (1, 4, 4), (8,)

    def encode(self, x: Tensor) -> Independent:
        return Independent(Normal(x.flatten(1)[:, :8], 1.0), 1)

    def draw(self, streams: Streams) -> Tensor:
        return rand((len(streams), *self.event_shape), streams)


def test_code_accuracy_is_that_of_the_nearest_training_code() -> None:
    x, labels = pixels(200, 1, 4, 4), torch.arange(200) % 3
    data = Given(x, labels, levels=256)
    codes = x.flatten(1)[:, :8].double()
    nearest = [int((codes[:100] - codes[j]).square().sum(1).argmin()) for j in range(100, 200)]  # the first half trains
    right = [labels[i] == labels[j] for i, j in zip(nearest, range(100, 200), strict=True)]
    expected = 100 * sum(map(float, right)) / 100
    (found,) = code_accuracy(UpperHalf(), data, progress=False, batch_size=30)
    assert (found.name, found.unit, found.n, found.details["num_reference"]) == ("code_accuracy", "%", 100, 100)
    assert found.value == pytest.approx(expected)
    (part,) = code_accuracy(UpperHalf(), Given(x.repeat(6, 1, 1, 1), labels.repeat(6), levels=256), progress=False)
    assert part.value == 100 and part.details["slice"]["n"] == 250  # each is its own neighbour
    names = [m.name for m in evaluate(UpperHalf(), data, Evaluation(codes=True), only=["accuracy"], progress=False)]
    assert names == ["code_accuracy"] and evaluate(UpperHalf(), data, only=["accuracy"], progress=False) == []
    with pytest.raises(DataError, match="expected labels in train and test"):
        code_accuracy(UpperHalf(), Given(x, levels=256), progress=False)
    with pytest.raises(ConfigError, match="training images are their own neighbours"):
        code_accuracy(UpperHalf(), data, split="train", progress=False)


class GreyDensity(Ramp):
    """Has a density, and draws 28x28 grey images."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.event_shape = (1, 28, 28)


def test_squared_error_and_that_of_principal_components() -> None:
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    mixing = torch.randn(12, 128)
    x = (torch.randn(1400, 12) @ mixing * 20 + 100).clamp(0, 255).to(torch.uint8).view(-1, 1, 8, 16)
    data, model = Given(x, levels=256), Autoencoder(event_shape=[1, 8, 16], latent_dim=5, channels=2, hidden=4)
    found = {m.name: m for m in evaluate(model, data, only=["reconstruction"], progress=False, batch_size=300)}
    train, test = (data.split(which).x.double().flatten(1) / 255 for which in ("train", "test"))
    with torch.no_grad():
        expected = (model.decode(model.encode(test.float().view(-1, 1, 8, 16)).mean).flatten(1) - test).square().sum(1)
    assert found["squared_error"].value == pytest.approx(expected.mean().item(), rel=1e-5)
    assert found["squared_error"].error == pytest.approx(expected.std().item() / math.sqrt(700), rel=1e-5)
    pca = PCA(5, svd_solver="full").fit(train.numpy())
    kept = pca.inverse_transform(pca.transform(test.numpy()))
    assert found["squared_error_pca"].value == pytest.approx(((kept - test.numpy()) ** 2).sum(1).mean(), rel=1e-5)
    small = {m.name: m for m in evaluate(model, data, only=["reconstruction"], progress=False, on_slice=True)}
    for name, whole in found.items():
        assert small[name].value == pytest.approx(whole.details["slice"]["value"]) and small[name].n == 250
    assert {m.details["code"] for m in found.values()} == {5}


def test_nearest_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    references, queries = torch.randn(500, 12, generator=seeded(1)), torch.randn(450, 12, generator=seeded(2))
    distances, index = nearest(queries, references, 4)
    expected = NearestNeighbors(n_neighbors=4).fit(references.numpy()).kneighbors(queries.numpy())
    np.testing.assert_allclose(distances.numpy(), expected[0], rtol=1e-4)
    assert (index.numpy() == expected[1]).all()


def test_closer_is_the_statistic_of_mann_and_whitney() -> None:
    from scipy.stats import mannwhitneyu

    first, second = torch.randn(40, generator=seeded(1)), torch.randn(70, generator=seeded(2)) + 0.3
    share, score = closer(first, second)
    expected = mannwhitneyu(second.numpy(), first.numpy(), method="asymptotic", use_continuity=False)
    assert share == pytest.approx(expected.statistic / (40 * 70))
    assert 2 * Normal(0.0, 1.0).cdf(torch.tensor(-abs(score))).item() == pytest.approx(expected.pvalue, rel=1e-4)
    assert closer(torch.ones(3), torch.ones(4))[0] == 0.5


def test_copies_are_found_and_draws_like_the_data_are_not(extractor: Extractor) -> None:
    x = pixels(1200, 1, 28, 28)
    data, fresh = Given(x, levels=256), torch.rand(300, 1, 28, 28, generator=seeded(5))
    copies = data.split("train").x[:300].float() / 255
    for network in (None, extractor):
        of_copies, of_fresh = (neighbours(s, data, 3, extractor=network) for s in (copies, fresh))
        assert of_copies.copied > 0.999 and torch.equal(of_copies.index[:, 0], torch.arange(300))
        assert (of_copies.distances[:, 0] < 0.1 * of_copies.distances[:, 1]).all()
        assert abs(of_fresh.score) < 4 and of_fresh.num_test == 300
        assert of_fresh.index.shape == of_fresh.distances.shape == (300, 3)
    with pytest.raises(DataError, match=r"samples of shape \[N, 1, 28, 28\], found \[0, 1, 28, 28\]"):
        neighbours(copies[:0], data)
    with pytest.raises(ConfigError, match="k: expected 1 to 600, the training images, found 601"):
        neighbours(copies, data, 601)


def test_capabilities_decide_which_numbers_there_are(extractor: Extractor, grey: Given) -> None:
    labelled = Given(grey.x, torch.zeros(600, dtype=torch.int64), levels=256)
    binary = Given(pixels(80, 1, 28, 28, levels=2), levels=2)
    settings = Evaluation(num=200)
    quality = {"fid", "kid", "inception_score", "precision", "recall"}

    def names(model: Any, data: DataModule, **options: Any) -> set[str]:
        return {m.name for m in evaluate(model, data, settings, extractor=extractor, progress=False, **options)}

    assert names(Drawing(), grey) == quality
    assert names(GreyDensity(), grey) == {"nll"} | quality
    assert names(GreyDensity(), grey, only=["likelihood"]) == {"nll"}
    assert names(BernoulliPixels(torch.full((1, 28, 28), 0.5)), binary) == {"nll"}
    assert names(reader := Projection().train(), labelled) == {"accuracy"} | {f"{name}_floor" for name in quality}
    assert reader.training and all(parameter.requires_grad for parameter in reader.parameters())
    assert names(LinearGaussianVAE(), gaussian_data(LinearGaussianVAE(), 5)) == {"nll", "neg_elbo"}
    with pytest.raises(ConfigError, match="did you mean 'quality'"):
        names(Drawing(), grey, only=["qualty"])


def test_an_evaluation_finds_out_what_is_not_there_before_it_measures(
    grey: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GreyDensity, "log_prob", None)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"extractor": "lenet-mnst"}, "did you mean 'lenet-mnist'"),
        ({"num": 0}, "num: expected at least 1, found 0"),
        ({"sampling_seeds": 0}, "sampling_seeds: expected at least 1, found 0"),
    )
    for settings, said in cases:
        with pytest.raises(ConfigError, match=said):
            evaluate(GreyDensity(), grey, Evaluation(**settings), progress=False)


@pytest.mark.parametrize("num", [100, 60, 50])
def test_the_slice_of_an_evaluation_bears_the_whole_out(
    num: int, extractor: Extractor, grey: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers are all on record, also where there are no more samples than a slice has; of one sampling seed."""
    monkeypatch.setattr("zoo.metrics.evaluate.SAMPLE_SLICE", 60)
    options: dict[str, Any] = {"extractor": extractor, "progress": False}
    settings = Evaluation(num=num, sampling_seeds=2)
    whole = evaluate(GreyDensity(), grey, settings, **options)
    part = evaluate(GreyDensity(), grey, settings, on_slice=True, **options)
    sampled = ("fid", "kid", "inception_score", "precision", "recall")
    assert {m.name: m.n for m in whole} == {"nll": 300} | dict.fromkeys(sampled, num)
    assert {m.name: m.n for m in part} == {"nll": 250} | dict.fromkeys(sampled, min(num, 60))
    assert {m.name for m in whole if "sampling_seeds" in m.details} == {"fid"}
    assert not any("sampling_seeds" in m.details for m in part)
    assert all(recorded_value(whole, m) is not None for m in part)
    assert compare(whole, whole) == [] and compare(whole, part) == []
    for m in part:
        other = Measurement.from_dict(m.to_dict() | {"value": m.value * 1.05 + 0.1})
        assert len(compare(whole, [other])) == 1


def measurement(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "name": "nll",
        "value": 86.6,
        "error": 0.2,
        "unit": "nats",
        "kind": "bound",
        "n": 10_000,
        "seed": 0,
        "split": "test",
        "data": "binarized-mnist",
        "details": {"k": 5000, "slice": {"n": 25, "value": 80.0}},
    }
    return Measurement(**(fields | changes))


def test_measurements_survive_json_and_refuse_nonsense() -> None:
    m = measurement()
    assert Measurement.from_dict(json.loads(json.dumps(m.to_dict() | {"command": "zoo evaluate"}))) == m
    assert "86.6 +- 0.2 nats (bound, 10000 on binarized-mnist test)" in str(m)
    with pytest.raises(ConfigError, match=r"metrics\.json: .*'valu'; did you mean 'value'"):
        Measurement.from_dict({"valu": 1.0}, "metrics.json")
    with pytest.raises(ConfigError, match="kind"):
        Measurement.from_dict(m.to_dict() | {"kind": "guess"})
    for details in (
        {"slice": 3},
        {"slice": {"n": [1], "value": 2.0}},
        {"sampling_seeds": {"first": 1.0}},
        {"classes": 5},
    ):
        with pytest.raises(ConfigError, match=f"^metrics.json: details: {next(iter(details))}"):
            Measurement.from_dict(m.to_dict() | {"details": details}, "metrics.json")
    with pytest.raises(ZooError, match="finite value, found nan"):
        measurement(value=math.nan)


def test_compare_reports_what_is_not_borne_out() -> None:
    old = [measurement()]
    assert compare(old, [measurement(value=86.601)]) == []
    (difference,) = compare(old, [measurement(value=86.65)])
    assert str(difference) == "nll: recorded 86.6, found 86.65 nats (n = 10000)"
    assert compare(old, [measurement(value=90.0, details={"k": 50})]) == []  # another quantity
    assert compare(old, [measurement(value=90.0, seed=1)]) == []
    assert compare(old, [measurement(value=80.0, n=25)]) == []
    assert len(compare(old, [measurement(value=81.0, n=25)])) == 1
    (missing,) = compare([], old)
    assert missing.recorded is None and "no such number" in str(missing)


def test_numbers_that_rest_on_log_z_agree_if_energies_and_log_z_do() -> None:
    rough = {"runs": 100, "temperatures": 300, "sweeps": 30, "log_z": 829.0, "log_z_error": 0.5}
    whole = rough | {"runs": 500, "log_z": 830.0, "log_z_error": 0.1, "slice": {"n": 25, "value": 84.0} | rough}
    old = [measurement(value=86.0, details=whole)]

    def found(energy: float, log_z: float, on_slice: bool) -> list[Difference]:
        details = (rough if on_slice else whole) | {"log_z": log_z}
        return compare(old, [measurement(value=energy + log_z, n=25 if on_slice else 10_000, details=details)])

    for on_slice, log_z, error in ((False, 830.0, 0.1), (True, 829.0, 0.5)):
        energy = (84.0 if on_slice else 86.0) - log_z
        assert found(energy, log_z + 4 * error, on_slice) == []
        assert len(found(energy, log_z + 7 * error, on_slice)) == 1
        assert len(found(energy + 0.05, log_z, on_slice)) == 1


def test_errors_of_inversion_may_not_grow() -> None:
    old = [measurement(name="inversion_error", value=1e-6, details={"precision": "float32"})]
    for value, differences in ((1e-9, 0), (5e-6, 0), (2e-5, 1)):
        new = measurement(name="inversion_error", value=value, details={"precision": "float32"})
        assert len(compare(old, [new])) == differences
