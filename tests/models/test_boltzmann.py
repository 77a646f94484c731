"""Boltzmann machines against sums over hidden units, scikit-learn, and the speed of matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from zoo import Zoo
from zoo.boltzmann.rbm import RBM
from zoo.boltzmann.units import bit_states, log_two_cosh
from zoo.cli import main
from zoo.data import Digits
from zoo.energy.ebm import EBM
from zoo.pictures import filter_sheet
from zoo.random import Streams
from zoo.training import Trainer


@pytest.fixture
def rbm() -> RBM:
    """Five pixels and three hidden units, no parameter of which is zero, in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RBM(event_shape=[1, 1, 5], num_hidden=3).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter))
        model.set_base_rates(0.1 + 0.8 * torch.rand(1, 1, 5).double())
    return model


def bits(num_units: int) -> Tensor:
    return torch.cat(list(bit_states(num_units, like=torch.empty(0))))


@torch.no_grad()
def plain(model: RBM) -> tuple[Tensor, Tensor, Tensor]:
    """W [H, D], hidden and visible biases of E(x, h) = -h'Wx - c'h - b'x, up to a constant."""
    hidden = model.hidden_bias - model.weight @ model.base.sigmoid()
    return model.weight, hidden, model.base + model.visible_bias - model.weight.sum(0) / 2


def joint(model: RBM) -> Tensor:
    """E(x, h) of all x and h: [2^D, 2^H]."""
    weight, hidden, visible = plain(model)
    x, h = bits(weight.shape[1]), bits(weight.shape[0])
    return -(x @ weight.T @ h.T) - h @ hidden - (x @ visible)[:, None]


def test_energies_are_sums_over_hidden_units(rbm: RBM) -> None:
    x = bits(5).view(-1, 1, 1, 5)
    difference = rbm.energy(x) + (-joint(rbm)).logsumexp(1)
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))
    log_ratios = (-joint(rbm)).logsumexp(1).diff()  # of the probabilities of neighbours
    torch.testing.assert_close(-rbm.energy(x).diff(), log_ratios)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_tempered_energies_lie_between_base_rates_and_joint_energies(rbm: RBM, temperature: float, beta: float) -> None:
    x = bits(5)
    mixed = (1 - beta) * -(x @ rbm.base)[:, None] + beta * joint(rbm) / temperature
    energy = rbm.chain(temperature).energy(x, beta)
    torch.testing.assert_close((-energy).softmax(0), (-mixed).logsumexp(1).softmax(0))


def test_two_hyperbolic_cosines() -> None:
    a = torch.linspace(-200, 200, 4001, dtype=torch.float64)
    expected = torch.logaddexp(a / 2, -a / 2)
    torch.testing.assert_close(log_two_cosh(a), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(log_two_cosh(a.float()).double(), expected, atol=1e-5, rtol=1e-6)
    assert torch.autograd.gradcheck(log_two_cosh, torch.tensor([-3.0, 0.5, 20.0], dtype=torch.float64).requires_grad_())


def test_log_z_is_the_same_over_pixels_and_over_hidden_units() -> None:
    few_hidden = RBM(event_shape=[1, 5, 5], num_hidden=6)
    for parameter in few_hidden.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    few_hidden.set_base_rates(torch.linspace(0.1, 0.9, 25))
    found = few_hidden.exact_log_z()
    assert found is not None
    # the same machine, in which pixels and hidden units change places
    weight, hidden, visible = plain(few_hidden)
    h = bits(6).float()
    assert found.item() == pytest.approx(
        (h @ hidden + torch.nn.functional.softplus(visible + h @ weight).sum(1)).double().logsumexp(0).item()
        + constant(few_hidden),
        abs=1e-4,
    )
    assert RBM(event_shape=[1, 5, 5], num_hidden=21).exact_log_z() is None


@torch.no_grad()
def constant(model: RBM) -> float:
    """What energies have more than in their plain form: the terms that no unit changes."""
    return -(model.hidden_bias - model.weight @ model.base.sigmoid()).sum().item() / 2


def test_free_energy_and_hidden_units_are_scikit_learns(rbm: RBM) -> None:
    theirs = pytest.importorskip("sklearn.neural_network").BernoulliRBM(n_components=3)
    weight, hidden, visible = (parameter.detach().numpy() for parameter in plain(rbm))
    theirs.components_, theirs.intercept_hidden_, theirs.intercept_visible_ = weight, hidden, visible
    x = bits(5)
    ours = rbm.energy(x.view(-1, 1, 1, 5)).detach().numpy()
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs._free_energy(x.numpy())), atol=1e-10)
    np.testing.assert_allclose(rbm.chain()._inputs(x).sigmoid(), theirs.transform(x.numpy()), atol=1e-10)


def test_a_sweep_draws_hidden_units_and_then_pixels(rbm: RBM) -> None:
    """The transition matrix of a sweep, from 20,000 sweeps of each state, against that of the joint distribution."""
    states, num = bits(5), 20_000
    probs = (-joint(rbm)).flatten().softmax(0).view(32, 8)
    matrix = (probs / probs.sum(1, keepdim=True)) @ (probs / probs.sum(0)).T  # [from, to]
    torch.testing.assert_close(probs.sum(1) @ matrix, probs.sum(1))
    chain, places = rbm.chain(), 2 ** torch.arange(4, -1, -1).double()
    for number in (0, 13, 31):
        end = chain.step(states[number].expand(num, -1), Streams(number, range(num)))
        found = torch.bincount((end @ places).long(), minlength=32) / num
        assert ((found - matrix[number]).abs() < 4.5 * (matrix[number] / num).sqrt() + 1e-4).all()


def test_training_raises_the_likelihood_of_digits_and_reports_the_gap(tmp_path: Any) -> None:
    data = Digits(batch_size=50, binarize=True)
    model = RBM(event_shape=[1, 8, 8], num_hidden=12, num_chains=50)
    model.optimization = type(model.optimization)(optimizer="sgd", lr=0.3, beta1=0.0, schedule="linear")
    options = {"progress": False, "sample_grids": False, "accelerator": "cpu", "check_val_every_n_epoch": 40}
    trainer = Trainer(tmp_path, max_epochs=40, ema_decay=0.9, log_z_temperatures=10, **options)
    trainer.fit(model, data)
    x = data.split("test").x.float()
    rates = data.split("train").x.float().mean(0).clamp(0.01, 0.99)
    independent = torch.distributions.Bernoulli(rates).log_prob(x).flatten(1).sum(1).mean()
    log_z = model.exact_log_z()
    assert log_z is not None
    assert -model.energy(x).mean().item() - log_z.item() > independent.item() + 3
    assert {"valid/energy_gap", "valid/squared_error", "train/loss"} <= trainer.callback_metrics.keys()
    assert abs(trainer.callback_metrics["valid/energy_gap"]) < 3
    held_out = data.split("valid").x.float()
    assert trainer.callback_metrics["valid/log_z"].item() == pytest.approx(log_z.item(), abs=1e-3)
    assert trainer.callback_metrics["valid/nll"].item() == pytest.approx(
        (model.energy(held_out).mean() + log_z).item(), abs=1e-2
    )
    torch.testing.assert_close(
        model.base.sigmoid().view(1, 8, 8), data.split("train").x.float().mean(0), atol=1e-3, rtol=0
    )


def test_gradients_are_of_centred_units(rbm: RBM) -> None:
    """The gradient of W is a sum over products of centred units."""
    x = bits(5).view(-1, 1, 1, 5)
    rbm.zero_grad()
    rbm.energy(x[:20]).sum().backward()
    h = rbm.chain()._inputs(x[:20].flatten(1)).sigmoid()
    expected = -((h - 0.5).T @ (x[:20].flatten(1) - rbm.base.sigmoid()))
    torch.testing.assert_close(rbm.weight.grad, expected)


def test_filters_chains_and_landscapes_as_pictures(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rbm = RBM(event_shape=[1, 8, 8], num_hidden=6)
    with torch.no_grad():
        rbm.weight.mul_(torch.arange(1, 7.0)[:, None])
    Zoo.save(rbm, tmp_path / "rbm", recipe={"name": "rbm", "data": {"class": "Digits", "binarize": True}})
    Zoo.save(EBM(hidden=4), tmp_path / "ebm", recipe={"name": "ebm", "data": {"class": "Toy2D"}})

    def run(command: str, name: str, *words: object, out: str = "x.png") -> int:
        place = ["--out", str(tmp_path / out), "--overwrite"]
        return main([command, f"local-dir:{tmp_path / name}", *map(str, words), *place])

    assert run("filters", "rbm", "-n", 4) == 0
    sheet = filter_sheet(rbm.filters, 4)
    assert sheet.shape == (4, 1, 8, 8) and sheet.amin() >= 0 and sheet.amax() <= 1
    expected = rbm.weight[rbm.weight.norm(dim=1).argmax()]
    torch.testing.assert_close((sheet[0].flatten() - 0.5) * 2, expected / expected.abs().max())
    for start in ("noise", "data"):
        words = ("-n", 2, "--frames", 3, "--sampler", "gibbs", "--steps", 4, "--start", start)
        assert run("animate", "rbm", *words, out=f"{start}.gif") == 0
        with Image.open(tmp_path / f"{start}.gif") as film:
            assert getattr(film, "n_frames", 1) > 1
    assert run("landscape", "ebm", "-n", 5, "--sampler", "langevin", "--steps", 2) == 0
    capsys.readouterr()
    for command, name, message in (
        ("filters", "ebm", "expected a model that draws images, found EBM"),
        ("landscape", "rbm", "expected a model of points in the plane with a density or an energy, found RBM"),
    ):
        assert run(command, name) == 1
        assert message in capsys.readouterr().err
