"""Denoisers and their samplers against mixtures of Gaussians, for which everything is known in closed form."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from zoo import denoising
from zoo.batch import Batch
from zoo.capabilities import Conditional, Denoiser
from zoo.density import Gaussian
from zoo.diffusion import EDM, ConditionalEDM, ConsistencyModel
from zoo.diffusion import preconditioning as choices
from zoo.diffusion.denoiser import NetworkDenoiser
from zoo.diffusion.likelihood import FlowSettings, flow_log_prob, noise_of, variational_bound
from zoo.diffusion.schedules import LogNormal, Schedule, UniformTime
from zoo.errors import ConfigError, DataError
from zoo.objectives import Denoising
from zoo.random import Streams, randn
from zoo.samplers import DDIM, Ancestral, DPMSolver, Euler, Heun, named
from zoo.samplers.base import Sampler
from zoo.samplers.denoising import DenoisingSampler, Walk

ODE_SAMPLERS: list[tuple[type[DenoisingSampler], int]] = [(Euler, 1), (DDIM, 1), (Heun, 2), (DPMSolver, 2)]
SAMPLERS: list[DenoisingSampler] = [Ancestral(), DDIM(eta=0.5), DDIM(), DPMSolver(), Euler(), Heun()]
LOC = torch.tensor([[1.0, 0.5], [-1.0, 1.0], [0.0, -1.5]])
SCALE = torch.tensor([0.2, 0.4, 0.3])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


class Mixture(Conditional, Denoiser):
    """A mixture of isotropic Gaussians in the plane; the label of a point is its component."""

    event_shape = (2,)
    num_classes = 3
    sigma_min, sigma_max = 0.002, 80.0

    @property
    def sampler(self) -> Sampler:
        return Heun()

    def training_sigma(self, streams: Streams) -> Tensor:
        return torch.full((len(streams),), 0.7)

    def weight(self, sigma: Tensor) -> Tensor:
        return 3 * sigma

    def to_state(self, x: Tensor) -> Tensor:
        return x

    def from_state(self, y: Tensor) -> Tensor:
        return y

    def law(self, sigma: float = 0.0) -> MixtureSameFamily:
        """The distribution of noisy states."""
        scale = (SCALE**2 + sigma**2).sqrt()[:, None].expand(3, 2)
        return MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(LOC, scale), 1))

    def denoise(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        variance = SCALE**2 + sigma[:, None] ** 2  # [B, 3]
        apart = y[:, None] - LOC  # [B, 3, 2]
        means = LOC + apart * (SCALE**2 / variance)[..., None]
        if labels is not None:
            return means[torch.arange(len(y)), labels]
        logits = WEIGHTS.log() - apart.square().sum(2) / (2 * variance) - variance.log()
        return (logits.softmax(1)[..., None] * means).sum(1)


class Wide(Mixture):
    """At its largest noise level, N(0, sigma_max^2 I) is the law of noisy states."""

    sigma_max = 5000.0


class Line(Denoiser):
    """N(0, scale^2) on the line, in which every denoiser and sampler is linear."""

    event_shape = (1,)
    sigma_min, sigma_max = 0.002, 80.0
    scale = 0.7

    sampler = training_sigma = weight = from_state = None  # type: ignore[assignment]

    def to_state(self, x: Tensor) -> Tensor:
        return 2 * x + 1

    def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
        return (self.scale**2 / (self.scale**2 + sigma**2))[:, None] * y


def _walk(sampler: DenoisingSampler, num: int = 500) -> Tensor:
    """What a sampler of the unconditional mixture draws with fixed noise, in float64 where it matters."""
    return sampler(Mixture(), Streams(0, torch.arange(num)))


# ---------------------------------------------------------------------------------------------------------- samplers


@pytest.mark.parametrize(("kind", "order"), ODE_SAMPLERS)
def test_ode_samplers_converge_at_their_order(kind: type[DenoisingSampler], order: int) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        exact = _walk(Heun(steps=3000, sigma_min=0.01))
        few, many = ((_walk(kind(steps=n, sigma_min=0.01)) - exact).abs().mean() for n in (100, 200))
    finally:
        torch.set_default_dtype(torch.float32)
    assert math.log2(few / many) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("sampler", [Ancestral, lambda **a: DDIM(eta=0.5, **a)], ids=["ancestral", "ddim-0.5"])
def test_the_variance_that_stochastic_samplers_draw_converges_at_order_one(sampler: Any) -> None:
    def variance(steps: int) -> float:
        chosen, model = sampler(steps=steps, sigma_min=0.01), Line()
        grid = chosen.grid(model)
        found = grid[0] ** 2

        class Ones(Walk):
            def noise(self, y: Tensor) -> Tensor:
                return torch.ones_like(y)

        walk = Ones(model, Streams(0, [0]), 1.0, {})
        for sigma, to in pairwise(grid):
            zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
            fresh = chosen.step(zero, walk.denoise(zero, sigma), sigma, to, walk)
            slope = chosen.step(one, walk.denoise(one, sigma), sigma, to, walk) - fresh
            found = float(slope) ** 2 * found + float(fresh) ** 2
        return found

    errors = [abs(variance(steps) - Line.scale**2) for steps in (100, 200, 400)]
    for few, many in pairwise(errors):
        assert math.log2(few / many) == pytest.approx(1, abs=0.25)


def _energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased."""
    within = sum(torch.cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y))
    return float(2 * torch.cdist(x, y).mean() - within)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__ + str(getattr(s, "eta", "")))
def test_samples_of_many_steps_follow_the_mixture(sampler: DenoisingSampler) -> None:
    torch.manual_seed(0)
    truth, other = Mixture().law().sample((2000,)), Mixture().law().sample((2000,))
    spread = abs(_energy_distance(other, truth))
    many = _walk(type(sampler)(**{**sampler.__dict__, "steps": 200}), 2000)
    few = _walk(type(sampler)(**{**sampler.__dict__, "steps": 3}), 2000)
    assert _energy_distance(many, truth) < 0.002 + 2 * spread < _energy_distance(few, truth)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__ + str(getattr(s, "eta", "")))
def test_equal_noise_gives_equal_samples_whatever_the_batch_size(sampler: DenoisingSampler) -> None:
    for model in (Mixture(), _tiny()):
        seeded = [torch.Generator().manual_seed(3) for _ in range(2)]
        whole = model.sample(7, sampler=sampler, generator=seeded[0])
        torch.testing.assert_close(model.sample(7, sampler=sampler, generator=seeded[1], batch_size=2), whole)


def test_ddim_lies_between_euler_and_ancestral() -> None:
    torch.testing.assert_close(_walk(DDIM(steps=10)), _walk(Euler(steps=10)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(_walk(DDIM(steps=10, eta=1.0)), _walk(Ancestral(steps=10)), rtol=1e-4, atol=1e-5)


def test_ancestral_steps_draw_from_the_posterior_of_ddpm() -> None:
    """Equations 6 and 7 of Ho et al. 2020, in which x_t = sqrt(abar_t) y_t."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)
    sigmas = ((1 - abar) / abar).sqrt()
    t, x0 = 400, torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    x_t = torch.tensor([[0.1, 0.4]], dtype=torch.float64)
    mean = abar[t - 1].sqrt() * betas[t] / (1 - abar[t]) * x0
    mean = mean + (1 - betas[t]).sqrt() * (1 - abar[t - 1]) / (1 - abar[t]) * x_t
    variance = (1 - abar[t - 1]) / (1 - abar[t]) * betas[t]
    walk = Walk(Mixture(), Streams(0, [0]), 1.0, {})
    epsilon = randn((1, 2), Streams(0, [0])).double()
    found = Ancestral().step(x_t / abar[t].sqrt(), x0, float(sigmas[t]), float(sigmas[t - 1]), walk)
    torch.testing.assert_close(abar[t - 1].sqrt() * found, mean + variance.sqrt() * epsilon, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__ + str(getattr(s, "eta", "")))
@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
def test_network_evaluations_are_counted(sampler: DenoisingSampler, guidance: float) -> None:
    class Counting(Mixture):
        count = 0

        def denoise(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
            self.count += 1
            return super().denoise(y, sigma, labels)

    model, sampler = Counting(), type(sampler)(**{**sampler.__dict__, "steps": 6, "guidance": guidance})
    model.sample(2, sampler=sampler, labels=1)
    assert model.count == sampler.evaluations


# --------------------------------------------------------------------------------------------- editing, completing


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_edits_are_draws_given_the_noisy_example(strength: float) -> None:
    """E[edit] = E[D(x + sigma epsilon; sigma)], sigma being the noise level from which the steps begin."""
    model, sampler, streams = Mixture(), Ancestral(steps=100), Streams(0, torch.arange(4000))
    x = torch.tensor([[0.6, 0.1]]).expand(4000, 2)
    edited = sampler.edit(model, x, strength, streams)
    if strength == 0:
        assert edited is x
        return
    sigma = sampler.grid(model)[100 - round(100 * strength)]
    noisy = x + sigma * randn((4000, 2), Streams(1, torch.arange(4000)), torch.device("cpu"))
    expected = model.denoise(noisy, torch.full((4000,), sigma))
    error = edited.std(0) / 4000**0.5
    assert ((edited.mean(0) - expected.mean(0)).abs() < 5 * error + 0.02).all()
    if strength == 1:
        assert torch.equal(sampler(model, Streams(0, torch.arange(9))).isfinite(), torch.ones(9, 2).bool())
        truth = Mixture().law().sample((2000,))
        assert abs(_energy_distance(edited[:2000], truth)) < 0.02


def test_completions_tend_to_the_conditional_of_the_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """They only tend to it: of the component with 50 % of all points and 95 % of those with this first number."""
    x, known = torch.tensor([[0.7, 0.0]]).expand(4000, 2), torch.tensor([[True, False]]).expand(4000, 2)
    shares = []
    for repeats in (1, 5):
        monkeypatch.setattr("zoo.samplers.denoising.REPEATS", repeats)
        filled = Ancestral(steps=50).fill(Mixture(), x, known, Streams(0, torch.arange(4000)))
        assert (filled[:, 0] == x[:, 0]).all()
        nearest = (filled[:, 1:] - LOC[:, 1]).abs().argmin(1)
        shares.append(float((nearest == 0).float().mean()))
    assert 0.7 < shares[0] < shares[1] - 0.03 and shares[1] < 0.95


def test_watching_draws_what_sample_draws() -> None:
    model, source = Mixture(), lambda: torch.Generator().manual_seed(3)
    x, moments = denoising.watch(model, 5, labels=1, sampler=Heun(steps=4), generator=source())
    assert torch.equal(x, model.sample(5, labels=1, sampler=Heun(steps=4), generator=source()))
    assert len(moments) == 7 and moments[0].sigma == pytest.approx(80.0)
    torch.testing.assert_close(x, moments[-1].denoised)  # the last step goes to what is expected


def test_edits_refuse_what_they_cannot_use() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ConfigError, match=r"edit: expected a strength from 0 to 1, found 1\.5"):
        denoising.edit(Mixture(), x, 1.5)
    with pytest.raises(ConfigError, match="edit: expected a Denoiser"):
        denoising.edit(Gaussian([2]), x, 0.5)
    with pytest.raises(DataError, match="edit: expected examples of shape"):
        denoising.edit(Mixture(), torch.zeros(3, 4), 0.5)
    with pytest.raises(ConfigError, match="labels: expected classes from 0 to 2"):
        denoising.edit(Mixture(), x, 0.5, labels=7)
    assert denoising.edit(Mixture(), x[:0], 0.5).shape == (0, 2)


# ----------------------------------------------------------------------------------------------------------- guidance


def test_guidance_0_ignores_the_label_and_1_is_the_conditional_model() -> None:
    model, streams = Mixture(), lambda: Streams(0, torch.arange(50))
    labels = torch.arange(50) % 3
    for kind in (Heun, DPMSolver):
        free = kind(guidance=0.0)(model, streams(), labels=labels)
        torch.testing.assert_close(free, kind()(model, streams()))
        told = kind(guidance=1.0)(model, streams(), labels=labels)
        single = Walk(model, streams(), 1.0, {"labels": labels}).denoise(told, 0.5)
        torch.testing.assert_close(single, model.denoise(told, torch.full((50,), 0.5), labels))
        strong = Walk(model, streams(), 2.5, {"labels": labels}).denoise(told, 0.5)
        plain = model.denoise(told, torch.full((50,), 0.5))
        torch.testing.assert_close(strong, plain + 2.5 * (single - plain))


def test_the_grid_is_that_of_the_paper() -> None:
    grid = Heun(steps=5, rho=3.0, sigma_min=0.1, sigma_max=10.0).grid(Mixture())
    expected = [(10 ** (1 / 3) + i / 4 * (0.1 ** (1 / 3) - 10 ** (1 / 3))) ** 3 for i in range(5)]
    assert grid == pytest.approx([*expected, 0.0])
    assert Euler(steps=1).grid(Mixture()) == pytest.approx([80.0, 0.0])


def test_samplers_are_values_with_checked_arguments() -> None:
    assert named("ddim", steps=20) == DDIM(steps=20)
    assert named("dpmsolver").to_dict() == {"sampler": "DPMSolver", **DPMSolver().__dict__}
    with pytest.raises(ConfigError, match="no sampler 'dim'; did you mean 'ddim'"):
        named("dim")
    with pytest.raises(ConfigError, match="unknown key 'eta'"):
        named("heun", eta=1.0)
    with pytest.raises(ConfigError, match="steps must be int between 1"):
        Heun(steps=0)
    with pytest.raises(ConfigError, match="eta must be float between 0 and 1, found"):
        named("ddim", eta=1.5)
    with pytest.raises(ConfigError, match="sigma_min below sigma_max, found 90"):
        Mixture().sample(1, sampler=Heun(sigma_min=90.0))


def test_the_euler_sampler_of_diffusers_follows_the_same_path() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    scheduler.set_timesteps(12)
    start = randn((20, 2), Streams(0, torch.arange(20)))
    precondition = choices.EDM(0.5)
    y = 80.0 * start
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        scheduler.scale_model_input(y, t)
        c = precondition(sigma.view(1))
        output = (Mixture().denoise(y, sigma.expand(20)) - c.skip * y) / c.out
        y = scheduler.step(output, t, y).prev_sample
    torch.testing.assert_close(_walk(Euler(steps=12), 20), y, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- likelihoods


def test_the_density_by_the_ode_is_that_of_the_mixture() -> None:
    x = Mixture().law().sample((50,))
    exact = Mixture().law(Mixture.sigma_min).log_prob(x).double()
    errors = [(flow_log_prob(Wide(), x, FlowSettings(steps=n)) - exact).abs() for n in (200, 400, 800)]
    assert errors[2].max() < 2e-3
    for few, many in pairwise(errors):
        assert math.log2(few.mean() / many.mean()) == pytest.approx(2, abs=0.25)


def test_the_density_by_the_ode_takes_labels_scales_and_probes() -> None:
    x, labels = torch.tensor([[0.9, 0.4], [0.2, -1.0]]), torch.tensor([0, 2])
    exact = Normal(LOC[labels], SCALE[labels][:, None]).log_prob(x).sum(1).double()
    fine = FlowSettings(steps=400)
    torch.testing.assert_close(flow_log_prob(Wide(), x, fine, labels=labels), exact, rtol=0, atol=1e-2)
    line = Normal(1 / 2 * torch.tensor([-1.0]), Line.scale / 2).log_prob(torch.tensor([[0.1]])).double()[:, 0]
    torch.testing.assert_close(flow_log_prob(Line(), torch.tensor([[0.1]])), line, rtol=0, atol=3e-3)
    probed = flow_log_prob(Line(), torch.tensor([[0.1]]), FlowSettings(probes=2))  # one dimension: exact
    torch.testing.assert_close(probed, line, rtol=0, atol=3e-3)
    many = Mixture().law().sample((4,))
    estimates = torch.stack([flow_log_prob(Mixture(), many, FlowSettings(steps=40, probes=1)) for _ in range(40)])
    error = estimates.std(0) / math.sqrt(40)
    assert ((estimates.mean(0) - flow_log_prob(Mixture(), many, FlowSettings(steps=40))) / error).abs().max() < 4


def test_codes_of_the_ode_are_normal_and_lead_back() -> None:
    model, num = Wide(), 4000
    x = model.law().sample((num,))
    errors = []
    for steps in (50, 100, 200):
        z = noise_of(model, x, steps)
        errors.append((Heun(steps).from_noise(model, z) - x).square().mean().sqrt())
    for few, many in pairwise(errors):
        assert math.log2(few / many) > 1.5
    assert errors[-1] < 0.01
    assert z.mean(0) == pytest.approx([0, 0], abs=5 / math.sqrt(num))
    assert z.std(0) == pytest.approx([1, 1], abs=5 / math.sqrt(2 * num))


def test_the_bound_of_a_gaussian_is_its_closed_form() -> None:
    low, high, scale = 0.05, Line.sigma_max, Line.scale
    x = (scale * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0)) - 1) / 2
    found = variational_bound(Line(), x, low, generator=torch.Generator().manual_seed(1)).double()
    spread = [math.log(s) - 0.5 * math.log(scale**2 + s**2) for s in (low, high)]
    entropy = 0.5 * math.log(2 * math.pi * math.e * low**2) - math.log(2)  # of x around the noisy state
    closed = -entropy - scale**2 / (2 * high**2) - (spread[1] - spread[0])
    assert abs(found.mean() - closed) < 4 * found.std() / math.sqrt(len(x))
    exact = -0.5 * math.log(2 * math.pi * math.e * scale**2) + math.log(2)
    assert closed < exact


def test_the_bound_of_grey_levels_is_one_of_their_probabilities() -> None:
    """Data with four levels: the denoiser is the posterior mean, and the bound nearly the entropy."""

    class Levels(Line):
        levels = 4
        masses = torch.tensor([0.1, 0.2, 0.3, 0.4])

        def to_state(self, x: Tensor) -> Tensor:
            return 2 * x - 1

        def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
            values = torch.linspace(-1, 1, 4)
            logits = self.masses.log() - (y - values).square() / (2 * sigma[:, None] ** 2)
            return (logits.softmax(1) * values).sum(1, keepdim=True)

    index = Categorical(Levels.masses).sample((200_000,))
    x = index[:, None] / 3
    for lowest, slack in ((0.1, 0.005), (0.4, 0.1)):
        found = variational_bound(Levels(), x, lowest, generator=torch.Generator().manual_seed(0)).double()
        entropy, error = float(Categorical(Levels.masses).entropy()), found.std() / math.sqrt(len(x))
        assert -entropy - slack - 4 * error < found.mean() < -entropy + 4 * error


# ----------------------------------------------------------------------------------------- training and the networks


def _tiny(**arguments: Any) -> EDM:
    """An EDM whose network does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EDM(**{"event_shape": [2], "channels": [8, 8], **arguments})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def test_the_objective_adds_noise_of_the_level_and_weights_the_error() -> None:
    seen = []

    class Watched(Mixture):
        def denoise(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
            seen.append(y)
            return torch.zeros_like(y)

    x = torch.tensor([[1.0, -2.0]]).expand(20_000, 2)
    batch = Batch(x, torch.zeros(20_000, dtype=torch.long), torch.arange(20_000))
    found = Denoising().validation_step(Watched(), batch)["denoising_loss"]
    torch.testing.assert_close(found, torch.full((20_000,), 3 * 0.7 * 2.5))
    residual = seen[0] - x
    assert residual.mean(0).abs().max() < 4 * 0.7 / math.sqrt(20_000)
    torch.testing.assert_close(residual.T.cov(), 0.49 * torch.eye(2), rtol=0, atol=0.02)


def test_preconditioning_turns_the_papers_targets_into_the_denoised_state() -> None:
    y, sigma = torch.randn(1000, 3), torch.rand(1000) * 5 + 0.01
    x = torch.randn(1000, 3)
    noisy = x + sigma[:, None] * y

    def denoised(precondition: choices.Preconditioning, output: Tensor) -> Tensor:
        c = precondition(sigma)
        torch.testing.assert_close(precondition.weight(sigma), c.out**-2)
        return c.skip[:, None] * noisy + c.out[:, None] * output

    torch.testing.assert_close(denoised(choices.NoisePrediction(Schedule()), y), x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(denoised(choices.Velocity(), y - x), x, rtol=1e-4, atol=1e-4)
    t = sigma / (1 + sigma)
    interpolated = (1 - t)[:, None] * x + t[:, None] * y
    torch.testing.assert_close(choices.Velocity()(sigma).input[:, None] * noisy, interpolated)
    torch.testing.assert_close(choices.Velocity()(sigma).noise, t)


def test_preconditioning_of_edm_is_table_1_and_keeps_variances_at_one() -> None:
    sigma, s = torch.logspace(-3, 2, 50), 0.5
    c = choices.EDM(s)(sigma)
    torch.testing.assert_close(c.skip, s**2 / (sigma**2 + s**2))
    torch.testing.assert_close(c.out, sigma * s / (s**2 + sigma**2).sqrt())
    torch.testing.assert_close(c.input, 1 / (s**2 + sigma**2).sqrt())
    torch.testing.assert_close(c.noise, sigma.log() / 4)
    torch.testing.assert_close(choices.EDM(s).weight(sigma), (sigma**2 + s**2) / (sigma * s) ** 2)
    target = ((1 - c.skip) ** 2 * s**2 + c.skip**2 * sigma**2) / c.out**2  # variance of (x - c_skip y)/c_out
    torch.testing.assert_close(target, torch.ones(50), rtol=1e-3, atol=0)


def test_noise_levels_of_training_have_the_distributions_of_the_papers() -> None:
    u = (torch.arange(100_000) + 0.5) / 100_000
    logs = LogNormal(-1.2, 1.3)(u.double()).log()
    assert logs.mean() == pytest.approx(-1.2, abs=1e-6) and logs.std() == pytest.approx(1.3, abs=1e-3)
    sigma = UniformTime()(u)
    torch.testing.assert_close(sigma / (1 + sigma), u)
    schedule, product = Schedule(), 1.0
    for t, sigma_t in enumerate(schedule.sigmas().tolist()):
        product *= 1 - (1e-4 + t / 999 * (0.02 - 1e-4))
        assert sigma_t == pytest.approx(math.sqrt((1 - product) / product), rel=1e-5)
    drawn = schedule(u)
    assert len(drawn.unique()) == 1000 and torch.equal(drawn[:100], schedule.sigmas()[:1].expand(100))
    torch.testing.assert_close(schedule.time(schedule.sigmas()), torch.arange(1, 1001) / 1000)


def test_training_noise_levels_are_finite_for_every_uniform_number() -> None:
    class Ends(EDM):
        def __init__(self, noise: Any) -> None:
            super().__init__([2], [8])
            self.noise = noise

    for noise in (LogNormal(-1.2, 1.2), UniformTime(), Schedule()):
        sigma = Ends(noise).training_sigma(Streams(0, torch.arange(200_000)))
        assert sigma.isfinite().all() and (sigma > 0).all()
        for u in (2.0**-25, 1 - 2.0**-24):  # the ends of what `training_sigma` passes on
            assert 0 < float(noise(torch.tensor([u]))) < math.inf


def test_an_untrained_network_is_the_best_linear_denoiser() -> None:
    model = EDM([1, 8, 8], [8, 16], sigma_data=0.6)
    y, sigma = torch.randn(5, 1, 8, 8), torch.tensor([0.01, 0.1, 0.6, 3.0, 50.0])
    torch.testing.assert_close(model.denoise(y, sigma), (0.36 / (0.36 + sigma**2))[:, None, None, None] * y)


@pytest.mark.parametrize("cls", [ConditionalEDM, ConsistencyModel])
def test_labels_are_dropped_at_their_rate_and_by_stream(cls: type[ConditionalEDM | ConsistencyModel]) -> None:
    model = cls(3, 0.3, [2], [8])
    num = 20_000
    orders = (torch.arange(num), torch.arange(num).flip(0))
    first, second = (model.training_given(Streams(1, rows), labels=rows % 3)["labels"] for rows in orders)
    assert torch.equal(first, second.flip(0))
    is_dropped = first == 3
    assert is_dropped.float().mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / num))
    assert torch.equal(first[~is_dropped], (torch.arange(num) % 3)[~is_dropped])


def test_no_label_is_the_label_after_the_last() -> None:
    model = ConditionalEDM(3, 0.2, [2], [8])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    y, sigma = torch.randn(6, 2), torch.rand(6) + 0.1
    free = model.denoise(y, sigma)
    torch.testing.assert_close(free, model.denoise(y, sigma, torch.full((6,), 3)))
    told = [model.denoise(y, sigma, torch.full((6,), label)) for label in range(3)]
    assert all((other - free).abs().max() > 1e-3 for other in told)


def test_bounds_of_a_network_speak_of_grey_levels_for_images_and_of_densities_for_points() -> None:
    image, point = _tiny(event_shape=[1, 4, 4], channels=[4, 8]), _tiny()
    assert isinstance(image, NetworkDenoiser) and image.levels == 256 and point.levels is None
    x = torch.randint(256, (3, 1, 4, 4)) / 255
    one, other = (image.elbo(x, generator=Streams(0, torch.arange(3))) for _ in range(2))
    assert one.shape == (3,) and torch.equal(one, other) and (one < 0).all()


def test_sides_and_shapes_that_no_network_takes_get_a_sentence() -> None:
    with pytest.raises(ConfigError, match="multiples of 4 for 3 levels, found"):
        EDM([1, 28, 30])
    with pytest.raises(ConfigError, match=r"\(D,\) for points or \(C, H, W\) for images"):
        EDM([2, 2])
    with pytest.raises(ConfigError, match="blocks of one width"):
        EDM([2], [8, 16])
