"""EoNADE: its ensemble is a mixture of orderings, each a product of conditionals, and one network has them all."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from instances import Instance
from torch import Tensor

from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.regularization import shift
from zoo.batch import Batch
from zoo.laws.densities import enumerated
from zoo.laws.law import follows, seeded, state_numbers
from zoo.pixelwise import draw, drawing, probabilities
from zoo.random import Streams, rand, seed_from

INSTANCE = Instance(EoNADE, {"event_shape": [1, 2, 3], "hidden": 7, "num_orderings": 3}, 2)
any_steps = pytest.mark.parametrize("num_steps", [1, 3])


def altered(**arguments: object) -> Instance:
    return Instance(EoNADE, {**INSTANCE.arguments, **arguments}, 2)


def product(model: EoNADE, x: Tensor, order: Tensor) -> Tensor:
    """log p(x given the ordering) by one full pass per pixel."""
    x, known, total = x.flatten(1), torch.zeros(len(x), model.size), 0
    for d in order:
        logits = model.logits(x, known)[:, d]
        total = total + torch.distributions.Bernoulli(logits=logits).log_prob(x[:, d])
        known[:, d] = 1
    return total


@any_steps
def test_every_ordering_is_a_distribution_and_the_ensemble_is_their_mean(num_steps: int) -> None:
    model, states = altered(num_steps=num_steps).build(), INSTANCE.states()
    assert sorted(model.orders[1].tolist()) == list(range(6)) and not torch.equal(model.orders[0], model.orders[1])
    with torch.no_grad():
        for order in [*model.orders, torch.arange(6)]:
            log_probs = model.log_prob_given(states, order)
            torch.testing.assert_close(log_probs, product(model, states, order), atol=1e-5, rtol=1e-5)
            assert log_probs.double().logsumexp(0).abs() < 1e-5
        mixture = torch.stack([product(model, states, order) for order in model.orders]).double().exp().mean(0)
        torch.testing.assert_close(model.log_prob(states).double().exp(), mixture, atol=1e-6, rtol=1e-4)


@any_steps
def test_a_pixel_sees_the_known_pixels_alone(num_steps: int) -> None:
    model, x = altered(num_steps=num_steps).build(), INSTANCE.data(4).flatten(1)
    known = (torch.arange(6) % 2 == 0).float().expand(4, 6)
    before = model.logits(x, known)
    for d in range(6):
        changed = x.clone()
        changed[0, d] = 1 - changed[0, d]
        after = model.logits(changed, known)
        assert torch.equal(before[1:], after[1:]) and torch.equal(before[0], after[0]) == (d % 2 == 1)
    assert not torch.allclose(before, model.logits(x, known * (torch.arange(6) != 2)))


@any_steps
def test_training_estimates_the_mean_over_all_orderings(num_steps: int) -> None:
    instance = altered(event_shape=[1, 2, 2], num_steps=num_steps, cost="last")
    model, x = instance.build(), instance.data(1)
    with torch.no_grad():
        orders = [torch.tensor(order) for order in permutations(range(4))]
        expected = torch.stack([model.log_prob_given(x, order) for order in orders]).mean()
        found = model.training_log_prob(x.expand(40_000, 1, 2, 2), Streams(0, range(40_000)))
    assert abs(found.mean() - expected) < 4.5 * found.std() / 200


class _Chosen(Streams):
    """Uniforms that are given, in turn."""

    def __init__(self, *uniforms: Tensor) -> None:
        super().__init__(0, range(len(uniforms[0])))
        self.uniforms = list(uniforms)

    def _uniform(self, size: tuple[int, ...], device: torch.device | str) -> Tensor:
        return self.uniforms.pop(0).view(size)


@any_steps
def test_the_mean_of_all_estimates_and_its_gradients_are_those_of_a_loop_over_the_pixels(num_steps: int) -> None:
    instance = altered(event_shape=[1, 2, 2], num_steps=num_steps, cost="last")
    model, x = instance.build(), instance.data(1)
    orders = torch.tensor(list(permutations(range(4))))
    ranks, known = orders.argsort(1).repeat(4, 1), torch.arange(4).repeat_interleave(len(orders))
    streams = _Chosen(ranks / 4, (known + 0.5) / 4)
    estimates = model.training_log_prob(x.expand(len(ranks), -1, -1, -1), streams)
    assert not streams.uniforms and estimates.std() > 0.01
    each = torch.stack([model.log_prob_given(x, order)[0] for order in orders])
    torch.testing.assert_close(estimates.mean(), each.mean(), atol=1e-5, rtol=1e-5)
    found, expected = (torch.autograd.grad(y.mean(), list(model.parameters())) for y in (estimates, each))
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@any_steps
def test_completion_from_any_mask_follows_an_ordering_that_begins_with_it(num_steps: int) -> None:
    model, states = altered(num_steps=num_steps).build(), INSTANCE.states()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
        for kept in ([1, 4], [0, 2, 5], []):
            mask = torch.zeros(6, dtype=torch.bool)
            mask[kept] = True
            template = states[37].flatten()
            log_probs = []
            for order in model.orders:
                first = torch.tensor([*kept, *(d for d in order.tolist() if d not in kept)])
                log_probs.append(model.log_prob_given(states, first))
            fits = ((states.flatten(1) == template) | ~mask).all(1)
            each = torch.stack(log_probs).where(fits, -math.inf).log_softmax(1)
            x = template.where(mask, math.nan).view(1, 1, 2, 3).expand(8000, -1, -1, -1)
            drawn = model.complete(x, mask.view(1, 2, 3), generator=seeded())
            counts = torch.bincount(state_numbers(drawn), minlength=64)
            follows(counts, each.logsumexp(0) - math.log(len(each)))


@any_steps
def test_completion_is_the_conditional_where_the_only_ordering_begins_with_the_mask(num_steps: int) -> None:
    instance = altered(num_orderings=1, num_steps=num_steps)
    model, states = instance.build(), instance.states()
    mask = torch.zeros(6, dtype=torch.bool)
    mask[model.orders[0, :3]] = True
    drawn = model.complete(states[37].expand(8000, -1, -1, -1), mask.view(1, 2, 3), generator=seeded())
    fits = ((states == states[37]).flatten(1) | ~mask).all(1)
    with torch.no_grad():
        log_probs = model.log_prob(states).where(fits, -math.inf).log_softmax(0)
    follows(torch.bincount(state_numbers(drawn), minlength=64), log_probs)


@any_steps
def test_expectations_are_those_of_the_ordering_in_which_an_image_was_drawn(num_steps: int) -> None:
    model, states = altered(num_steps=num_steps).build(), INSTANCE.states()
    with torch.no_grad():
        for order in model.orders:
            expected = model.expected(states, order.expand(64, -1))
            torch.testing.assert_close(
                expected.double(), enumerated(model.log_prob_given(states, order), states, order), atol=1e-5, rtol=1e-4
            )
        assert torch.equal(model.expected(states), model.expected(states, model.orders[:1].expand(64, -1)))
        x, order = draw(model, 200, generator=seeded())
        assert torch.equal(x, model.sample(200, generator=seeded())) and len(order.unique(dim=0)) == 3
        streams = Streams(seed_from(seeded()), range(200))
        rand((200, 1), streams)  # which ordering
        probs = probabilities(model, x, order)
        assert torch.equal(x.flatten(1), (rand((200, 6), streams) < probs.flatten(1)).float())
    film = drawing(x, 7, order)
    for known, frame in enumerate(film):
        shown = (frame != 0.5).flatten(1).gather(1, order)
        assert (
            shown[:, :known].all() and not shown[:, known:].any() and torch.equal(x[frame != 0.5], frame[frame != 0.5])
        )


@pytest.mark.parametrize(("num_layers", "num_steps"), [(1, 1), (3, 1), (2, 4)])
def test_draws_are_those_of_one_pass_per_pixel(num_layers: int, num_steps: int) -> None:
    model = altered(event_shape=[1, 4, 4], num_layers=num_layers, num_steps=num_steps).build()
    streams, x, known = Streams(0, range(100)), torch.zeros(100, 16), torch.zeros(100, 16)
    choice = (rand((100, 1), streams)[:, 0] * model.num_orderings).long()
    uniforms, rows = rand((100, 16), streams), torch.arange(100)
    with torch.no_grad():
        for d in model.orders[choice].T:
            x[rows, d] = (uniforms[rows, d] < model.logits(x, known)[rows, d].sigmoid()).float()
            known[rows, d] = 1
        assert torch.equal(model.draw(Streams(0, range(100))).flatten(1), x)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_steps_of_inference_replace_unknown_pixels_by_what_the_step_before_says(num_steps: int) -> None:
    model, x = altered(num_steps=num_steps).build().double(), INSTANCE.data(20).flatten(1).double()
    known = torch.rand(20, 6, generator=seeded()) < torch.linspace(0, 1, 20)[:, None]
    marginals = model.output_bias.sigmoid()
    # what unknown pixels add in the first step, as biases and weights of the mask that do without
    bias, mask_weight = model.bias - marginals @ model.weight, model.mask_weight + marginals[:, None] * model.weight
    probs = marginals.expand(20, 6)
    for _ in range(num_steps):
        h = (torch.where(known, x, probs) @ model.weight + known.double() @ mask_weight + bias).relu()
        h = (h @ model.layers[0].weight.T + model.layers[0].bias).relu()
        probs = (h @ model.output.T + model.output_bias).sigmoid()
    torch.testing.assert_close(model.logits(x, known.double()).sigmoid(), probs, atol=1e-12, rtol=1e-12)


def test_training_minimises_the_mean_over_steps_or_the_last_and_validation_shows_the_last() -> None:
    model, x = altered(num_steps=3).build(), INSTANCE.data(8)
    estimates = []
    for num_steps in (1, 2, 3):
        shorter = altered(num_steps=num_steps, cost="last").build()
        shorter.load_state_dict(model.state_dict())
        estimates.append(shorter.training_log_prob(x, Streams(0, range(8))))
    assert not torch.allclose(estimates[0], estimates[2], rtol=0.01)
    torch.testing.assert_close(model.training_log_prob(x, Streams(0, range(8))), torch.stack(estimates).mean(0))
    batch = Batch(x, None, torch.arange(8))
    assert torch.equal(model.validation_step(batch, 0)["nll"], shorter.validation_step(batch, 0)["nll"])
    noise = shorter.streams(batch, training=False)
    assert torch.equal(shorter.validation_step(batch, 0)["nll"], -shorter.training_log_prob(x, noise))


def test_training_shifts_images_and_tells_by_how_much() -> None:
    model, x = altered(max_shift=1).build(), INSTANCE.data(300)
    found = model.training_log_prob(x, Streams(0, range(300)))
    moved, shifts = shift(x, 1, streams := Streams(0, range(300)))
    torch.testing.assert_close(found, model.estimates(moved, streams, shifts)[0])
    found.sum().backward()
    assert model.shift_biases.grad.any(1).tolist() == [True] * 4 + [False] + [True] * 4
    known = torch.zeros(300, 6)
    with torch.no_grad():
        model.shift_biases[4] = 0  # where no gradient gets
        (logits,), plain = model._every_step(x.flatten(1), known, shifts), model.logits(x.flatten(1), known)
    is_moved = shifts.any(1)
    assert torch.equal(logits[~is_moved], plain[~is_moved]) and (logits != plain)[is_moved].any(1).all()
