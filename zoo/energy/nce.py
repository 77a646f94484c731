"""Noise-contrastive estimation (Gutmann & Hyvarinen 2010, https://proceedings.mlr.press/v9/gutmann10a.html).

    log p(x) = log q(x) + f(x) - c        q: the noise, a known density; f: a network; c: the logarithm of Z
    loss = -E_data log sigmoid(G(x)) - nu E_q log sigmoid(-G(x)),    G(x) = f(x) - c - log nu

nu is the number of draws of noise for each example. G tells examples from noise. At its best it is the logarithm of the
ratio of their densities, so that c is learned as any other parameter, and p needs no normaliser: energy(x) = -log p(x),
with log Z = 0 up to what training has left.

Density: unnormalised, although near 1; its log Z by annealed importance sampling from q, in two dimensions on a grid.
Sampling: a chain that proposes draws of q and accepts or rejects them.
Differs from the paper: the model is the noise times a network, as the discriminator of a GAN would tilt its generator
(Azadi et al. 2019, https://arxiv.org/abs/1810.06758). The checkpoint of images begins with a trained NADE as its noise.
Adam, or AdamW for images, with a cosine schedule; averaged weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from zoo import objectives
from zoo.autoregressive.made import MADE
from zoo.autoregressive.nade import NADE
from zoo.capabilities import TractableDensity
from zoo.config import Between, Size, bind
from zoo.density.gaussian import Gaussian
from zoo.density.mixture import BernoulliMixture
from zoo.energy.potential import Potential
from zoo.energy.tilted import Tilted, TiltedChain
from zoo.random import Streams
from zoo.samplers.metropolis import Metropolis

NOISE: dict[str, type[TractableDensity]] = {
    "gaussian": Gaussian,
    "mixture": BernoulliMixture,
    "made": MADE,
    "nade": NADE,
}
"""Densities that can be the noise, by name."""


class NCE(Tilted):
    """A known density, the noise, times a network that has learned to tell data from it.

    The noise takes its weights from a trained model, the `start` of a recipe; a Gaussian begins as a standard normal.

    Args:
        event_shape: Shape of one example; values in {0, 1} unless the noise is a Gaussian.
        noise: The noise: "gaussian", "mixture" of Bernoullis, "made" or "nade".
        noise_arguments: Further arguments of the noise's class.
        channels: Width of the network; see `zoo.energy.potential`.
        hidden: Width of its last hidden layer, for images.
        num_noise: nu, the number of draws of noise for each example.
    """

    samplers = (Metropolis,)
    fixed = "it weighs draws of a noise that stays that of its own data; fine-tune a density such as NADE instead"

    def __init__(
        self,
        event_shape: Sequence[Size] = (2,),
        noise: Literal["gaussian", "mixture", "made", "nade"] = "gaussian",
        noise_arguments: Mapping[str, Any] | None = None,
        channels: Size = 128,
        hidden: Size = 128,
        num_noise: Annotated[int, Between(1, 1000)] = 1,
    ) -> None:
        self.objective = objectives.NoiseContrastive(num_noise)
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        kind = NOISE[noise]
        arguments = bind(kind, {**(noise_arguments or {}), "event_shape": list(event_shape)}, "noise_arguments")
        self.reference = kind(**arguments).requires_grad_(False)
        self.levels = self.reference.levels
        self.network = Potential(event_shape, channels, hidden)
        self.log_z = nn.Parameter(torch.zeros(()))  # c

    @property
    def sampler(self) -> Metropolis:
        return Metropolis(steps=100)

    def potential(self, x: Tensor) -> Tensor:
        return self.log_z - self.network(x)

    def draw_noise(self, streams: Streams) -> Tensor:
        """Draws of q, one per stream: [len(streams), *event_shape]."""
        return self.reference.draw(streams)

    def chain(self, temperature: float = 1.0) -> TiltedChain:
        return TiltedChain(self, temperature)
