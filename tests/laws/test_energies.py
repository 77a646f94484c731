"""The laws of energies over binary units: log Z, chains, annealed importance sampling, contrastive divergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from instances import INSTANCES, Instance, having
from scipy import stats
from torch import Tensor

from zoo import objectives
from zoo.batch import Batch
from zoo.boltzmann.dbm import DBM
from zoo.boltzmann.dbn import DBN
from zoo.boltzmann.rbm import RBM
from zoo.boltzmann.units import bit_states, log_bernoulli
from zoo.capabilities import Completable, Unnormalized, UnnormalizedBound, UnnormalizedDensity
from zoo.energy.nce import NCE
from zoo.energy.tilted import Tilted, langevin
from zoo.errors import ConfigError
from zoo.laws.law import follows, seeded, state_numbers
from zoo.mcmc import MarkovChain, annealed_importance_sampling, resampled, reverse_annealed_importance_sampling, run
from zoo.random import Streams
from zoo.samplers.gibbs import Gibbs
from zoo.samplers.gibbs_with_gradients import GibbsWithGradients

TEMPERED = [(1.0, 0.0), (1.0, 0.4), (1.0, 1.0), (0.5, 0.7), (2.0, 1.0)]  # (temperature, beta)


def is_binary(instance: Instance) -> bool:
    return instance.levels == 2


def built(instance: Instance) -> Any:
    """The model with base rates away from one half, and interactions strong enough to be seen."""
    model = instance.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("network"):  # whose layers multiply what is added to them as it is
                parameter.mul_(3)
    model.set_base_rates(0.1 + 0.8 * model.base_units(instance.data(200)).mean(0).detach())
    return model


def states_of(chain: MarkovChain) -> Tensor:
    """Every state of a chain over bits: [2^N, N]."""
    num_units = chain.start(Streams(0, [0])).shape[1]
    return torch.cat(list(bit_states(num_units, like=torch.empty(0)))).float()


def exact_draws(chain: MarkovChain, num: int, beta: float = 1.0, seed: int = 0) -> Tensor:
    states = states_of(chain)
    chosen = (-chain.energy(states, beta)).softmax(0).multinomial(num, replacement=True, generator=seeded(seed))
    return states[chosen]


@torch.no_grad()
def log_weight(model: Any, x: Tensor) -> Tensor:
    """log Z p(x), with hidden units summed out: [B, *event_shape] -> [B]."""
    if isinstance(model, UnnormalizedDensity):
        return -model.energy(x)
    chain = model.chain()
    states = states_of(chain)
    if isinstance(model, DBN):
        given = log_bernoulli(x.flatten(1)[:, None], model.visible_inputs(states)[None])
    else:
        same = (chain.visible(states, Streams(0, range(len(states)))) == x[:, None]).flatten(2).all(2)
        given = torch.where(same, 0.0, -torch.inf)
    return (given - chain.energy(states)).logsumexp(1)


@having(Unnormalized, where=is_binary)
def test_log_z_is_the_sum_over_all_states(instance: Instance) -> None:
    model = built(instance)
    total = log_weight(model, instance.states()).double().logsumexp(0).item()
    assert model.exact_log_z().item() == pytest.approx(total, abs=1e-5)


@having(UnnormalizedBound, where=is_binary)
def test_importance_weights_are_unbiased_and_bound_the_likelihood(instance: Instance) -> None:
    model, x, num = built(instance), instance.states(), 20_000
    exact, found = log_weight(model, x).double(), model.log_weights(x, num, generator=seeded()).detach().double()
    assert found.shape == (num, len(x))
    ratios = (found - exact).exp()
    assert ((ratios.mean(0) - 1).abs() < 4.5 * ratios.std(0) / num**0.5).all()
    assert (found.mean(0) < exact - 1e-4).all() and ratios.std(0).max() > 0.05


@having(Unnormalized, where=is_binary)
def test_a_chain_goes_from_its_base_to_the_model(instance: Instance) -> None:
    model = built(instance)
    chain, x = model.chain(), instance.states()
    states = states_of(chain)
    assert (-chain.energy(states, 0.0)).logsumexp(0).item() == pytest.approx(chain.log_z_base, abs=1e-5)
    assert (-chain.energy(states)).logsumexp(0).item() == pytest.approx(model.exact_log_z().item(), abs=1e-5)
    if isinstance(model, UnnormalizedDensity) and states.shape[1] == x[0].numel():  # hidden units are summed out
        torch.testing.assert_close(chain.energy(x.flatten(1)).float(), model.energy(x), atol=1e-5, rtol=1e-5)
    start = chain.start(Streams(0, range(20_000)))
    follows(torch.bincount(state_numbers(start), minlength=len(states)), -chain.energy(states, 0.0) - chain.log_z_base)


@having(Unnormalized, where=is_binary)
@pytest.mark.parametrize(("temperature", "beta"), TEMPERED)
def test_a_sweep_leaves_the_distribution_invariant(instance: Instance, temperature: float, beta: float) -> None:
    chain = built(instance).chain(temperature)
    states, before = states_of(chain), exact_draws(chain, 20_000, beta)
    after = chain.step(before, Streams(1, range(20_000)), beta)
    follows(torch.bincount(state_numbers(after), minlength=len(states)), (-chain.energy(states, beta)).log_softmax(0))
    assert 0.1 < (after != before).float().mean() < 0.9


def flips(instance: Instance) -> bool:
    return GibbsWithGradients in instance.cls.samplers


@having(Unnormalized, where=flips)
@pytest.mark.parametrize(("temperature", "beta"), TEMPERED)
def test_flips_leave_the_distribution_invariant(instance: Instance, temperature: float, beta: float) -> None:
    chain = GibbsWithGradients(temperature=temperature).chain(built(instance))
    states, before, streams = states_of(chain), exact_draws(chain, 20_000, beta), Streams(1, range(20_000))
    once = chain.step(before, streams, beta)
    assert (once != before).sum(1).max() == 1 and 0.3 < (once != before).sum(1).float().mean() < 1
    twice = chain.step(once, streams, beta)  # with the gradient that it kept
    follows(torch.bincount(state_numbers(twice), minlength=len(states)), (-chain.energy(states, beta)).log_softmax(0))


@having(Unnormalized, where=flips)
def test_flips_forget_where_they_start_and_hold_what_is_known(instance: Instance) -> None:
    model = built(instance)
    chain = GibbsWithGradients().chain(model)
    states = states_of(chain)
    start = states[-1:].expand(10_000, -1)
    for num_held in (0, 1, start.shape[1]):
        known = torch.arange(start.shape[1]).expand_as(start) < num_held
        end = run(chain, start, Streams(0, range(len(start))), 60, known)
        kept = (states[:, :num_held] == 1).all(1)
        conditional = torch.where(kept, -chain.energy(states), -torch.inf).log_softmax(0)
        follows(torch.bincount(state_numbers(end), minlength=len(states)), conditional)


@having(Unnormalized, where=is_binary)
def test_a_chain_forgets_where_it_starts_unless_units_are_held(instance: Instance) -> None:
    model = built(instance)
    chain = model.chain()
    states = states_of(chain)
    log_probs = (-chain.energy(states)).log_softmax(0)
    start = states[-1:].expand(10_000, -1)
    known = torch.zeros_like(start, dtype=torch.bool)
    known[:, 1] = True
    cases: list[tuple[Tensor | None, Tensor]] = [(None, torch.ones(len(states), dtype=torch.bool))]
    if not isinstance(model, Tilted):  # whose chain proposes all units at once
        cases.append((known, states[:, 1] == 1))
    for held, kept in cases:
        end = run(chain, start, Streams(0, range(len(start))), 100, held)
        conditional = torch.where(kept, log_probs, -torch.inf).log_softmax(0)
        follows(torch.bincount(state_numbers(end), minlength=len(states)), conditional)


@having(Unnormalized, where=is_binary)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_follow_the_energy(instance: Instance, temperature: float) -> None:
    model, states = built(instance), instance.states()
    x = model.sample(10_000, sampler=type(model.sampler)(100, temperature), generator=seeded(), batch_size=5000)
    if temperature == 1:
        follows(torch.bincount(state_numbers(x), minlength=len(states)), log_weight(model, states).log_softmax(0))
    tempered = model.chain(temperature)
    log_probs = torch.full((len(states),), -torch.inf, dtype=torch.float64)
    all_states = states_of(tempered)
    if isinstance(model, DBN):  # whose visible units are drawn
        given = log_bernoulli(states.flatten(1)[:, None], model.visible_inputs(all_states)[None])
        log_probs = (given.detach() + (-tempered.energy(all_states)).log_softmax(0)).logsumexp(1)
    else:
        visible = state_numbers(tempered.visible(all_states, Streams(0, range(len(all_states)))))
        for number, log_prob in zip(visible, (-tempered.energy(all_states)).log_softmax(0), strict=True):
            log_probs[number] = log_probs[number].logaddexp(log_prob)
    follows(torch.bincount(state_numbers(x), minlength=len(states)), log_probs)


@having(Unnormalized, Completable, where=is_binary)
def test_completions_follow_the_enumerated_conditional(instance: Instance) -> None:
    model, states = built(instance), instance.states()
    mask = torch.arange(states[0].numel()).view(instance.event_shape) % 2 == 0
    x = states[len(states) // 3]
    agrees = ((states == x) | ~mask).flatten(1).all(1)
    log_probs = torch.where(agrees, log_weight(model, states).double(), -torch.inf).log_softmax(0).detach()
    model.fill_steps = 100
    completed = model.complete(x.expand(5000, *x.shape), mask, generator=seeded(), batch_size=5000)
    follows(torch.bincount(state_numbers(completed), minlength=len(states)), log_probs)


@having(Unnormalized, where=is_binary)
def test_annealed_importance_sampling_brackets_the_enumerated_log_z(instance: Instance) -> None:
    model = built(instance)
    chain, log_z = model.chain(), model.exact_log_z().item()
    forward, reverse = [], []
    for seed in range(20):
        forward.append(annealed_importance_sampling(chain, 100, 10, seed=seed, batch_size=60))
        exact = exact_draws(chain, 100, seed=seed)
        reverse.append(reverse_annealed_importance_sampling(chain, exact, 10, seed=seed, batch_size=60))
    for results in (forward, reverse):
        assert all(len(r.log_weights) == 100 and r.log_weights.dtype == torch.float64 for r in results)
        scores = torch.tensor([(r.estimate - log_z) / r.error for r in results])
        assert scores.abs().max() < 4.5 and scores.square().mean() < 2.5  # the error is what it says
        assert all(1 <= r.effective_runs <= 100 for r in results)
    for results, sign in ((forward, 1), (reverse, -1)):  # from below by runs forward, from above by those in reverse
        excess = sign * (torch.tensor([r.estimate for r in results]) - log_z)
        assert excess.mean() < 4 * excess.std() / len(results) ** 0.5
    better = annealed_importance_sampling(chain, 500, 500)
    assert better.estimate == pytest.approx(log_z, abs=0.02) and better.effective_runs > 450


@having(Unnormalized, where=is_binary)
def test_one_temperature_is_plain_importance_sampling(instance: Instance) -> None:
    chain = built(instance).chain()
    found = annealed_importance_sampling(chain, 4000, 1, batch_size=4000)
    start = chain.start(Streams(0, range(4000)))
    torch.testing.assert_close(found.log_weights, chain.energy(start, 0.0) - chain.energy(start, 1.0))
    mean, std = found.log_weights.exp().mean(), found.log_weights.exp().std()
    assert found.error == pytest.approx((std / mean / 4000**0.5).item())


@having(Unnormalized, where=is_binary)
def test_resampled_states_follow_the_model(instance: Instance) -> None:
    chain = built(instance).chain()
    states = resampled(annealed_importance_sampling(chain, 20_000, 3, batch_size=20_000))
    all_states = states_of(chain)
    found = torch.bincount(state_numbers(states), minlength=len(all_states)).double() / len(states)
    expected = (-chain.energy(all_states)).softmax(0)
    assert (found - expected).abs().max() < 0.02


@having(Unnormalized, where=is_binary)
def test_contrastive_divergence_with_chains_from_the_model_is_the_exact_gradient(instance: Instance) -> None:
    model, num = built(instance), 40_000
    batch, states = Batch(instance.data(50), None, torch.arange(50)), states_of(model.chain())
    log_z = (-model.state_energy(states)).logsumexp(0)  # up to a constant
    (model.training_energy(batch.x, model.streams(batch)).mean() + log_z).backward()
    exact = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    model.objective = objectives.ContrastiveDivergence(1, num)
    model.chains = exact_draws(model.chain(), num)
    before = model.chains
    model.training_step(batch, 0)["loss"].backward()
    assert model.chains.shape == before.shape and not torch.equal(model.chains, before)
    assert not model.chains.requires_grad
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, exact[name], atol=0.02, rtol=0)
        else:
            assert parameter.grad is None


@having(Unnormalized, where=is_binary)
def test_persistent_chains_of_a_pretrained_model_start_from_its_distribution(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "BURN_IN", 30)
    model, num = built(instance), 3000
    model.pretrained, model.objective = True, objectives.ContrastiveDivergence(1, num)
    model.training_step(Batch(instance.data(6), None, torch.arange(6)), 0)
    states = states_of(model.chain())
    expected = (-model.chain().energy(states)).softmax(0).detach()
    found = (model.chains[:, None] == states).all(2).float().mean(0)
    assert (found - expected).abs().max() < 5 * (expected.max() / num) ** 0.5


@having(Unnormalized, where=is_binary)
def test_chains_from_the_examples_start_there_at_every_step(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance.cls, "global_step", 0)  # the noise of one step
    model = built(instance)
    model.objective = objectives.ContrastiveDivergence(2, 0)
    batch = Batch(instance.data(6), None, torch.arange(6))
    first, second = (model.training_step(batch, 0)["loss"] for _ in range(2))
    assert torch.equal(first, second) and model.chains is None
    chain, streams = model.chain(), model.streams(batch)
    states = run(chain, chain.at(batch.x, streams), streams, 2)
    torch.testing.assert_close(first, model.contrast(batch.x, states, model.streams(batch)))


@having(Unnormalized, where=is_binary)
def test_temperatures_and_sweeps_that_cannot_be(instance: Instance) -> None:
    with pytest.raises(ConfigError, match="temperature: expected more than 0, found 0"):
        Gibbs(temperature=0)
    with pytest.raises(ConfigError, match="steps: expected at least 0, found -1"):
        Gibbs(steps=-1)


# ---------------------------------------------------------------------------------------------------- real numbers


def is_point(instance: Instance) -> bool:
    return instance.levels is None


@having(UnnormalizedDensity, where=is_point)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_chains_of_points_follow_the_energy(instance: Instance, temperature: float) -> None:
    """Stein's identity: E[dE] = 0 and E[x dE] = I if x follows exp(-E), whatever it is."""
    model, num = instance.build(), 20_000
    x = model.sample(num, sampler=type(model.sampler)(50, temperature), generator=seeded(), batch_size=num)
    assert len(x.unique(dim=0)) > num / 4
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model.energy(x).sum() / temperature, x)
    x = x.detach()
    for terms in (slope, x[:, :, None] * slope[:, None] - torch.eye(x.shape[1])):
        assert (terms.mean(0) / (terms.std(0) / num**0.5)).abs().max() < 4.5


@having(UnnormalizedDensity, where=is_point)
def test_log_z_of_points_is_the_integral_and_what_annealing_finds(instance: Instance) -> None:
    model = instance.build()
    log_z = model.exact_log_z().item()
    ticks = torch.linspace(-12, 12, 700)
    with torch.no_grad():
        grid = -model.energy(torch.cartesian_prod(ticks, ticks)).double()
    assert log_z == pytest.approx(grid.logsumexp(0).item() + 2 * torch.log(ticks[1] - ticks[0]).item(), abs=1e-3)
    found = annealed_importance_sampling(model.chain(), 4000, 5, batch_size=4000)
    assert abs(found.estimate - log_z) < 4.5 * found.error < 0.2


@pytest.mark.parametrize("size", [0.1, 1.0])
def test_a_step_of_langevin_dynamics_leaves_the_distribution_invariant(size: float) -> None:
    """Without the Metropolis rule, large steps would widen it."""
    x = torch.randn(40_000, 2, generator=seeded())
    moved = langevin(lambda x: x.square().sum(1) / 2, x, Streams(0, range(len(x))), size)
    assert 0.3 < (moved != x).float().mean() <= 1
    assert stats.kstest(moved.flatten().numpy(), "norm").pvalue > 1e-3


# -------------------------------------------------------------------------------------------------- noise contrast


@having(NCE)
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_noise_contrast_is_least_at_the_ratio_of_densities(instance: Instance, shift: float) -> None:
    """With data from the model and Z = 1 the gradient vanishes; with another log Z it leads back."""
    model, num = instance.build(), 1000
    x = model.sample(20 * num, generator=seeded(), batch_size=20 * num)
    with torch.no_grad():
        model.log_z += model.exact_log_z()
        assert model.exact_log_z().item() == pytest.approx(0, abs=1e-3)
        model.log_z += shift
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients: dict[str, list[Tensor]] = {name: [] for name in trained}
    for index in torch.arange(len(x)).split(num):
        loss = model.training_step(Batch(x[index], None, index), 0)["loss"]
        for name, gradient in zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True):
            gradients[name].append(gradient)
    scores = {}
    for name, values in gradients.items():
        found = torch.stack(values)
        scores[name] = found.mean(0) / (found.std(0) / len(found) ** 0.5).clamp(min=1e-9)
    if shift:
        assert scores["log_z"] * shift > 10
    else:
        assert max(score.abs().max() for score in scores.values()) < 6  # of Student's t, 19 degrees of freedom


# ---------------------------------------------------------------------------------------------------------- starts


@having(Unnormalized, where=is_binary)
def test_chains_start_from_data_only_if_asked(instance: Instance) -> None:
    model = built(instance)
    kind = type(model.sampler)
    with pytest.raises(ConfigError, match=r"start: expected examples in model\.examples to start from, found none"):
        model.sample(2, sampler=kind(0, start="data"))
    model.examples = instance.states()[1:3]
    x = model.sample(200, sampler=kind(0, start="data"), generator=seeded())
    if not isinstance(model, DBN):  # whose pixels are drawn anew from the code of an example
        found = {tuple(row) for row in x.flatten(1).tolist()}
        assert found == {tuple(row) for row in model.examples.flatten(1).tolist()}
    streams = Streams(0, range(5))
    frames = kind(10, start="data").course(model, streams, 3)
    assert frames.shape == (3, 5, *instance.event_shape)
    assert torch.equal(kind(7).course(model, Streams(3, range(4)), 2)[1], kind(7)(model, Streams(3, range(4)))) or (
        isinstance(model, DBN)
    )


@having(Unnormalized)
def test_starts_that_cannot_be(instance: Instance) -> None:
    with pytest.raises(ConfigError, match="start: expected 'noise' or 'data', found 'here'"):
        type(instance.build().sampler)(start="here")


def test_a_deep_belief_net_begins_as_the_rbm_below_and_moves_to_other_base_rates() -> None:
    rbm = built(next(i for i in INSTANCES if i.cls is RBM))
    size, hidden = rbm.weight.shape[1], rbm.weight.shape[0]
    net = DBN(rbm.event_shape, hidden, size)
    assert net.take_weights(rbm) == [] and not net.pretrained
    states = torch.cat(list(bit_states(size, like=rbm.base))).float().view(-1, *rbm.event_shape)
    expected = (-rbm.energy(states)).log_softmax(0)
    for mean in (None, torch.linspace(0.1, 0.9, hidden)):
        if mean is not None:
            net.set_base_rates(mean)
            torch.testing.assert_close(net.top.base.sigmoid(), mean)
        log_probs = net.log_weights(states, 3, generator=seeded()) - net.exact_log_z()  # q is the exact posterior
        torch.testing.assert_close(log_probs.float(), expected.expand(3, -1), atol=1e-4, rtol=1e-4)


def test_a_deep_boltzmann_machine_begins_as_the_rbm_below() -> None:
    rbm = built(next(i for i in INSTANCES if i.cls is RBM))
    machine = DBM(rbm.event_shape, len(rbm.weight), 2)
    assert machine.take_weights(rbm) == []
    with torch.no_grad():
        machine.units.weight[:, -2:] = 0
    states = torch.cat(list(bit_states(rbm.weight.shape[1], like=rbm.base))).float().view(-1, *rbm.event_shape)
    found = -machine.training_energy(states, Streams(0, range(len(states))))
    torch.testing.assert_close(found.log_softmax(0), (-rbm.energy(states)).log_softmax(0), atol=1e-5, rtol=1e-5)


@having(UnnormalizedBound, where=lambda instance: instance.cls is DBM)
def test_the_mean_field_bound_is_a_bound_at_its_fixed_point(instance: Instance) -> None:
    model, x = built(instance), instance.states()
    with torch.no_grad():
        model.units.weight[:, model.num_visible :] /= 6  # one fixed point, reached in few updates
        bound = -model.training_energy(x, Streams(0, range(len(x))))
    assert (bound <= log_weight(model, x) + 1e-5).all() and (log_weight(model, x) - bound).max() > 1e-4
    mean = model.mean_field(x)
    model.field_steps += 1
    torch.testing.assert_close(model.mean_field(x), mean, atol=1e-3, rtol=0)
