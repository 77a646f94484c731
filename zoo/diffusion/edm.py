"""EDM, a denoiser preconditioned for every noise level (Karras et al. 2022, https://arxiv.org/abs/2206.00364).

    D(y; sigma) = c_skip y + c_out F(c_in y; c_noise),    tends to E[x | x + sigma epsilon = y]                  (eq. 7)
    minimise  E[1/c_out(sigma)^2 |D(x + sigma epsilon; sigma) - x|^2],    ln sigma ~ N(P_mean, P_std^2)          (eq. 8)
    dy/dsigma = (y - D(y; sigma))/sigma    leads from N(0, sigma_max^2) to the data                              (eq. 1)

Density: lower bound, of 8-bit images or of points; one evaluation for an unbiased estimate. The probability-flow ODE
estimates the density itself: see `zoo.diffusion.likelihood`.
Sampling: steps of a sampler, one to two evaluations of the network in each.
Differs from the paper: small networks without attention, which normalise each pixel over its channels, not in groups;
c_noise enters through frequencies from 1 to 100, a quarter as many as the largest width; no augmentation and no
dropout; Muon with a rate that falls linearly, for some checkpoints after a warm-up; averaged weights. Some checkpoints
continue from the weights of an earlier run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from zoo.capabilities import Conditional
from zoo.config import Between, Fraction, Size
from zoo.diffusion import preconditioning
from zoo.diffusion.denoiser import DiffusionModel, some_hidden
from zoo.diffusion.schedules import LogNormal
from zoo.random import Streams

Sigma = Annotated[float, Between(1e-6, 1e6)]


class EDM(DiffusionModel):
    """A preconditioned network.

    Args:
        event_shape: (C, H, W) for images in [0, 1], with sides that are multiples of 2^(levels - 1), or (D,) for
            points.
        channels: Widths of the levels of the U-Net from the finest, or of the blocks of the MLP for points.
        sigma_data: Standard deviation of states: of 2 x - 1 for images x, of x for points.
        noise_mean: Mean of ln sigma in training.
        noise_std: Standard deviation of ln sigma in training.
        sigma_min: Noise level at which samplers stop by default, before the step to 0.
        sigma_max: Noise level at which samplers begin by default.
        sigma_bound: Lowest noise level of the variational bound.
    """

    def __init__(
        self,
        event_shape: Sequence[Size] = (1, 28, 28),
        channels: Sequence[Size] = (16, 32, 64),
        sigma_data: Sigma = 0.5,
        noise_mean: Annotated[float, Between(-10, 10)] = -1.2,
        noise_std: Annotated[float, Between(1e-3, 10)] = 1.2,
        sigma_min: Sigma = 0.002,
        sigma_max: Sigma = 80.0,
        sigma_bound: Sigma = 0.002,
    ) -> None:
        super().__init__(preconditioning.EDM(sigma_data), LogNormal(noise_mean, noise_std), event_shape, channels)
        self.save_hyperparameters()
        self.sigma_min, self.sigma_max, self.sigma_bound = sigma_min, sigma_max, sigma_bound


class ConditionalEDM(Conditional, EDM):
    """An EDM whose network is given the labels of most training examples, and no label for the others.

    It is an unconditional model too: call `denoise` without labels, or use a sampler with guidance 0. Classifier-free
    guidance (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598) is an argument of samplers.

    Args:
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        label_dropout: Share of training examples whose label is hidden from the network.
        event_shape, channels, sigma_data, noise_mean, noise_std, sigma_min, sigma_max, sigma_bound: See `EDM`.
    """

    def __init__(
        self,
        num_classes: Size = 10,
        label_dropout: Fraction = 0.2,
        event_shape: Sequence[Size] = (1, 28, 28),
        channels: Sequence[Size] = (16, 32, 64),
        sigma_data: Sigma = 0.5,
        noise_mean: Annotated[float, Between(-10, 10)] = -1.2,
        noise_std: Annotated[float, Between(1e-3, 10)] = 1.2,
        sigma_min: Sigma = 0.002,
        sigma_max: Sigma = 80.0,
        sigma_bound: Sigma = 0.002,
    ) -> None:
        super().__init__(event_shape, channels, sigma_data, noise_mean, noise_std, sigma_min, sigma_max, sigma_bound)
        self.save_hyperparameters()
        self.num_classes = num_classes
        self.label_dropout = label_dropout
        self.network.condition.add_classes(num_classes)

    def training_given(self, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        return {"labels": some_hidden(given["labels"], self.label_dropout, self.num_classes, streams)}
