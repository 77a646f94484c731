"""Densities in closed form: what each of them alone has."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import logit as scipy_logit
from scipy.stats import norm
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from zoo import Zoo
from zoo.autoregressive.color_pixelcnn import ColorPixelCNN
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.fvsbn import FVSBN
from zoo.autoregressive.gated_pixelcnn import GatedPixelCNN
from zoo.autoregressive.made import MADE
from zoo.autoregressive.nade import NADE
from zoo.autoregressive.pixelcnn import PixelCNN
from zoo.autoregressive.pixelrnn import PixelRNN
from zoo.autoregressive.rnn import RNN
from zoo.cli import main
from zoo.data import Digits
from zoo.data import Rivers as RiverData
from zoo.density.causal_gaussian import CausalGaussian
from zoo.density.gaussian import Gaussian, GaussianDensity
from zoo.density.gaussian_mixture import GaussianMixture
from zoo.density.memoriser import Memoriser
from zoo.density.mixture import BernoulliMixture
from zoo.density.rivers import Rivers
from zoo.errors import ConfigError, DataError, DownloadError
from zoo.laws.law import follows, seeded
from zoo.metrics.likelihood import log_likelihood, nll
from zoo.random import Streams, seed_from


def fitted(model: GaussianDensity, x: Tensor) -> GaussianDensity:
    model.statistics = model.gather(x)
    model.finish(model.statistics)
    return model.eval()


def images(num: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    size = int(np.prod(shape))
    x = torch.randn(num, size, generator=generator) @ torch.randn(size, size, generator=generator)
    return (x + torch.randn(size, generator=generator)).view(num, *shape)


def test_a_causal_gaussian_that_sees_everything_is_the_gaussian() -> None:
    for shape in ((2, 2, 3), (1, 3, 2), (3, 1, 1)):
        x = images(200, *shape)
        causal, full = fitted(CausalGaussian(list(shape), window=3), x), fitted(Gaussian(list(shape)), x)
        torch.testing.assert_close(causal.log_prob(x), full.log_prob(x), atol=1e-3, rtol=1e-4)
        z, _ = causal.whiten(x.flatten(1) - causal.loc)
        torch.testing.assert_close(causal.colour(z), x.flatten(1) - causal.loc, atol=1e-3, rtol=1e-4)


def test_a_causal_gaussian_is_the_product_of_regressions() -> None:
    """Each pixel on its window by scikit-learn, of which the scores add up."""
    channels, height, width, window = 2, 3, 4, 1
    x = images(300, channels, height, width)
    total = 0
    for c, i, j in np.ndindex(channels, height, width):
        near = [
            x[:, e, k, m]
            for e, k, m in np.ndindex(channels, height, width)
            if (i - window <= k < i and abs(m - j) <= window)
            or (k == i and j - window <= m < j)
            or ((k, m) == (i, j) and e < c)
        ]
        given = torch.stack(near, 1).numpy() if near else np.zeros((len(x), 1))
        y = x[:, c, i, j].numpy()
        rest = y - LinearRegression().fit(given, y).predict(given)
        total = total - rest**2 / (2 * rest.var()) - np.log(2 * np.pi * rest.var()) / 2
    model = fitted(CausalGaussian([channels, height, width], window=window), x)
    np.testing.assert_allclose(model.log_prob(x).numpy(), total, atol=1e-3, rtol=1e-4)
    precision = torch.linalg.inv(
        torch.cov(model.sample(50_000, generator=torch.Generator().manual_seed(0)).flatten(1).T)
    )
    far = precision[0, [height * width - 1, 2 * height * width - 1]]  # the first pixel and the last
    assert far.abs().max() < 0.02 * precision[0, 0]


def test_a_step_of_a_mixture_of_gaussians_is_that_of_scikit_learn() -> None:
    model, x = GaussianMixture([3], num_components=4).double(), images(300, 3).double()
    model.finish(model.gather(x, generator=seeded()))
    other = SklearnMixture(
        4,
        weights_init=model.log_weights.exp().numpy(),
        means_init=model.loc.numpy(),
        precisions_init=torch.cholesky_inverse(model.scale_tril).numpy(),
        reg_covar=model.jitter,
        max_iter=5,
        tol=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        other.fit(x.numpy())
    for _ in range(5):
        model.finish(model.gather(x))
    torch.testing.assert_close(model.loc, torch.from_numpy(other.means_), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model.log_prob(x), torch.from_numpy(other.score_samples(x.numpy())), atol=1e-6, rtol=0)


def test_components_of_a_mixture_of_gaussians_begin_apart() -> None:
    model, x = GaussianMixture([2], num_components=5), images(2000, 2)
    model.finish(model.gather(x, generator=seeded()))
    assert torch.pdist(model.loc).min() > 0.05 * x.std()
    model.finish(model.gather(x))
    assert model.log_prob(x).mean() > fitted(Gaussian([2]), x).log_prob(x).mean()


def follow(shape: tuple[int, int], fork: float, inertia: float) -> dict[bytes, Fraction]:
    """Every picture that the program of rivers can draw, with its probability, by going through all of its flips."""
    height, width = shape
    f, a = (Fraction(value).limit_denominator() for value in (fork, inertia))
    found: dict[bytes, Fraction] = {}

    def options(column: int, last: int, low: int) -> dict[int, Fraction]:
        weights = {step: a if step == last else (1 - a) / 2 for step in (-1, 0, 1) if low <= column + step < width}
        return {step: weight / sum(weights.values()) for step, weight in weights.items()}

    def flow(picture: list[list[int]], arms: list[int], lasts: list[int], p: Fraction) -> None:
        picture = [*picture, [int(j in arms) for j in range(width)]]
        if len(picture) == height:
            key = np.array(picture, np.uint8).tobytes()
            assert key not in found, "two ways to one picture"
            found[key] = p
            return
        if len(arms) == 1:
            c, parts = arms[0], 0 < arms[0] < width - 1
            if parts and f:
                flow(picture, [c - 1, c + 1], [-1, 1], p * f)
            for step, q in options(c, lasts[0], 0).items():
                flow(picture, [c + step], [step], p * q * (1 - f * parts))
            return
        for left, q in options(arms[0], lasts[0], 0).items():
            for right, r in options(arms[1], lasts[1], arms[0] + left).items():
                if arms[0] + left == arms[1] + right:
                    flow(picture, [arms[0] + left], [0], p * q * r)
                else:
                    flow(picture, [arms[0] + left, arms[1] + right], [left, right], p * q * r)

    for column in range(width):
        flow([], [column], [0], Fraction(1, width))
    return found


@pytest.mark.parametrize(("shape", "fork", "inertia"), [((5, 4), 0.25, 0.6), ((4, 5), 0.5, 0.1), ((4, 1), 0.5, 0.5)])
def test_rivers_are_those_of_the_program(shape: tuple[int, int], fork: float, inertia: float) -> None:
    expected = follow(shape, fork, inertia)
    assert sum(expected.values()) == 1
    model = Rivers([1, *shape], fork=fork, inertia=inertia)
    x = torch.from_numpy(np.stack([np.frombuffer(key, np.uint8) for key in expected]).astype(np.float32))
    probs = torch.tensor([float(p) for p in expected.values()], dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x.view(-1, 1, *shape)).double().exp(), probs, atol=1e-6, rtol=1e-4)
    assert model.entropy() == pytest.approx(torch.special.entr(probs).sum().item(), rel=1e-5)
    drawn = model.sample(500, generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    assert {picture.tobytes() for picture in drawn} <= expected.keys()


@pytest.mark.parametrize("known", [[1], [3, 18], [8, 9, 16], [15, 16, 17, 18, 19], [0, 2, 4, 6, 12, 13], []])
def test_rivers_are_completed_by_the_program_from_any_mask(known: list[int]) -> None:
    """Against all that it can draw: a river's pixels and dry ones, above and below what is not known."""
    model, pictures = Rivers([1, 4, 5], fork=0.4, inertia=0.3), follow((4, 5), 0.4, 0.3)
    mask = torch.zeros(20, dtype=torch.bool)
    mask[known] = True
    mask = mask.view(1, 4, 5)
    for template in model.sample(3, generator=torch.Generator().manual_seed(len(known))):
        x = template.where(mask, torch.nan).expand(4000, -1, -1, -1)
        drawn = model.complete(x, mask, generator=torch.Generator().manual_seed(0))
        assert (drawn == template)[:, mask].all()
        place = {key: i for i, key in enumerate(pictures)}
        counts = torch.bincount(
            torch.tensor([place[row.tobytes()] for row in drawn.to(torch.uint8).numpy()]), minlength=len(place)
        )
        states = torch.from_numpy(np.stack([np.frombuffer(key, np.uint8) for key in pictures])).view(-1, 1, 4, 5)
        fits = ((states == template) | ~mask).flatten(1).all(1)
        probs = torch.tensor([float(p) for p in pictures.values()], dtype=torch.float64).where(fits, 0)
        follows(counts, (probs / probs.sum()).log())


def test_pixels_that_no_river_has_cannot_be_completed() -> None:
    model, mask = Rivers([1, 4, 5]), torch.ones(1, 4, 5, dtype=torch.bool)
    mask[0, 2] = False
    for x in (torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5)):
        with pytest.raises(DataError, match="known pixels that some river has"):
            model.complete(torch.cat([model.sample(1), x]), mask)


@pytest.mark.parametrize("cls", [Gaussian, CausalGaussian])
def test_gaussians_are_completed_by_the_conditional_from_any_mask(cls: type[Gaussian | CausalGaussian]) -> None:
    """Mean and covariance by the formulas for a block of the covariance, each image with its own mask."""
    model = fitted(cls([2, 3, 3], **({"window": 1} if cls is CausalGaussian else {})), images(300, 2, 3, 3))
    z = model.whiten(torch.eye(18))[0].double()
    covariance, num = torch.linalg.inv(z @ z.T), 20_000
    masks = torch.stack([torch.arange(18) % 3 == 0, torch.arange(18) > 11, torch.arange(18) < 0])
    x = images(3, 2, 3, 3)
    drawn = model.complete(
        x.repeat_interleave(num, 0),
        masks.repeat_interleave(num, 0).view(-1, 2, 3, 3),
        generator=seeded(),
        batch_size=num,
    )
    for template, mask, found in zip(x.flatten(1).double(), masks, drawn.flatten(1).double().split(num), strict=True):
        gain = covariance[~mask][:, mask] @ torch.linalg.inv(covariance[mask][:, mask])
        mean = model.loc[~mask] + gain @ (template - model.loc)[mask]
        expected = covariance[~mask][:, ~mask] - gain @ covariance[mask][:, ~mask]
        scale = expected.diagonal().sqrt()
        assert ((found[:, ~mask].mean(0) - mean) / scale).abs().max() < 4.5 / num**0.5
        error = (torch.cov(found[:, ~mask].T) - expected) / scale / scale[:, None]
        assert error.abs().max() < 4.5 * (2 / num) ** 0.5


@pytest.mark.parametrize("cls", [Gaussian, CausalGaussian])
def test_completions_with_one_mask_factor_once(
    cls: type[Gaussian | CausalGaussian], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches, and the draws of the command; with the bits of examples completed one by one."""
    model = fitted(cls([1, 8, 8], levels=256, jitter=0.01), Digits().split("train").x / 255)
    x, factored, factor = Digits().split("test").x[:7] / 255, [], torch.linalg.cholesky
    mask = torch.arange(64).view(1, 8, 8) < 24

    def counted(matrix: Tensor) -> Tensor:
        factored.append(len(matrix))
        return factor(matrix)

    monkeypatch.setattr(torch.linalg, "cholesky", counted)
    found = model.complete(x, mask, generator=seeded(), batch_size=3)
    assert factored == [40]
    seed = seed_from(seeded())
    for i, image in enumerate(x):
        alone = model.fill(torch.where(mask, image, 0)[None], mask[None], Streams(seed, [i]))
        assert torch.equal(torch.where(mask, image, alone[0]), found[i])
    Zoo.save(model, tmp_path / "model", recipe={"data": {"class": "Digits"}})
    factored.clear()
    words = ["complete", f"local-dir:{tmp_path / 'model'}", "-n", "5", "--draws", "3", "--out", str(tmp_path / "c.png")]
    assert main(words) == 0 and factored == [32]


@pytest.mark.parametrize("logit", [None, 1e-3])
def test_gaussians_of_grey_levels_are_completed_given_dequantised_ones(logit: float | None) -> None:
    """Of two pixels of 8 levels, the one given the other: an integral over where in its level the other lies."""
    model = Gaussian([1, 1, 2], levels=8, logit=logit)
    model.loc.copy_(torch.tensor([0.3, 0.45]))
    model.scale_tril.copy_(torch.tensor([0.2, 0.15, 0.1]) * (1 if logit is None else 6))
    (a, b, c), (first, second) = model.scale_tril.tolist(), model.loc.tolist()

    def transformed(y: np.ndarray) -> np.ndarray:
        return y if logit is None else scipy_logit(logit + (1 - 2 * logit) * y)

    edges = transformed(np.arange(1, 8) / 8)
    for level in (0, 3, 7):
        y = transformed((level + (np.arange(1000) + 0.5) / 1000) / 8)
        below = norm.cdf((edges[:, None] - second - b / a * (y - first)) / c).mean(1)
        x = torch.tensor([level / 7, torch.nan]).expand(8000, 1, 1, 2)
        drawn = model.complete(x, torch.tensor([[[True, False]]]), generator=seeded())[..., 1]
        counts = torch.bincount((drawn.flatten() * 7).round().long(), minlength=8)
        follows(counts, torch.from_numpy(np.diff(below, prepend=0, append=1)).log())


def test_what_is_no_river_has_no_probability() -> None:
    model = Rivers()
    x = model.sample(20, generator=torch.Generator().manual_seed(0))
    assert model.log_prob(x).isfinite().all()
    broken = x * (torch.arange(28)[:, None] != 10)  # without its eleventh row
    for no_river in (x * 0, 1 - x, broken, x * 0.9, x + 0.1, x * torch.nan):
        assert (model.log_prob(no_river) == -torch.inf).all()


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (Rivers, {"event_shape": [3, 4, 4]}),
        (Memoriser, {"event_shape": [3, 8, 8]}),
        (Memoriser, {"event_shape": [1, 12, 12], "memory": "Digits"}),
        (Memoriser, {"event_shape": [1, 28, 29]}),
        (Memoriser, {"event_shape": [1, 8, 3], "max_shift": 3}),
    ],
)
def test_shapes_that_cannot_be(cls: type[Rivers | Memoriser], arguments: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{cls.__name__}: expected one channel.*, found"):
        cls(**arguments)


def test_likelihoods_do_not_depend_on_the_order_of_the_examples() -> None:
    """Each has noise of its own, wherever it stands and in whichever batch."""
    gaussian = fitted(Gaussian([1, 8, 8], levels=256, jitter=0.01), Digits().split("train").x / 255)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    kinds: Any = (BernoulliMixture, FVSBN, NADE, EoNADE, MADE, RNN, PixelRNN, PixelCNN, GatedPixelCNN, ColorPixelCNN)
    models = [kind([1, 8, 8]).eval() for kind in kinds]
    for value in (value for model in models for value in model.state_dict().values()):
        if value.is_floating_point():  # with zeros, all images would be alike
            value.add_(0.3 * torch.randn(value.shape, generator=seeded()))
    for model in (gaussian, *models):
        data = Digits(binarize=model.levels == 2)
        whole, shuffled = (nll(model, data, index=index, batch_size=70, progress=False) for index in (None, order))
        assert [m.value for m in shuffled] == pytest.approx([m.value for m in whole], rel=1e-6)
        each, moved = (log_likelihood(model, data, index=index, batch_size=70) for index in (None, order))
        assert each is not None and moved is not None and each.nats.std() > 0.02
        torch.testing.assert_close(moved.nats, each.nats[order], rtol=1e-5, atol=1e-3)


def test_rivers_as_data_have_the_entropy_of_the_program() -> None:
    data, model = RiverData(), Rivers()
    x = data.split("valid").x
    assert x.shape == (10_000, 1, 28, 28) and not torch.equal(x, data.split("test").x)
    nats = -model.log_prob(x.float()).double()
    assert abs(nats.mean() - model.entropy()) < 4 * nats.std() / 100
    drawn = model.sample(50, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert not torch.equal(drawn, data.split("train").x[:50])


def memoriser() -> Memoriser:
    model = Memoriser([1, 4, 4], memory="Digits", num_levels=5).eval()
    model.log_shifts.copy_(torch.arange(9.0).log_softmax(0))
    return model


def test_a_memoriser_is_the_mixture_of_its_kernels() -> None:
    model = memoriser()
    num = len(model._examples())
    example = torch.arange(num).repeat_interleave(9)
    shift = torch.arange(9).repeat(num)
    probs = model.logits[model._kernels(example, shift)].sigmoid()
    x = (torch.rand(6, 16, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    for row in x:
        each = torch.distributions.Bernoulli(probs).log_prob(row).double().sum(1) + model.log_shifts.double()[shift]
        expected = each.logsumexp(0) - np.log(num)
        assert model.log_prob(row.view(1, 1, 4, 4)).item() == pytest.approx(expected.item(), abs=1e-3)


def test_a_memoriser_blurs_as_scipy_does() -> None:
    model, x = Memoriser([1, 9, 9], sigma=0.8, num_levels=100), torch.zeros(1, 1, 9, 9)
    x[0, 0, 2:5, 3] = x[0, 0, 8, 8] = 1
    expected = gaussian_filter(x[0, 0].numpy(), 0.8, mode="constant", radius=3) * 99 + 100 * x[0, 0].numpy()
    found = model._entries(x).view(9, 9).numpy()
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_a_memoriser_does_not_explain_an_image_by_its_copy() -> None:
    model = memoriser()
    x = (model._examples()[:40] >= 5).float()
    example, _ = model._choose(x, torch.rand(40, 30), strangers=True)
    chosen = (model._examples()[example] >= 5).float()
    assert not (chosen == x[:, None]).all(-1).any()
    before = model.log_prob(x.view(-1, 1, 4, 4)).mean()
    for step in range(2):
        model.statistics = model.gather(x.view(-1, 1, 4, 4), generator=Streams(0, range(40), step))
        model.finish(model.statistics)
    assert model.log_prob(x.view(-1, 1, 4, 4)).mean() > before + 0.1


def test_a_memoriser_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    monkeypatch.setattr("zoo.data.files.download_url_to_file", refused)
    with pytest.raises(DownloadError, match=r"train.amat: cannot be downloaded .* put the file at .* ZOO_DATA"):
        Memoriser().sample(1)
