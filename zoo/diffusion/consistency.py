"""Consistency model, which jumps along the paths of a diffusion model (Song et al. 2023).

    f(y; sigma) = c_skip y + c_out F(c_in y; c_noise),    f(y; 0) = y                                            (eq. 5)
    minimise  E[w(sigma) h(f(x + sigma epsilon; sigma) - f(x + r epsilon; r))],    r < sigma, as below           (eq. 9)
    r = sigma max(0, 1 - 2^-k (1 + 8/(1 + e^sigma))),    w = 1/(sigma - r)             (Geng et al. 2024, section 3)

f maps every state on a path of the probability-flow ODE to the data at its end, https://arxiv.org/abs/2303.01469. With
k = 1, r is 0 or far from sigma, and f learns to denoise; as k grows, r approaches sigma and f becomes consistent along
paths. Training begins with the weights of a diffusion model, https://arxiv.org/abs/2406.14548.

Density: none.
Sampling: one to four jumps, one evaluation of the network each, with fresh noise in between.
Differs from the papers: classes, with a part of the labels hidden; k grows evenly; r is at least sigma/1000; small
networks without attention and without the papers' regularisation; Muon with a rate that falls linearly; averaged
weights. The checkpoint begins with the weights of a diffusion model, in several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from torch import Tensor

from zoo import objectives
from zoo.capabilities import Conditional
from zoo.config import Between, Fraction, Size
from zoo.diffusion import preconditioning
from zoo.diffusion.denoiser import NetworkDenoiser, some_hidden
from zoo.diffusion.schedules import LogNormal
from zoo.module import ZooModule
from zoo.random import Streams
from zoo.samplers.consistency import Consistency

Sigma = Annotated[float, Between(1e-6, 1e6)]


class ConsistencyModel(Conditional, NetworkDenoiser):
    """A network that maps noisy states to the ends of their paths; its method for this is `denoise`.

    Args:
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
        label_dropout: Share of training examples whose label is hidden from the network.
        event_shape: (C, H, W) for images in [0, 1], with sides that are multiples of 2^(levels - 1), or (D,) for
            points.
        channels: Widths of the levels of the U-Net from the finest, or of the blocks of the MLP for points.
        sigma_data: Standard deviation of states: of 2 x - 1 for images x, of x for points.
        noise_mean: Mean of ln sigma in training.
        noise_std: Standard deviation of ln sigma in training.
        sigma_min: The noise level towards which jumps go by default.
        sigma_max: Noise level at which samplers begin by default.
        most_halvings: Largest k.
        steps_per_halving: Number of steps of training in which k grows by 1, from 1.
    """

    objective = objectives.Consistency()
    facts: ClassVar = {"generator": "few passes"}
    samplers = (Consistency,)

    def __init__(
        self,
        num_classes: Size = 10,
        label_dropout: Fraction = 0.1,
        event_shape: Sequence[Size] = (1, 28, 28),
        channels: Sequence[Size] = (16, 32, 64),
        sigma_data: Sigma = 0.5,
        noise_mean: Annotated[float, Between(-10, 10)] = -1.1,
        noise_std: Annotated[float, Between(1e-3, 10)] = 2.0,
        sigma_min: Sigma = 0.002,
        sigma_max: Sigma = 80.0,
        most_halvings: Size = 6,
        steps_per_halving: Size = 2500,
    ) -> None:
        super().__init__(preconditioning.EDM(sigma_data), LogNormal(noise_mean, noise_std), event_shape, channels)
        self.save_hyperparameters()
        self.num_classes = num_classes
        self.label_dropout = label_dropout
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.most_halvings, self.steps_per_halving = most_halvings, steps_per_halving
        self.network.condition.add_classes(num_classes)

    def earlier(self, sigma: Tensor) -> Tensor:
        """The noise level r that is compared with sigma at this step of training: [B] -> [B], 0 < r < sigma."""
        k = 1 + self.global_step / self.steps_per_halving
        k = self.most_halvings if self.pretrained else min(k, self.most_halvings)
        return sigma * (1 - 2.0**-k * (1 + 8 * (-sigma).sigmoid())).clamp(min=1e-3)

    def take_weights(self, start: ZooModule) -> list[str]:
        """Takes the weights of a consistency model, or of a diffusion model, with which k begins at 1."""
        self.pretrained = isinstance(start, ConsistencyModel)
        return super().take_weights(start)

    def training_given(self, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        return {"labels": some_hidden(given["labels"], self.label_dropout, self.num_classes, streams)}
