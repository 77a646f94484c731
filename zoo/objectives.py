"""How models learn: one training step for each objective, none for each model.

A capability names its objective, and `ZooModule` hands Lightning's hooks on to it. An objective holds no state: what a
run must remember (sums of a closed form, chains) lies in the model and in the checkpoints of the run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import softplus

from zoo.batch import Batch, as_batch
from zoo.distributed import gather, share, size
from zoo.errors import ConfigError, DataError
from zoo.mcmc import run
from zoo.nn.precision import widest
from zoo.random import Streams, randn

if TYPE_CHECKING:
    from lightning.pytorch.core.optimizer import LightningOptimizer

Losses = dict[str, Tensor]
HUBER = 0.03  # c of the pseudo-Huber loss (Song & Dhariwal 2023, https://arxiv.org/abs/2310.14189, section 3.3)
BURN_IN = 1000
"""Number of sweeps that bring persistent chains from noise to what a pretrained energy has learned."""


class Objective:
    """Base of all objectives; by default nothing is trained or measured.

    Attributes:
        title: What the model is trained by, as the taxonomy says it.
        judged_by: Name of the validation number that says how good a model is; lower is better. For an energy without
            log Z, it is not among those of `validation_step`.
        automatic: Whether Lightning runs the backward pass and the optimiser.
    """

    title: ClassVar[str] = "nothing"
    judged_by: ClassVar[str] = "nll"
    automatic: ClassVar[bool] = True

    def configure_optimizers(self, model: Any) -> Any:
        """The optimisers of a model and their schedules, as Lightning takes them."""
        optimizer = model.optimization.build(model)
        return model.optimization.scheduled(optimizer, _num_steps(model))

    def training_step(self, model: Any, batch: Batch) -> Losses:
        """Scalars to log, with the one to minimise under `loss` if the objective is automatic."""
        return {}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        """Held-out quantities by name, each [B]."""
        return {}

    def on_train_start(self, model: Any) -> None:
        """Called before the first step of a run, and before the first one after resuming it."""

    def on_validation_start(self, model: Any) -> None:
        """Called before the validation split is passed through the model."""

    def on_before_optimizer_step(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        """Called before a step of an optimiser, when gradients are no longer scaled for half precision."""

    def on_train_epoch_end(self, model: Any) -> None:
        """Called after the last step of an epoch."""

    def on_fit_end(self, model: Any) -> None:
        """Called when training is over."""

    def on_save_checkpoint(self, model: Any, checkpoint: dict[str, Any]) -> None:
        """Adds what the run must remember to its checkpoint."""

    def on_load_checkpoint(self, model: Any, checkpoint: dict[str, Any]) -> None:
        """Takes it back."""


def _num_steps(model: Any) -> float:
    """The number of steps of a run; infinite in a loop without a Trainer, in which learning rates do not fall."""
    return math.inf if model._trainer is None else model.trainer.estimated_stepping_batches


def _check_driven(model: Any) -> None:
    """Raises ConfigError unless a Trainer drives the model, which objectives need that do not only give a loss."""
    if not model.is_driven:
        name = type(model).__name__
        raise ConfigError(
            f"{name}: expected a Trainer that drives it, since it sets its weights itself, found none; pass the {name} "
            "itself to Trainer.fit"
        )


class MaximumLikelihood(Objective):
    """Maximises log p(x)."""

    title = "maximum likelihood"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        streams = model.streams(batch)
        x, log_noise = model.noised(batch.x, streams)
        return {"loss": (log_noise - model.training_log_prob(x, streams, **model.given(batch))).mean()}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        streams = model.streams(batch, training=False)
        x, log_noise = model.noised(batch.x, streams)
        return {"nll": log_noise - model.log_prob(x, **model.given(batch))}


class LowerBound(Objective):
    """Maximises a lower bound of log p(x)."""

    title = "lower bound"
    judged_by = "neg_elbo"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        return {"loss": -model.training_bound(batch.x, model.streams(batch), **model.given(batch)).mean()}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        noise = model.streams(batch, training=False)
        return {"neg_elbo": -model.elbo(batch.x, generator=noise, **model.given(batch))}


class Denoising(Objective):
    """Minimises E[weight(sigma) |denoise(y + sigma epsilon, sigma) - y|^2 / D] over noise and its levels."""

    title = "denoising"
    judged_by = "denoising_loss"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        return {"loss": self._errors(model, batch, model.streams(batch)).mean()}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        return {"denoising_loss": self._errors(model, batch, model.streams(batch, training=False))}

    def _errors(self, model: Any, batch: Batch, streams: Streams) -> Tensor:
        """[B]."""
        y, sigma = model.to_state(batch.x), model.training_sigma(streams)
        epsilon = randn(tuple(y.shape), streams, y.device)
        noisy = y + sigma.view(-1, *[1] * (y.ndim - 1)) * epsilon
        error = model.denoise(noisy, sigma, **model.training_given(streams, **model.given(batch))) - y
        return model.weight(sigma) * error.square().flatten(1).mean(1)


class Consistency(Objective):
    """Minimises E[h(f(y + sigma epsilon; sigma) - f(y + r epsilon; r))/(sigma - r)] with f = denoise, over noise.

    h(d) = sqrt(|d|^2 + c^2) - c with c = 0.03 is the pseudo-Huber loss, and r = `model.earlier`(sigma) < sigma. No
    gradient flows through the second term.
    """

    title = "consistency along paths"
    judged_by = "consistency_loss"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        return {"loss": self._errors(model, batch, model.streams(batch)).mean()}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        return {"consistency_loss": self._errors(model, batch, model.streams(batch, training=False))}

    def _errors(self, model: Any, batch: Batch, streams: Streams) -> Tensor:
        """[B]."""
        y, sigma = model.to_state(batch.x), model.training_sigma(streams)
        epsilon, earlier = randn(tuple(y.shape), streams, y.device), model.earlier(sigma)
        given = model.training_given(streams, **model.given(batch))
        later, target = (y + level.view(-1, *[1] * (y.ndim - 1)) * epsilon for level in (sigma, earlier))
        with torch.no_grad():
            target = model.denoise(target, earlier, **given)
        distance = (model.denoise(later, sigma, **given) - target).square().flatten(1).sum(1)
        return ((distance + HUBER**2).sqrt() - HUBER) / (sigma - earlier)


class Reconstruction(Objective):
    """Minimises the squared error of decoded codes, and beside it fits the prior to the codes by maximum likelihood."""

    title = "reconstruction"
    judged_by = "squared_error"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        z = model.encode(batch.x).mean
        error = (model.decode(z) - batch.x).square().flatten(1).sum(1).mean()
        code_nll = -model.prior().log_prob(z.detach()).mean()
        return {"loss": error + code_nll, "squared_error": error}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        return {"squared_error": model.squared_error(batch.x)}


def _labels(model: Any, batch: Batch) -> Tensor:
    if batch.labels is None:
        raise DataError(f"{type(model).__name__} is a classifier: expected labelled data, found none with labels")
    return batch.labels


class Classification(Objective):
    """Minimises the cross entropy of labels."""

    title = "labels"
    judged_by = "cross_entropy"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        return {"loss": torch.nn.functional.cross_entropy(model(batch.x), _labels(model, batch))}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        logits, labels = model(batch.x), _labels(model, batch)
        cross_entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return {"error_rate": (logits.argmax(-1) != labels).float(), "cross_entropy": cross_entropy}


class SufficientStatistics(Objective):
    """Adds up sufficient statistics over an epoch, from which the model sets its parameters.

    An iterative model ignores the rest of an epoch that is cut short, unless it has not been fitted before. Validation
    measures the density if there is one.
    """

    title = "closed form"
    automatic = False

    def configure_optimizers(self, model: Any) -> Any:
        return torch.optim.SGD([torch.zeros(())], lr=0.0)  # it moves nothing; its steps count the iterations

    def training_step(self, model: Any, batch: Batch) -> Losses:
        _check_driven(model)
        for name, value in model.gather(batch.x, generator=model.streams(batch)).items():
            total = model.trainer.strategy.reduce(value, reduce_op="sum")
            model.statistics[name] = model.statistics[name] + total if name in model.statistics else total
        cast("LightningOptimizer", model.optimizers()).step()
        return {}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        return MaximumLikelihood().validation_step(model, batch)

    def on_train_start(self, model: Any) -> None:
        model.statistics = {} if model.global_step == 0 else self._here(model)

    def on_validation_start(self, model: Any) -> None:
        if model.trainer.is_last_batch:  # part of an epoch has no fit
            self._finish(model)

    def on_train_epoch_end(self, model: Any) -> None:
        if model.iterative:
            self._finish(model)
            model.statistics = {}

    def on_fit_end(self, model: Any) -> None:
        self._finish(model)

    def on_save_checkpoint(self, model: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["statistics"] = model.statistics

    def on_load_checkpoint(self, model: Any, checkpoint: dict[str, Any]) -> None:
        model.statistics = checkpoint["statistics"]

    def _finish(self, model: Any) -> None:
        is_part = model.iterative and not model.trainer.is_last_batch  # of an epoch
        is_fitted = model.pretrained or model.trainer.current_epoch > 0
        if model.statistics and not (is_part and is_fitted):
            model.statistics = self._here(model)
            model.finish(model.statistics)

    def _here(self, model: Any) -> dict[str, Tensor]:
        """The statistics on the model's device; a checkpoint brings them on the CPU."""
        return {name: value.to(model.device) for name, value in model.statistics.items()}


class ContrastiveDivergence(Objective):
    """Follows the gradient of -log p(x) for an energy, with the states of a Markov chain in place of the expectation.

        d(-log p(x)) = dE(x) - E_p[dE]

    Chains of a few sweeps start from the examples of each batch (CD, Hinton 2002,
    https://doi.org/10.1162/089976602760128018), or persist from step to step (PCD, Tieleman 2008,
    https://doi.org/10.1145/1390156.1390290). Each persistent chain has a noise stream of its own, and processes divide
    the chains. No gradient flows through a chain.

    Args:
        steps: Number of sweeps of the chains at each step of training.
        num_chains: Number of persistent chains over all processes; 0 to start from the examples.
        burn_in: Number of sweeps of persistent chains before the first step. With 0, a pretrained model makes `BURN_IN`
            of them; else its first steps would unlearn what it knows.
    """

    title = "contrastive divergence"

    def __init__(self, steps: int = 1, num_chains: int = 100, burn_in: int = 0) -> None:
        self.steps = steps
        self.num_chains = num_chains
        self.burn_in = burn_in

    def training_step(self, model: Any, batch: Batch) -> Losses:
        with torch.autocast(batch.x.device.type, enabled=False):  # rounding would move a chain's distribution
            states = self._negatives(model, batch)
        return {"loss": model.contrast(batch.x, states, model.streams(batch))}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        """The squared error of examples after one sweep, their energy, and how much higher it is than in training.

        The gap between the energies of held-out and training examples, which needs no log Z, grows with overfitting.
        It needs a data module of the zoo.
        """
        streams, chain = model.streams(batch, training=False), model.chain()
        again = chain.visible(run(chain, chain.at(batch.x, streams), streams, 1), streams)
        found = {"squared_error": (again - batch.x).square().flatten(1).sum(1)}
        data: Any = model.trainer.datamodule if model.is_driven else None
        if not hasattr(data, "subset"):  # a loader of the user's own
            return found
        seen = data.subset("train", len(data.split("train")), 0)
        rows = data.rows("train", seen[batch.index.cpu() % len(seen)])
        x = data.convert(rows.x.to(batch.x.device), rows.index, 0)
        energy = model.training_energy(batch.x, streams)
        return {**found, "energy": energy, "energy_gap": energy - model.training_energy(x, streams)}

    def on_train_start(self, model: Any) -> None:
        if model.chains is not None:  # all of them, from a checkpoint of the run
            model.chains = model.chains[share(self.num_chains)].to(model.device)
        else:
            set_base_rates(model)

    def on_save_checkpoint(self, model: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["chains"] = None if model.chains is None else gather(model.chains, self.num_chains)

    def on_load_checkpoint(self, model: Any, checkpoint: dict[str, Any]) -> None:
        model.chains = checkpoint["chains"]

    @torch.no_grad()
    def _negatives(self, model: Any, batch: Batch) -> Tensor:
        """Where the chains are after this step: [*, N]."""
        chain = model.chain()
        if not self.num_chains:
            streams = model.streams(batch)
            return run(chain, chain.at(batch.x, streams), streams, self.steps)
        if self.num_chains % size():
            raise ConfigError(f"num_chains: expected a multiple of the {size()} processes, found {self.num_chains}")
        slots = -1 - share(self.num_chains)  # the noise of examples has keys from 0
        if model.chains is None:
            streams = Streams(model.seed, slots, -1)
            burn_in = self.burn_in or (BURN_IN if model.pretrained else 0)
            model.chains = run(chain, chain.start(streams), streams, burn_in)
        streams = Streams(model.seed, slots, model.global_step)
        model.chains = run(chain, model.chains, streams, self.steps)
        return model.chains


class Enumeration(Objective):
    """Maximises log p(x) of an energy whose log Z is summed over all states."""

    title = "maximum likelihood"

    def training_step(self, model: Any, batch: Batch) -> Losses:
        return {"loss": model.energy(batch.x).mean() + model.exact_log_z()}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        return {"nll": model.energy(batch.x) + model.exact_log_z()}

    def on_train_start(self, model: Any) -> None:
        set_base_rates(model)


class NoiseContrastive(Objective):
    """Tells examples from noise, whose density is known (Gutmann & Hyvarinen 2010).

        loss = E_data softplus(-G(x)) + nu E_q softplus(G(x)),    G(x) = -potential(x) - log nu

    Args:
        num_noise: nu, the number of draws of noise for each example.
    """

    title = "noise contrast"
    judged_by = "contrast"

    def __init__(self, num_noise: int = 1) -> None:
        self.num_noise = num_noise

    def training_step(self, model: Any, batch: Batch) -> Losses:
        loss, num_right = self._losses(model, batch, model.global_step)
        return {"loss": loss.mean(), "accuracy": num_right.mean()}

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        """`nll` holds if log Z = 0, which training aims at."""
        loss, num_right = self._losses(model, batch, -1)
        return {"contrast": loss, "accuracy": num_right, "nll": model.energy(batch.x)}

    def _losses(self, model: Any, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The loss of each example with its own draws of noise, and the share that is told right, [B] each."""
        nu = self.num_noise
        slots = batch.index[:, None].cpu() * nu + torch.arange(nu)
        with torch.no_grad():
            noise = model.draw_noise(Streams(model.seed, slots.flatten(), step))
        score = -model.potential(torch.cat([batch.x, noise])) - math.log(nu)
        of_data, of_noise = score[: len(batch.x)], score[len(batch.x) :].view(-1, nu)
        loss = softplus(-of_data) + softplus(of_noise).sum(1)
        return loss, ((of_data > 0).float() + (of_noise < 0).float().sum(1)) / (1 + nu)


def set_base_rates(model: Any) -> None:
    """Tells an energy the mean of its units over the training examples, before the first step of its first run."""
    if model.global_step or model.pretrained:
        return
    data, total, num = model.trainer.datamodule, torch.zeros(()), 0
    is_own = not hasattr(data, "batches")  # a loader of the user's
    with torch.no_grad():
        for batch in map(as_batch, model.trainer.train_dataloader) if is_own else data.batches("train"):
            units = widest(model.base_units(batch.x.to(model.device)))
            total, num = total + units.sum(0).cpu(), num + len(units)
    model.set_base_rates(((total + 0.5) / (num + 1)).to(model.device))  # no unit is certain


class TwoPlayers(Objective):
    """Updates a critic and a generator in turn; a step is one update of the generator.

    A batch is divided among the updates of the critic, each on examples of its own. Then the generator moves once, by
    the fakes of the last of them.
    """

    title = "two players"
    judged_by = "energy_score"
    automatic = False

    def configure_optimizers(self, model: Any) -> Any:
        settings, num_steps = model.optimization, _num_steps(model)
        generator = settings.build(model.generator)
        critic = settings.build(model.critic, settings.critic_lr)
        return settings.scheduled(generator, num_steps), settings.scheduled(critic, num_steps)

    def training_step(self, model: Any, batch: Batch) -> Losses:
        _check_driven(model)
        if len(batch.x) < model.critic_steps:
            raise ConfigError(
                f"batch_size: expected at least {model.critic_steps} examples a process, one for each step of the "
                f"critic, found {len(batch.x)}"
            )
        generator, critic = model.optimizers()
        for part in batch.divided(model.critic_steps):
            streams, given = model.streams(part), model.given(part)
            real, fake = model.pair(part.x, streams, **given)
            losses = model.critic_loss(real.detach(), fake.detach(), streams, **given)
            critic.zero_grad()
            model.manual_backward(losses["loss"])
            model.trainer.strategy.optimizer_step(critic.optimizer, _nothing)  # critic.step() would count as a step
            torch.clear_autocast_cache()  # it holds the critic's weights from before

        model.critic.requires_grad_(False)
        loss = model.generator_loss(real, fake, streams, **given)
        generator.zero_grad()
        model.manual_backward(loss)
        generator.step()
        model.critic.requires_grad_(True)

        for schedule in model.lr_schedulers() or []:
            schedule.step()
        renamed = {"critic_loss" if name == "loss" else name: value for name, value in losses.items()}
        return {"generator_loss": loss.detach(), **renamed, "diversity": diversity(real.detach(), fake.detach())}

    def on_before_optimizer_step(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        model.optimization.clip(optimizer)

    def validation_step(self, model: Any, batch: Batch) -> Losses:
        fake = model.draw(model.streams(batch, training=False), **model.given(batch))
        return {"energy_score": energy_score(fake, batch.x)}


def _nothing() -> None:
    """The closure of an optimiser's step whose gradients are there already."""


def energy_score(fake: Tensor, real: Tensor) -> Tensor:
    """The energy score of samples at each real example, with Euclidean distances of pixels.

    E|X - y| - 1/2 E|X - X'| for independent samples X, X' of the model is a proper scoring rule: no distribution has a
    lower mean over real examples y than their own (Gneiting & Raftery 2007,
    https://doi.org/10.1198/016214506000001437, section 4.2). It needs no features of a network.

    Args:
        fake: Samples, [M, ...].
        real: Real examples, [B, ...].

    Returns:
        [B]; unbiased if M is at least 2.
    """
    fake, real = fake.flatten(1).float(), real.flatten(1).float()
    exact = "donot_use_mm_for_euclid_dist"  # the faster way finds a distance of an example from itself
    among = torch.cdist(fake, fake, compute_mode=exact).sum() / max(1, len(fake) * (len(fake) - 1))
    return torch.cdist(real, fake, compute_mode=exact).mean(1) - among / 2


def diversity(real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared distance of two fakes over that of two reals.

    About 1 if fakes vary as much as reals, and 0 if all fakes are the same. The mean squared distance of two
    independent draws is twice the sum of the variances of the dimensions.

    Args:
        real, fake: [B, ...].

    Returns:
        A scalar.
    """
    of_real, of_fake = (x.flatten(1).float().var(0, unbiased=False).sum() for x in (real, fake))
    return of_fake / of_real.clamp(min=1e-12)
