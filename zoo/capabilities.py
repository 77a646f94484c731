"""What a model can do, as types: the whole interface of the zoo.

A model inherits the capabilities that it has and no others; it has no method for what it cannot do. A capability says
what its methods promise, which objective trains it (`zoo.objectives`), and a few facts that the taxonomy, the tables
and the model cards read. A later base in a class's list gives way to an earlier one.

Log-likelihoods are in nats, per example, of the data as given: pixels in {0, 1} for binary data, {0, ..., 255}/255 for
8-bit images. `log_prob` and `elbo` are better if higher; `loss`, `nll` and `energy` are better if lower.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from zoo import objectives
from zoo.batch import Batch
from zoo.errors import DataError
from zoo.given import Given, Labels, check_given, check_labels, check_mask, rows_of
from zoo.module import Classifier as Classifier
from zoo.module import GenerativeModel, Sampled, batches_of
from zoo.module import ZooModule as ZooModule
from zoo.random import Source, Streams, rand, randn
from zoo.samplers import DDIM, Ancestral, DPMSolver, Euler, Heun
from zoo.samplers.base import Sampler
from zoo.unnormalized import Filtered as Filtered
from zoo.unnormalized import Unnormalized as Unnormalized
from zoo.unnormalized import UnnormalizedBound as UnnormalizedBound
from zoo.unnormalized import UnnormalizedDensity as UnnormalizedDensity


class TractableDensity(GenerativeModel):
    """An exact density, trained by maximum likelihood. `levels` is None for a density of real numbers."""

    objective: objectives.Objective = objectives.MaximumLikelihood()
    facts: ClassVar = {"density": "exact"}
    usage: ClassVar = {"log_prob": "log_prob = model.log_prob(x{labels})  # [8], nats, exact"}

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), exact, in nats: [B, *event_shape] -> [B].

        x has the values that `levels` tells; see `zoo.checks`.

        Raises:
            DataError: x has another shape or other values.
        """

    def training_log_prob(self, x: Tensor, streams: Streams) -> Tensor:
        """What training maximises, [B]: `log_prob`, unless a model learns from its parts in turn or altered data."""
        return self.log_prob(x)

    def noised(self, x: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        """x as training and validation pass it on, and the log-density of its noise, [B], which counts against it.

        x stays as it is, unless the density is `Dequantized`.
        """
        return x, torch.zeros(len(x), device=x.device)


class KnownEntropy(TractableDensity):
    """A density whose entropy is known; the mean of -log_prob of its own samples tends to it."""

    @abstractmethod
    def entropy(self) -> float:
        """-E[log p(x)], exact, in nats."""


class Dequantized(TractableDensity):
    """An exact density of continuous data, to which 8-bit images come by dequantisation.

    `log_prob` takes any real x. For x in {0, ..., 255}/255, E_q[log_prob((255 x + u)/256) - log q(u | x)] - D log 256
    is a lower bound of the log-probability of the 8-bit image, for any density q on [0, 1)^D. It is uniform (Theis et
    al. 2016, https://arxiv.org/abs/1511.01844, section 3.1) unless a model says otherwise, as flows can: see
    `zoo.flows.dequantizer`. `levels` is the number of grey levels to dequantise.
    """

    facts: ClassVar = {"density": "exact, of dequantised data"}
    real = ("log_prob",)
    usage: ClassVar = {
        "log_prob": "log_prob = model.log_prob(model.dequantize(x){labels})  # [8], nats, of the dequantised pixels"
    }

    def cell_noise(self, x: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        """Draws u in [0, 1)^D, with the shape of x; also returns log q(u | x), [B]."""
        return rand(tuple(x.shape), generator, x.device), torch.zeros(len(x), device=x.device)

    def noised(self, x: Tensor, generator: Source) -> tuple[Tensor, Tensor]:
        if self.levels is None:
            return super().noised(x, generator)
        u, log_density = self.cell_noise(x, generator)
        y = (x * (self.levels - 1) + u) / self.levels
        return y.clamp(max=1 - 2.0**-24), log_density  # the sum can round up to the next level

    def dequantize(self, x: Tensor, *, generator: Source = None) -> Tensor:
        """x in {0, ..., L - 1}/(L - 1) -> (x (L - 1) + u)/L in [0, 1), with L levels; x itself if levels is None."""
        return self.noised(x, generator)[0]

    def quantize(self, y: Tensor) -> Tensor:
        """The inverse of `dequantize`, which forgets the noise: any y to the nearest level below, in [0, 1]."""
        if self.levels is None:
            return y
        return (y * self.levels).floor().clamp(0, self.levels - 1) / (self.levels - 1)


class EvidenceLowerBound(GenerativeModel):
    """A lower bound of the log-likelihood, maximised."""

    objective: objectives.Objective = objectives.LowerBound()
    facts: ClassVar = {"density": "lower bound"}
    usage: ClassVar = {"elbo": "elbo = model.elbo(x{labels})  # [8], nats, a lower bound of log p(x)"}

    @abstractmethod
    def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
        """An unbiased estimate of the evidence lower bound, E[elbo] <= log p(x), in nats: [B, *event_shape] -> [B]."""

    def training_bound(self, x: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        """What training maximises, [B]: `elbo`, unless a model learns from another bound, or warms up."""
        return self.elbo(x, generator=streams, **given)


class ImportanceWeighted(EvidenceLowerBound):
    """A bound that importance samples tighten (Burda et al. 2016, https://arxiv.org/abs/1509.00519).

    Attributes:
        latent_shape: Shape of the standard normal noise from which z is made.
    """

    facts: ClassVar = {"density": "lower bound, tightens with samples"}
    latent_shape: tuple[int, ...]

    @abstractmethod
    def log_weights_at(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x) at the z that q makes of noise, in nats.

        x [B, *event_shape], epsilon [k, B, *latent_shape] -> [k, B].
        """

    def log_weights(self, x: Tensor, num_samples: int, *, generator: Source = None, **given: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x) at independent z from q, in nats: [B, *event_shape] -> [num_samples, B].

        logsumexp over the first dimension minus log num_samples is the importance-weighted bound. Its expectation
        does not decrease with num_samples and tends to log p(x).
        """
        epsilon = randn((len(x), num_samples, *self.latent_shape), generator, x.device)  # drawn example by example
        return self.log_weights_at(x, epsilon.transpose(0, 1), **given)


class Denoiser(Sampled):
    """Removes Gaussian noise of any scale; a sampler draws by removing it step by step.

    Its states are y = `to_state`(x), data in the units in which the model works. A noisy state is y + sigma epsilon
    with epsilon ~ N(0, I): every noise schedule is a sequence of sigmas, after a change of scale.

    Attributes:
        sigma_min, sigma_max: The range of sigmas that samplers use by default, in units of states.
    """

    objective: objectives.Objective = objectives.Denoising()
    facts: ClassVar = {"latents": "high-dimensional", "generator": "steps of a sampler"}
    usage: ClassVar = {
        "denoise": "clean = model.denoise(model.to_state(x), torch.full((8,), 0.5){labels})  # E[y | y + 0.5 epsilon]"
    }
    samplers: tuple[type[Sampler], ...] = (Ancestral, DDIM, DPMSolver, Euler, Heun)
    sigma_min: float
    sigma_max: float

    @abstractmethod
    def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """E[state | state + sigma epsilon = y]: [B, *event_shape], [B] -> [B, *event_shape].

        Without labels, a conditional denoiser removes noise from examples of any class.
        """

    @abstractmethod
    def training_sigma(self, streams: Streams) -> Tensor:
        """Draws the noise level of each training example: [len(streams)]."""

    @abstractmethod
    def weight(self, sigma: Tensor) -> Tensor:
        """The weight of the squared error at a noise level in training: [B] -> [B]."""

    def training_given(self, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        """What `denoise` is given in training: everything, unless the model hides a part of it."""
        return given

    @abstractmethod
    def to_state(self, x: Tensor) -> Tensor:
        """Data to states: [B, *event_shape] -> the same."""

    @abstractmethod
    def from_state(self, y: Tensor) -> Tensor:
        """States to data, images clamped to [0, 1]: [B, *event_shape] -> the same."""


class ClosedForm(GenerativeModel):
    """Fitted from sufficient statistics, with no gradient and no optimiser, by the same Trainer.

    Attributes:
        statistics: Sums over the examples seen so far; kept in the checkpoints of a run, not among the weights.
        iterative: Whether they depend on the previous fit, as in expectation maximisation. Each epoch then starts
            anew. Otherwise further epochs, with other noise, add to them.
        regularizer: Name of the constructor argument that keeps a fit to few examples smooth, larger values more so, or
            None if there is no such argument. It does not change the shapes of the parameters.
    """

    objective: objectives.Objective = objectives.SufficientStatistics()
    statistics: dict[str, Tensor]
    iterative = False
    regularizer: ClassVar[str | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.statistics = {}

    @abstractmethod
    def gather(self, x: Tensor, *, generator: Source = None) -> dict[str, Tensor]:
        """Sufficient statistics of x [B, *event_shape], as sums over the batch."""

    @abstractmethod
    def finish(self, statistics: dict[str, Tensor]) -> None:
        """Sets the parameters to their maximum-likelihood values given sums over all examples."""


class Adversarial(GenerativeModel):
    """A generator trained against a critic by alternating updates; the model is the generator.

    Attributes:
        generator: The network that is the model.
        critic: The network that it is trained against.
        critic_steps: Number of updates of the critic for each update of the generator.
    """

    objective: objectives.Objective = objectives.TwoPlayers()
    generator: nn.Module
    critic: nn.Module
    critic_steps: int = 1

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        """What the critic minimises, under `loss`, and other scalars to log; real, fake: [B, ...], no gradients."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        """What the generator minimises, a scalar; real, fake: [B, ...], with the gradients that `pair` gives them."""

    def pair(self, x: Tensor, streams: Streams, **given: Tensor) -> tuple[Tensor, Tensor]:
        """Real and fake examples as the critic sees them, [B, ...]; what carries a gradient trains the generator."""
        return x, self.draw(streams, **given)


class Encoder(GenerativeModel):
    """Maps data to a distribution over codes."""

    facts: ClassVar = {"latents": "code"}
    latent_shape: tuple[int, ...]

    @abstractmethod
    def encode(self, x: Tensor) -> Distribution:
        """The distribution q(z | x), batch shape [B], event shape `latent_shape`."""


class Decoder(GenerativeModel):
    """Maps codes to data."""

    facts: ClassVar = {"latents": "code"}
    usage: ClassVar = {"decode": "images = model.decode(model.prior().sample((8,)){labels})  # [8, *event_shape]"}
    latent_shape: tuple[int, ...]

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The data that z stands for, E[x | z]: [B, *latent_shape] -> [B, *event_shape], images in [0, 1]."""

    @abstractmethod
    def prior(self) -> Distribution:
        """The distribution of codes p(z), event shape `latent_shape`."""


class Reconstructive(Encoder, Decoder):
    """Codes from which images come back with little squared error. `prior` is fitted to the codes as they are."""

    objective: objectives.Objective = objectives.Reconstruction()

    def squared_error(self, x: Tensor) -> Tensor:
        """The sum over pixels of (decode(code of x) - x)^2: [B, *event_shape] -> [B]."""
        return (self.decode(self.encode(x).mean) - x).square().flatten(1).sum(1)


class Bijection(GenerativeModel):
    """An invertible map between data and codes of the same dimension."""

    facts: ClassVar = {"latents": "high-dimensional"}
    latent_shape: tuple[int, ...]

    @abstractmethod
    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z and ladj = log |det dz/dx|: [B, *event_shape] -> ([B, *latent_shape], [B])."""

    @abstractmethod
    def from_latent(self, z: Tensor) -> Tensor:
        """The x with to_latent(x)[0] = z: [B, *latent_shape] -> [B, *event_shape]."""


class Completable(GenerativeModel):
    """Fills in unknown pixels by the model's own conditional distribution."""

    facts: ClassVar = {"completes": "yes"}

    @abstractmethod
    def fill(self, x: Tensor, known: Tensor, streams: Streams) -> Tensor:
        """Draws the unknown pixels of x, where `known`, bool, is False; both [B, *event_shape], one stream each.

        A `Conditional` model also takes `labels`; without them, it draws from p(x_unknown | x_known) of all classes.
        x is 0 in the unknown pixels, and the values that are returned at known ones do not matter.
        """

    def check_known(self, known: Tensor) -> None:
        """Raises ConfigError if the model cannot condition on the known pixels, bool [B, *event_shape]."""

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        generator: torch.Generator | None = None,
        labels: Labels = None,
        batch_size: int = 250,
    ) -> Tensor:
        """Draws from p(x_unknown | x_known), exactly unless the model's own docstring says otherwise.

        Args:
            x: Images, [B, *event_shape]; unknown pixels may have any value.
            mask: bool, [*event_shape] or [B, *event_shape], True where a pixel is known and stays.
            generator: Source of the seed of all noise.
            labels: Classes of the images, one for all or one for each, if the model is `Conditional`; by default, the
                unknown pixels may be those of any class that fits the known ones.
            batch_size: Number of images completed at once; bounds the memory.

        Raises:
            ConfigError: The model cannot condition on this mask, or takes no labels, or not these.
            DataError: x has another shape than examples of the model, or the known pixels are impossible.
        """
        x, known = check_mask(self, x, mask)
        self.check_known(known)
        given = check_given(self, {"labels": labels}, len(x))
        batches = batches_of(torch.arange(len(x)), generator, batch_size)
        filled = [
            self.fill(x[rows], known[rows], streams, **rows_of(given, rows, self.device)) for streams, rows in batches
        ]
        return torch.where(known, x, torch.cat(filled)) if filled else x


class Autoregressive(GenerativeModel):
    """Draws one value after another, and says what it expects of each, given those drawn before it."""

    facts: ClassVar = {"generator": "one pass a value"}

    @abstractmethod
    def expected(self, x: Tensor, order: Tensor | None = None) -> Tensor:
        """E[x_d | the values before it] of every value, exact; for binary x, p(x_d = 1 | the values before it).

        x and the result are [B, *event_shape]. `order` is that of each image, as the method of this name gives it; by
        default it is the first, which most models have alone.
        """

    def order(self, streams: Streams) -> Tensor:
        """The order in which `draw` draws with this noise: rows from the top, unless a model says otherwise.

        The result is [len(streams), D], int64: places in a flattened example.
        """
        return torch.arange(math.prod(self.event_shape), device=self.device).expand(len(streams), -1)


class Conditional(GenerativeModel):
    """Models p(x | label): `log_prob`, `elbo`, `draw`, `encode`, `decode` and their like take `labels`, [B], int64.

    It stands before the capabilities that it conditions in a class's list of bases.

    Attributes:
        num_classes: Number of classes; labels lie in {0, ..., num_classes - 1}.
    """

    facts: ClassVar = {"labels": "yes"}
    arguments: ClassVar = {"labels": check_labels}
    num_classes: int

    def defaults(self, streams: Streams) -> Given:
        """Each class is as likely as any other."""
        labels = (rand((len(streams), 1), streams, self.device)[:, 0] * self.num_classes).long()
        return {**super().defaults(streams), "labels": labels}

    def given(self, batch: Batch) -> dict[str, Tensor]:
        if batch.labels is None:
            raise DataError(f"{type(self).__name__} is conditional: expected labelled data, found none with labels")
        return {"labels": batch.labels}


class InfersLabels(Conditional):
    """Also infers the label of an example: q(label | x), learned along with p(x | label)."""

    usage: ClassVar = {"label_logits": "logits = model.label_logits(x)  # [8, num_classes], log q(label | x)"}

    @abstractmethod
    def label_logits(self, x: Tensor) -> Tensor:
        """log q(label | x), up to a constant: [B, *event_shape] -> [B, num_classes]."""
