"""Densities in closed form: what each of them alone has."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from zoo.density.causal_gaussian import CausalGaussian
from zoo.density.gaussian import Gaussian, GaussianDensity


def fitted(model: GaussianDensity, x: Tensor) -> GaussianDensity:
    model.statistics = model.gather(x)
    model.finish()
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
