"""Adversaries: their losses and regularisers against formulas and brute force, and the steps of the two players."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
import torch
from instances import Instance
from lightning import Callback
from lightning import Trainer as LightningTrainer
from torch import Tensor, nn

from zoo.batch import Batch
from zoo.errors import ConfigError, ZooError
from zoo.gan.ali import ALI
from zoo.gan.conditional_gan import ConditionalGAN
from zoo.gan.dcgan import DCGAN, JacobianClamping, Roth
from zoo.gan.game import Game, Loss, NonSaturating, Penalty, Wasserstein, ZeroCentred
from zoo.gan.gan import GAN, Minimax
from zoo.gan.r3gan import Relativistic
from zoo.gan.sngan import SNGAN, Hinge
from zoo.gan.wgan import WGAN, clip_weights
from zoo.gan.wgan_gp import GradientPenalty
from zoo.objectives import diversity
from zoo.optim import Optimization
from zoo.random import Streams, randn
from zoo.training import Trainer
from zoo.training.recipe import build_data, build_model, fit

SHAPE = {"event_shape": [1, 4, 4], "latent_dim": 2, "channels": 16}


def noise(num: int, step: int = 0) -> Streams:
    return Streams(0, range(num), step)


# -------------------------------------------------------------------------------------------------------------- losses

R, F = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-3.0, 1.0, 0.25])
P_REAL, P_FAKE = R.sigmoid(), F.sigmoid()  # D of the papers
NATURAL = -P_REAL.log().mean() - (1 - P_FAKE).log().mean()


@pytest.mark.parametrize(
    ("loss", "critic", "generator", "accuracy"),
    [
        (Minimax(), NATURAL, (1 - P_FAKE).log().mean(), 2 / 3 / 2 + 1 / 3 / 2),
        (NonSaturating(), NATURAL, -P_FAKE.log().mean(), 2 / 3 / 2 + 1 / 3 / 2),
        (Hinge(), torch.tensor((0 + 2 + 0.5) / 3 + (0 + 2 + 1.25) / 3), -F.mean(), 2 / 3 / 2 + 1 / 3 / 2),
        (Wasserstein(), F.mean() - R.mean(), -F.mean(), 6 / 9),
        (Relativistic(), -(R - F).sigmoid().log().mean(), -(F - R).sigmoid().log().mean(), 6 / 9),
    ],
)
def test_losses_are_the_formulas_of_their_papers(
    loss: Loss, critic: Tensor, generator: Tensor, accuracy: float
) -> None:
    torch.testing.assert_close(loss.critic(R, F), critic)
    torch.testing.assert_close(loss.generator(F, R if loss.sees_real else None), generator)
    assert loss.accuracy(R, F) == pytest.approx(accuracy)


@pytest.mark.parametrize("loss", [Minimax(), NonSaturating(), Hinge(), Wasserstein(), Relativistic()])
def test_losses_push_the_two_players_apart(loss: Loss) -> None:
    """The critic lifts what it says of reals above fakes, the generator the fakes, and with an encoder lowers reals."""
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    for value, sign in ((loss.critic(real, fake), 1), (loss.generator(fake, real), -1)):
        up, down = torch.autograd.grad(value, (real, fake))
        assert (sign * up < 0).all() and (sign * down > 0).all()


# -------------------------------------------------------------------------------------------------------- regularisers


class Cubic(nn.Module):
    """A critic of two dimensions whose slope is known: D(x) = a^3 + 2 b."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] ** 3 + 2 * x[:, 1]


REAL, FAKE = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.5, -2.0]]), torch.tensor([[0.0, 0.5], [2.0, -5.0]])
SLOPES = [9 * x[:, 0] ** 4 + 4 for x in (REAL, FAKE)]


def test_zero_centred_penalties() -> None:
    one = ZeroCentred(3.0)(Cubic(), REAL, FAKE, noise(3))
    both = ZeroCentred(3.0, on_fake=True)(Cubic(), REAL, FAKE, noise(3))
    torch.testing.assert_close(one, 1.5 * SLOPES[0].mean())
    torch.testing.assert_close(both, 1.5 * (SLOPES[0].mean() + SLOPES[1].mean()))


def test_the_penalty_of_roth_weighs_by_the_doubt_of_the_critic() -> None:
    probability = [Cubic()(x).sigmoid() for x in (REAL, FAKE)]
    expected = ((1 - probability[0]) ** 2 * SLOPES[0]).mean() + (probability[1] ** 2 * SLOPES[1]).mean()
    torch.testing.assert_close(Roth(3.0)(Cubic(), REAL, FAKE, noise(3)), 1.5 * expected)


def test_the_penalty_of_roth_is_what_noise_does_near_the_best_critic() -> None:
    """Of a linear critic, to first order in the variance s^2: E[softplus(-D(x + s e))] - softplus(-D(x)) is
    s^2/2 p (1 - p) |grad D|^2, which where p = 1/2 is the penalty's s^2/2 (1 - p)^2 |grad D|^2.
    """
    weight = torch.tensor([0.3, -0.2], dtype=torch.float64)
    x = torch.zeros(200_000, 2, dtype=torch.float64)
    blurred = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss, penalty = NonSaturating(), Roth(0.1**2)
    at_rest = loss.critic(x @ weight, x @ weight)
    added = [loss.critic(sign * blurred @ weight, sign * blurred @ weight) - at_rest for sign in (1, -1)]
    found = penalty(lambda y: y @ weight, x[:1], x[:1], noise(1))
    torch.testing.assert_close(found, (added[0] + added[1]) / 2, rtol=0.02, atol=0)


def test_the_gradient_penalty_is_zero_at_slope_one_between_real_and_fake() -> None:
    seen = []

    def score(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return 3 * x[:, 0] - 4 * x[:, 1]

    real, fake = torch.ones(500, 2), torch.tensor([[-1.0, 3.0]]).expand(500, 2)
    assert GradientPenalty(10.0)(score, real, fake, noise(500)).item() == pytest.approx(10 * (5 - 1) ** 2)
    share = (seen[0][:, 0] + 1) / 2
    torch.testing.assert_close(seen[0], fake + share[:, None] * (real - fake))
    assert 0 <= share.min() < 0.05 and 0.95 < share.max() <= 1 and abs(share.mean() - 0.5) < 0.05
    flat = GradientPenalty(10.0)(lambda x: 0.6 * x[:, 0] + 0.8 * x[:, 1], real, fake, noise(500))
    assert flat.item() == pytest.approx(0, abs=1e-9)


def test_instance_noise_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = torch.full((4000, 1, 2, 2), 0.5), DCGAN(**SHAPE, instance_noise=0.4)
    model.num_steps = 20
    for step, scale in ((0, 0.4), (15, 0.1)):
        monkeypatch.setattr(DCGAN, "global_step", step)
        apart = model.noisy(x, noise(4000)) - x
        assert apart.mean().abs() < 0.02 * scale * 5 and apart.std().item() == pytest.approx(scale, rel=0.03)
    monkeypatch.setattr(DCGAN, "global_step", 20)
    assert torch.equal(model.noisy(x, noise(4000)), x)


def test_the_critic_sees_real_and_fake_images_under_instance_noise() -> None:
    model, seen = DCGAN(**SHAPE, instance_noise=0.5), []
    model.critic.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    real, fake = torch.zeros(200, 1, 4, 4), torch.ones(200, 1, 4, 4)
    model.critic_loss(real, fake, noise(200))
    model.generator_loss(real, fake, noise(200))
    apart = [x - exact for x, exact in zip(seen, (torch.cat([real, fake]), fake), strict=True)]
    assert [x.std().item() for x in apart] == pytest.approx([0.5, 0.5], rel=0.05)
    assert not torch.equal(*apart[0].chunk(2))


def test_weights_are_clipped() -> None:
    critic = nn.Linear(3, 2)
    before = [p.detach().clone() for p in critic.parameters()]
    clip_weights(critic, 0.1)
    assert all(torch.equal(p, q.clamp(-0.1, 0.1)) for p, q in zip(critic.parameters(), before, strict=True))


@pytest.mark.parametrize(("scale", "excess"), [(0.1, 1.0 - 0.2), (0.7, 0.0), (30.0, 60.0 - 20.0)])
def test_jacobian_clamping_bounds_what_a_step_of_the_code_does(scale: float, excess: float) -> None:
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
    part = JacobianClamping(1.0, 20.0, step=0.5)
    penalty = part(lambda z: scale * z @ rotation, *(randn((6, 3), noise(6, step)) for step in range(2)))
    assert penalty.item() == pytest.approx(excess**2, rel=1e-4, abs=1e-9)  # images in [-1, 1] vary twice as much


PENALTIES = [ZeroCentred(1.0, on_fake=True), Roth(1.0), GradientPenalty(10.0)]


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: type(penalty).__name__)
@pytest.mark.parametrize("cls", [DCGAN, ConditionalGAN, ALI])
def test_penalties_act_in_every_game_wherever_it_is(cls: type[Game], penalty: Penalty) -> None:
    """A stand-in for a GPU: a tensor that some code had made on the CPU would be refused there."""
    options: Any = {"instance_noise": 0.5, "jacobian_clamping": [100.0, 200.0]} if cls is DCGAN else {}
    with torch.device("meta"):
        model = cls(**SHAPE, **options)
    model.penalty = penalty
    batch = Batch(*(t.to("meta") for t in (torch.rand(3, 1, 4, 4), torch.arange(3))), torch.arange(3))
    given, streams = model.given(batch), model.streams(batch)
    real, fake = model.pair(batch.x, streams, **given)
    assert model.critic_loss(real.detach(), fake.detach(), streams, **given)["loss"].is_meta
    assert model.generator_loss(real, fake, streams, **given).is_meta


def test_clamping_acts_on_the_generator() -> None:
    model, x = DCGAN(**SHAPE, jacobian_clamping=[100.0, 200.0]), torch.rand(2, 1, 4, 4)
    clamping, model.clamping = model.clamping, None
    plain = model.generator_loss(x, x, noise(2))
    model.clamping = clamping
    streams = noise(2)
    expected = clamping(model.decode, *(randn((2, 2), streams) for _ in range(2)))
    torch.testing.assert_close(model.generator_loss(x, x, noise(2)) - plain, 4 * expected)
    assert expected > 1.0


def test_penalties_of_some_steps_weigh_as_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = DCGAN(**SHAPE, jacobian_clamping=[1.0, 20.0]), DCGAN(**SHAPE)
    plain.load_state_dict(model.state_dict())
    model.penalty, model.clamping = (lambda *_: torch.tensor(3.0)), (lambda *_: torch.tensor(5.0))
    x, fake = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    added = []
    for step in range(8):
        monkeypatch.setattr(DCGAN, "global_step", step)
        added.append(
            [
                (model.critic_loss(x, fake, noise(3))["loss"] - plain.critic_loss(x, fake, noise(3))["loss"]).item(),
                (model.generator_loss(x, fake, noise(3)) - plain.generator_loss(x, fake, noise(3))).item(),
            ]
        )
    assert torch.tensor(added).mean(0).tolist() == pytest.approx([3.0, 5.0])
    assert [row[0] > 1 for row in added] == [True, False, False, False] * 2


def test_the_penalty_of_the_gan_is_that_of_finite_differences() -> None:
    plain, penalised = (Instance(GAN, {**SHAPE, "penalty": p}, 256).build().double() for p in (0.0, 3.0))
    real, fake = (Instance(GAN, SHAPE, 256).data(num).double() for num in (5, 7))

    def penalty() -> Tensor:
        return penalised.critic_loss(real, fake, noise(5))["loss"] - plain.critic_loss(real, fake, noise(5))["loss"]

    step, squares = 1e-6, torch.zeros(5, dtype=torch.float64)
    with torch.no_grad():
        for direction in torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4):
            ends = [plain.critic(real + sign * step * direction)[:, 0] for sign in (1, -1)]
            squares += ((ends[0] - ends[1]) / (2 * step)) ** 2
    torch.testing.assert_close(penalty(), 4 * 3.0 / 2 * squares.mean(), atol=1e-7, rtol=1e-5)
    # it reaches the weights: its derivative along one of them
    weight = penalised.critic[0][1].weight
    (gradient,) = torch.autograd.grad(penalised.critic_loss(real, fake, noise(5))["loss"], weight)
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0, 1, 1] += sign * step
        losses.append(penalised.critic_loss(real, fake, noise(5))["loss"].detach())
        with torch.no_grad():
            weight[0, 0, 1, 1] -= sign * step
    torch.testing.assert_close(gradient[0, 0, 1, 1], (losses[0] - losses[1]) / (2 * step), atol=1e-6, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------------- steps


class Counting(WGAN):
    """Remembers what the critic saw."""

    def __init__(self, critic_steps: int) -> None:
        super().__init__([1, 4, 4], latent_dim=3, channels=16, clip=0.1, critic_steps=critic_steps)
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 2, 2)))
        self.critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))
        self.event_shape = (1, 2, 2)
        self.seen: list[tuple[int, Tensor, Tensor]] = []

    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        self.seen.append((self.global_step, real, self.critic[1].weight.detach().clone()))
        return super().critic_loss(real, fake, streams, **given)

    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        assert self.critic[1].weight.abs().max() <= 0.1
        return super().generator_loss(real, fake, streams, **given)


def play(model: Game, folder: Path, batch_size: int = 10, side: int = 2, **options: Any) -> LightningTrainer:
    from zoo.data import Arrays

    x = torch.arange(120 * side**2).view(120, 1, side, side) / (120 * side**2)
    data = Arrays.from_array(x, batch_size=batch_size)
    model.optimization = Optimization(lr=1e-3)
    trainer = Trainer(folder, accelerator="cpu", progress=False, sample_grids=False, **options)
    trainer.fit(model, data)
    return trainer


def test_the_critic_moves_several_times_a_step_each_on_its_own_examples(tmp_path: Path) -> None:
    model = Counting(critic_steps=4)
    trainer = play(model, tmp_path, max_epochs=-1, max_steps=6)
    assert trainer.global_step == 6 and len(model.seen) == 24
    assert [step for step, _, _ in model.seen] == [step for step in range(6) for _ in range(4)]
    assert [len(real) for _, real, _ in model.seen[:4]] == [3, 3, 2, 2]  # ten examples by four
    first = torch.cat([real for _, real, _ in model.seen[:4]]).flatten(1)
    assert len(first.unique(dim=0)) == 10
    weights = [weight for _, _, weight in model.seen]
    assert all(not torch.equal(a, b) for a, b in pairwise(weights))
    assert weights[0].abs().max() > 0.1  # the first, from which training begins
    assert max(weight.abs().max() for weight in weights[1:]) <= 0.1


def test_instance_noise_knows_the_length_of_the_run(tmp_path: Path) -> None:
    class Recording(DCGAN):
        def noisy(self, x: Tensor, streams: Streams) -> Tensor:
            passed.append((self.global_step, self.num_steps))
            return super().noisy(x, streams)

    passed: list[tuple[int, float]] = []
    model = Recording(**SHAPE, instance_noise=0.1)
    play(model, tmp_path, side=4, max_epochs=-1, max_steps=6)
    assert passed == [(step, 6) for step in range(6) for _ in range(3)]  # reals and fakes, then fakes again


def test_a_batch_too_small_for_the_steps_of_the_critic(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^batch_size: expected at least 11 examples .*, found 10$"):
        play(Counting(critic_steps=11), tmp_path, max_epochs=1)


def test_labels_reach_both_players() -> None:
    model, seen = ConditionalGAN(**SHAPE, num_classes=3, penalty=0.0), []
    labels = torch.tensor([2, 0, 1, 2])
    batch = Batch(torch.rand(4, 1, 4, 4), labels, torch.arange(4))
    streams = model.streams(batch)
    _, fake = model.pair(batch.x, streams, **model.given(batch))
    assert torch.equal(fake, model.draw(model.streams(batch), labels=labels))
    model.critic.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    loss = model.critic_loss(batch.x, fake.detach(), streams, labels=labels)["loss"]
    chosen = seen[0][torch.arange(8), torch.cat([labels, labels])]
    torch.testing.assert_close(loss, NonSaturating().critic(chosen[:4], chosen[4:]))
    generator = model.generator_loss(batch.x, fake, streams, labels=labels)
    torch.testing.assert_close(generator, NonSaturating().generator(chosen[4:], None))


def test_pairs_of_image_and_code_train_encoder_and_decoder_against_the_critic() -> None:
    model = ALI(**SHAPE, hidden=8, penalty=0.0)
    batch = Batch(torch.rand(4, 1, 4, 4), None, torch.arange(4))
    streams = model.streams(batch)
    real, fake = model.pair(batch.x, streams)
    assert real.shape == fake.shape == (4, 16 + 2)
    assert torch.equal(real[:, :16].view_as(batch.x), batch.x)
    torch.testing.assert_close(fake[:, :16].view_as(batch.x), model.decode(fake[:, 16:]))
    on_real, on_fake = model.score(real), model.score(fake)
    expected = -(1 - on_real.sigmoid()).log().mean() - on_fake.sigmoid().log().mean()
    torch.testing.assert_close(model.generator_loss(real, fake, streams), expected)


def test_layers_of_a_normalised_critic_have_spectral_norm_one() -> None:
    torch.manual_seed(0)
    model = SNGAN(event_shape=[1, 8, 8], latent_dim=2, channels=16).train()
    for _ in range(1000):  # power iterations, slow where the two largest singular values are close
        model.critic(torch.rand(2, 1, 8, 8))
    layers = [layer for layer in model.critic.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------------------------------- what a run says of its health


def test_diversity_is_the_mean_squared_distance_of_pairs() -> None:
    real, fake = torch.rand(6, 1, 2, 3), 0.3 * torch.rand(5, 1, 2, 3)
    distances = [torch.cdist(x.flatten(1), x.flatten(1)).square() for x in (real, fake)]
    torch.testing.assert_close(diversity(real, fake), distances[1].mean() / distances[0].mean())
    assert diversity(real, fake[:1].expand(5, 1, 2, 3)) == pytest.approx(0, abs=1e-12)
    assert diversity(real[:1], fake).isfinite()  # a batch of one


@pytest.mark.parametrize("player", ["generator", "critic"])
@pytest.mark.parametrize("kind", ["adversarial", "several steps", "spectral"])
def test_divergence_of_either_player_stops_training(kind: str, player: str, tmp_path: Path) -> None:
    settings = tiny_runs.recipe(kind, log_every_n_steps=2, checkpoint_every=100)
    model, data = build_model(settings["model"]), build_data(settings["data"], 3)

    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == 5:
                with torch.no_grad():
                    next(getattr(pl_module, player).parameters()).view(-1)[0] = float("nan")

    trainer = Trainer(
        tmp_path, accelerator="cpu", progress=False, max_epochs=1, log_every_n_steps=2, callbacks=[Spoil()]
    )
    with pytest.raises(ZooError, match=r"^training diverged: .* is nan at step 6; try a smaller optimization.lr"):
        trainer.fit(model, data)


def test_the_log_shows_accuracy_and_diversity(tmp_path: Path) -> None:
    fit(tiny_runs.recipe("noise", max_epochs=1), tmp_path / "run")
    (log,) = tmp_path.glob("run/logs/version_0/metrics.csv")
    head, *rows = (line.split(",") for line in log.read_text().splitlines())
    for name in ("train/critic_accuracy", "train/diversity"):
        values = [float(row[head.index(name)]) for row in rows if row[head.index(name)]]  # others are of validation
        assert len(values) == 3 and all(0 <= value < 2 for value in values)
