"""The common Trainer: steps, schedules, averages, logs, errors, and files that survive."""

from __future__ import annotations

import csv
import errno
import os
import re
import warnings
from pathlib import Path
from typing import Any

import lightning
import pytest
import tiny_runs
import torch
from lightning import Callback, LightningModule
from torch import Tensor
from torch.nn import Parameter

from zoo import Zoo
from zoo.batch import Batch
from zoo.capabilities import Adversarial, GenerativeModel, TractableDensity, ZooModule
from zoo.config import load_yaml
from zoo.data import Arrays, Digits
from zoo.density.gaussian import Gaussian
from zoo.density.memoriser import Memoriser
from zoo.errors import CheckpointError, ConfigError, ZooError
from zoo.optim import Optimization
from zoo.optim.muon import matrices, orthogonalize
from zoo.random import Streams, randn
from zoo.training import Trainer, callbacks
from zoo.training import trainer as trainer_module
from zoo.training.recipe import begin, build_data, build_model, fit, load_recipe, override
from zoo.vae.vae import VAE

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("checkpoints/*/recipe.yaml"))
PROFESSOR = {"forcing": "professor"}


class Bell(TractableDensity):
    """N(loc, 1) on two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.event_shape = (2,)
        self.loc = torch.nn.Parameter(torch.tensor([3.0, -3.0]))

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * (x - self.loc).square().sum(-1)

    def draw(self, streams: Streams) -> Tensor:
        return self.loc + randn((len(streams), 2), streams)


class Duel(Adversarial):
    """A point against a linear critic."""

    def __init__(self) -> None:
        super().__init__()
        self.event_shape = (2,)
        self.generator = torch.nn.Linear(2, 2)
        self.critic = torch.nn.Linear(2, 1)
        self.batches = 0

    def draw(self, streams: Streams) -> Tensor:
        return self.generator(randn((len(streams), 2), streams))

    def critic_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> dict[str, Tensor]:
        self.batches += 1
        return {"loss": 1e3 * (self.critic(fake).mean() - self.critic(real).mean()) + self.critic.weight.square().sum()}

    def generator_loss(self, real: Tensor, fake: Tensor, streams: Streams, **given: Tensor) -> Tensor:
        return -1e3 * self.critic(fake).mean()


class Probe(Callback):
    """After each step, the weights and the learning rates of the next one."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[list[float]] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.weights.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})
        self.rates.append([group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups])


def points(num: int = 100, batch_size: int = 10) -> Arrays:
    x = torch.randn(num, 2, generator=torch.Generator().manual_seed(0))
    return Arrays.from_array(x, batch_size=batch_size)


def run(model: Any, folder: Path, data: Any = None, **options: Any) -> tuple[Any, Probe]:
    probe = Probe()
    quiet = {"progress": False, "sample_grids": False, "accelerator": "cpu", "log_every_n_steps": 4}
    made = Trainer(folder, callbacks=[probe], **{**quiet, **options})
    made.fit(model, data or points())
    return made, probe


def rows(folder: Path, key: str, version: int = 0) -> list[tuple[int, float]]:
    """(step, value) of a column of the CSV log."""
    with (folder / "logs" / f"version_{version}" / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row.get(key)]


# ------------------------------------------------------------------------------------------------ steps and schedules


@pytest.mark.parametrize("model", [Bell, Duel])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_steps_are_iterations_and_schedules_end_at_zero(model: type, schedule: str, tmp_path: Path) -> None:
    module = model()
    module.optimization = Optimization(lr=0.1, critic_lr=0.2, schedule=schedule, warmup=4)
    trainer, probe = run(module, tmp_path, max_steps=20, max_epochs=-1)
    assert trainer.global_step == len(probe.rates) == 20
    assert getattr(module, "batches", 20) == 20
    peaks = [0.1, 0.2] if model is Duel else [0.1]
    first = [rate[0] for rate in probe.rates]
    assert first[:3] == pytest.approx([0.05, 0.075, 0.1])
    assert probe.rates[2] == pytest.approx(peaks)
    if schedule == "constant":
        assert first[3:] == [0.1] * 17
    else:
        assert probe.rates[-1] == pytest.approx([0.0] * len(peaks), abs=1e-12)
        assert min(first[:-1]) > 0
        assert first[11] == pytest.approx(0.05)  # halfway between the warm-up and the end, both curves are at a half


@pytest.mark.parametrize("model", [Bell, Duel])
def test_schedules_count_the_steps_of_epochs(model: type, tmp_path: Path) -> None:
    module = model()
    module.optimization = Optimization(lr=0.1, schedule="linear")
    trainer, probe = run(module, tmp_path, max_epochs=3)
    assert trainer.global_step == 24  # 80 examples in batches of 10
    assert [rate[0] for rate in probe.rates] == pytest.approx([0.1 * (1 - k / 24) for k in range(1, 25)])


@pytest.mark.parametrize("model", [Bell, Duel])
def test_gradients_are_clipped(model: type, tmp_path: Path) -> None:
    module = model()
    module.optimization = Optimization(optimizer="sgd", lr=0.1, beta1=0.0, gradient_clip=0.5)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    _, probe = run(module, tmp_path, max_steps=1, max_epochs=-1, ema_decay=None)
    nets = ("generator.", "critic.") if model is Duel else ("",)
    for net in nets:
        moved = [probe.weights[0][n] - start[n] for n in start if n.startswith(net)]
        assert float(torch.cat([m.flatten() for m in moved]).norm()) == pytest.approx(
            0.05, rel=1e-4
        )  # lr times the bound


def test_weight_decay_spares_biases() -> None:
    groups = Optimization(optimizer="adamw", weight_decay=0.1).build(torch.nn.Linear(2, 3)).param_groups
    assert [(group["weight_decay"], [p.ndim for p in group["params"]]) for group in groups] == [(0.1, [2]), (0.0, [1])]
    (group,) = Optimization().build(torch.nn.Linear(2, 3)).param_groups
    assert (group["weight_decay"], [p.ndim for p in group["params"]]) == (0.0, [2, 1])


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (3, 30, 30)])
def test_orthogonalized_matrices_keep_their_directions_at_one_size(shape: tuple[int, ...]) -> None:
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(m, full_matrices=False)
    between = u.mT @ orthogonalize(m) @ vt.mT
    sizes = between.diagonal(dim1=-2, dim2=-1)
    assert (sizes > 0.3).all() and (sizes < 1.3).all() and sizes.std() < 0.2
    torch.testing.assert_close(between, torch.diag_embed(sizes), rtol=0, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
def test_muon_steps_weights_of_layers_as_torch_does_and_all_else_as_adamw() -> None:
    random = torch.Generator().manual_seed(0)
    layers = [torch.nn.Linear(20, 30), torch.nn.Linear(20, 30), torch.nn.Conv2d(2, 8, 3), torch.nn.Linear(9, 1)]
    module = torch.nn.Sequential(*layers, torch.nn.Conv2d(1, 8, 1), torch.nn.Embedding(5, 4), torch.nn.LayerNorm(6))
    orthogonal = [layer.weight for layer in layers[:3]]
    assert matrices(module) == set(orthogonal)
    settings = {"lr": 0.02, "weight_decay": 0.1}
    muon = Optimization(optimizer="muon", **settings).build(module)
    begun = [p.detach().clone() for p in module.parameters()]
    others = [Parameter(p.clone().flatten(1) if p.ndim == 4 and len(p[0]) == 2 else p.clone()) for p in begun]
    is_orthogonal = [p in set(orthogonal) for p in module.parameters()]
    rest = [p for p, left_out in zip(others, is_orthogonal, strict=True) if not left_out]
    theirs = [
        torch.optim.Muon(
            [p for p, chosen in zip(others, is_orthogonal, strict=True) if chosen],
            adjust_lr_fn="match_rms_adamw",
            **settings,
        ),
        torch.optim.AdamW([p for p in rest if p.ndim > 1], **settings),
        torch.optim.AdamW([p for p in rest if p.ndim == 1], lr=0.02, weight_decay=0.0),
    ]
    for _ in range(8):
        for mine, other in zip(module.parameters(), others, strict=True):
            mine.grad = torch.randn(mine.shape, generator=random)
            other.grad = mine.grad.view_as(other).clone()
        for optimizer in (muon, *theirs):
            optimizer.step()
    for mine, other, start, chosen in zip(module.parameters(), others, begun, is_orthogonal, strict=True):
        error = (mine.view_as(other) - other).norm() / (mine - start).norm()
        assert error < (0.02 if chosen else 1e-6)  # torch's products are in bfloat16


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"lr": 0.0}, "lr"),
        ({"critic_lr": -1.0}, "critic_lr"),
        ({"gradient_clip": 0.0}, "gradient_clip"),
        ({"warmup": -1}, "warmup"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"beta2": 1.0}, "beta2"),
    ],
)
def test_impossible_optimizations(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^optimization: {named} must .*, found {next(iter(settings.values()))}$"):
        Optimization(**settings)


# ------------------------------------------------------------------------------------------------------------ averages


@pytest.mark.parametrize("model", [Bell, Duel])
def test_the_trained_weights_are_the_average(model: type, tmp_path: Path) -> None:
    module = model()
    module.optimization = Optimization(lr=0.1)
    expected = {name: p.detach().double() for name, p in module.named_parameters()}
    _, probe = run(module, tmp_path, max_steps=50, max_epochs=-1, ema_decay=0.75, checkpoint_every=50)
    for step, weights in enumerate(probe.weights, start=1):
        stride = 1 if step <= 40 else 4
        if step % stride:
            continue
        decay = min(0.75, step / (step + 9)) ** stride
        expected = {name: decay * value + (1 - decay) * weights[name] for name, value in expected.items()}
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, parameter in module.named_parameters():
        assert torch.allclose(parameter.double(), expected[name], atol=1e-6)
        assert torch.equal(last["state_dict"][name], parameter)
        assert torch.equal(last["raw_state_dict"][name], probe.weights[-1][name])
    assert any(not torch.allclose(p, probe.weights[-1][name], atol=1e-3) for name, p in module.named_parameters())


def test_accumulated_gradients_make_one_step_of_the_average(tmp_path: Path) -> None:
    module = Bell()
    module.optimization = Optimization(lr=0.1)
    trainer, probe = run(module, tmp_path, max_epochs=2, accumulate_grad_batches=4, ema_decay=0.0)
    assert (trainer.global_step, len(probe.weights)) == (4, 16)
    assert torch.equal(module.loc, probe.weights[-1]["loc"])


def test_an_average_of_decay_0_is_the_last_weights(tmp_path: Path) -> None:
    module = Bell()
    module.optimization = Optimization(lr=0.1)
    _, probe = run(module, tmp_path, max_steps=50, max_epochs=-1, ema_decay=0.0)
    assert torch.equal(module.loc, probe.weights[-1]["loc"])
    assert not torch.equal(module.loc, probe.weights[-2]["loc"])


def test_accumulated_gradients_leave_no_loss_out_of_the_log(tmp_path: Path) -> None:
    losses: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append(outputs["loss"].item())

    module = Bell()
    options = {"accumulate_grad_batches": 4, "max_epochs": 2, "log_every_n_steps": 2, "accelerator": "cpu"}
    made = Trainer(tmp_path, callbacks=[Losses()], progress=False, sample_grids=False, **options)
    made.fit(module, points())
    logged = [value for _, value in rows(tmp_path, "train/loss")]
    assert len(losses) == 16 and logged == pytest.approx([sum(losses[:8]) / 8, sum(losses[8:]) / 8])


def test_a_run_with_averages_goes_on_without_them(tmp_path: Path) -> None:
    settings = tiny_runs.recipe("likelihood", optimization={"schedule": "constant"}, ema_decay=None)
    whole = fit(settings, tmp_path / "whole")
    averaged = override(settings, {"trainer.ema_decay": 0.9, "trainer.max_epochs": 2})
    assert not torch.equal(next(fit(averaged, tmp_path / "run").parameters()), next(whole.parameters()))
    resumed = fit(settings, tmp_path / "run", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_validation_and_sample_grids_see_averaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_runs.recipe("likelihood", max_epochs=1, sample_grids=True, ema_decay=0.99)
    seen: dict[str, Tensor] = {}

    def remember(kind: str, name: str) -> None:
        method = getattr(GenerativeModel if name == "sample" else trained, name)

        def remembering(self: GenerativeModel, *args: Any, **kwargs: Any) -> Any:
            seen[kind] = next(self.parameters()).detach().clone()
            return method(self, *args, **kwargs)

        monkeypatch.setattr(GenerativeModel if name == "sample" else trained, name, remembering)

    trained = type(build_model(settings["model"]))
    remember("validation", "validation_step")
    remember("grid", "sample")
    remember("training", "training_step")
    model = fit(settings, tmp_path / "run")
    final = next(model.parameters())
    assert torch.equal(seen["validation"], final)
    assert torch.equal(seen["grid"], final)
    assert not torch.allclose(seen["training"], final, atol=1e-4)
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["epoch_0000.png"]
    batches = list(build_data(settings["data"], 3).batches("valid"))
    with torch.no_grad():
        total = sum(float(model.validation_step(batch, 0)["neg_elbo"].sum()) for batch in batches)
    logged = rows(tmp_path / "run", "valid/neg_elbo")
    assert logged == [(11, pytest.approx(total / 200, rel=1e-5))]


def test_closed_form_models_are_fitted_before_validation_and_not_averaged(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = tiny_runs.recipe("closed-form", max_epochs=1)
    model = fit(settings, folder)
    data = build_data(settings["data"], 3)
    x = torch.cat([batch.x for batch in data.batches("train")]).flatten(1)
    assert torch.allclose(model.loc, (x * 255 + 0.5).mean(0) / 256, atol=0.01)  # 1200 of the 1297, dequantised
    batches = list(data.batches("valid"))
    total = sum(float(model.validation_step(batch, 0)["nll"].sum()) for batch in batches)
    assert rows(folder, "valid/nll") == [(11, pytest.approx(total / 200, rel=1e-5))]


def test_closed_form_models_are_not_fitted_to_part_of_an_epoch(tmp_path: Path) -> None:
    """Ten examples have no covariance in 16 dimensions; four hundred have."""
    x = torch.rand(500, 1, 4, 4, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    models = [Gaussian([1, 4, 4], levels=256) for _ in range(2)]
    for model, often in zip(models, (1.0, 1), strict=True):
        run(
            model,
            tmp_path / type(often).__name__,
            Arrays.from_array(x, batch_size=10),
            max_epochs=1,
            val_check_interval=often,
        )
    assert torch.equal(models[0].loc, models[1].loc) and models[0].loc.ne(0).all()


def test_a_gaussian_of_fewer_examples_than_pixels_is_refused() -> None:
    model = Gaussian([1, 4, 4], levels=256)
    model.statistics = model.gather(torch.zeros(5, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ZooError, match=r"expected examples that vary in all 16 dimensions, found 5 with .*jitter"):
        model.finish(model.statistics)
    assert model.loc.eq(0).all()  # as it was


# ---------------------------------------------------------------------------------------------------------------- logs


def test_logged_losses_are_means(tmp_path: Path) -> None:
    module, losses = Bell(), []
    original = module.training_step

    def step(batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        losses.append(original(batch, batch_idx))
        return losses[-1]

    module.training_step = step
    module.optimization = Optimization(lr=0.1, schedule="linear")
    run(module, tmp_path, max_epochs=1, log_every_n_steps=3)
    values = [float(loss["loss"].detach()) for loss in losses]
    means = [sum(values[:3]) / 3, sum(values[3:6]) / 3, sum(values[6:]) / 2]  # the last at the end of the epoch
    assert rows(tmp_path, "train/loss") == [
        (2, pytest.approx(means[0])),
        (5, pytest.approx(means[1])),
        (7, pytest.approx(means[2])),
    ]
    assert [value for _, value in rows(tmp_path, "train/lr")] == pytest.approx([0.1 * 5 / 8, 0.1 * 2 / 8, 0.0])


def test_csv_is_the_default(tmp_path: Path) -> None:
    assert [type(logger).__name__ for logger in Trainer(tmp_path, accelerator="cpu").loggers] == ["CSVLogger"]


def test_a_run_says_nothing_that_is_of_no_use(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in tiny_runs.MODELS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(tiny_runs.recipe(kind, max_epochs=1), tmp_path / kind)
            fit(tiny_runs.recipe(kind, max_epochs=1), tmp_path / kind, resume=True)
        assert [str(warning.message) for warning in caught] == []
    assert not re.search("available|Tip|deprecated|weights_only", capfd.readouterr().err)


# -------------------------------------------------------------------------------------------------------------- errors


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("kind", ["likelihood", "adversarial"])
def test_divergence_is_one_sentence_and_keeps_the_checkpoint(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_runs.recipe(kind, log_every_n_steps=10)
    cls = type(build_model(settings["model"]))
    original = cls.training_step

    def diverging(self: Any, batch: Batch, batch_idx: int) -> Any:
        if self.global_step == 6:
            with torch.no_grad():
                next(iter(self.parameters())).fill_(float("nan"))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(cls, "training_step", diverging)
    with pytest.raises(ZooError, match=r"^training diverged: .* at step 8; try a smaller optimization.lr") as error:
        fit(settings, tmp_path / "run")  # step 8 would save the run
    one_line(error.value)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 4
    monkeypatch.setattr(cls, "training_step", original)
    assert fit(settings, tmp_path / "run", resume=True)


def test_a_loss_that_is_not_finite_stops_training_at_the_next_log(tmp_path: Path) -> None:
    module = Bell()
    module.optimization = Optimization(optimizer="sgd", lr=1e30)
    with pytest.raises(ZooError, match=r"^training diverged: loss is (nan|inf) at step 4; "):
        run(module, tmp_path, max_epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epoch": 3}, r"no option 'max_epoch'; did you mean 'max_epochs'"),
        ({"ema_decai": 0.9}, r"no option 'ema_decai'; did you mean 'ema_decay'"),
        ({"ema_decay": 1.5}, r"ema_decay must lie in \[0, 1\), found 1.5"),
        ({"checkpoint_every": 0}, r"checkpoint_every must be at least 1, found 0"),
        (
            {"reload_dataloaders_every_n_epochs": 1},
            r"leave out reload_dataloaders_every_n_epochs; every epoch has a new order anyway",
        ),
        ({"max_epochs": "abc"}, r"max_epochs must be int or null, found 'abc'"),
        ({"accumulate_grad_batches": "a"}, r"accumulate_grad_batches must be int, found 'a'"),
        ({"max_time": 43200}, r"max_time: expected .DD:HH:MM:SS., found a number; put it in quotes"),
        ({"gradient_clip_val": 1.0}, r"leave out gradient_clip_val; set optimization.gradient_clip"),
        ({"precision": "16-true"}, r"precision: expected 32-true, bf16-mixed or 16-mixed, found '16-true'"),
        ({"precision": 64}, r"precision: expected 32-true, bf16-mixed or 16-mixed, found 64"),
        ({"precision": "12"}, r".*12"),
        ({"max_epochs": -7}, r".*-7"),
        ({"accelerator": "qpu"}, r".*qpu"),
        ({"devices": 10_000}, r"devices=10000 asks for more processes than this machine has processors \(\d+\)"),
        ({"devices": 0}, r".*0"),
        ({"strategy": "telepathy"}, r".*telepathy"),
    ],
)
def test_unknown_and_impossible_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^trainer: {message}") as error:
        Trainer(tmp_path, **{"accelerator": "cpu", **options})
    one_line(error.value)


@pytest.mark.skipif(torch.cuda.device_count() >= 4, reason="this machine has four GPUs")
def test_more_gpus_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^trainer: ") as error:
        Trainer(tmp_path, devices=4, accelerator="gpu")
    assert "gpu" in one_line(error.value).lower()


@pytest.mark.parametrize("count", [1, 2])
def test_more_processes_than_processors(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module.os, "cpu_count", lambda: count)
    with pytest.raises(ConfigError, match=rf"^trainer: devices=4 asks for more processes than .* \({count}\)"):
        fit(tiny_runs.recipe("likelihood", devices=4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lightnings_options_pass_through(tmp_path: Path) -> None:
    made = Trainer(
        tmp_path, accelerator="cpu", precision="bf16-mixed", max_steps=7, limit_train_batches=3, logger=False
    )
    assert (made.precision, made.max_steps, made.limit_train_batches, made.loggers) == ("bf16-mixed", 7, 3, [])


# --------------------------------------------------------------------------------------------------------- checkpoints


def save_twice(folder: Path, second: Any) -> None:
    writer = callbacks.AtomicCheckpointIO()
    writer.save_checkpoint({"value": torch.zeros(1000)}, folder / "last.ckpt")
    writer.save_checkpoint({"value": second}, folder / "last.ckpt")


def full_from(count: int) -> Any:
    """An `os.fsync` that finds the disk full from the `count`-th checkpoint on."""
    calls: list[int] = []

    def fsync(file: int) -> None:
        calls.extend([file] * tiny_runs.is_checkpoint(file))
        if len(calls) >= count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


def test_a_full_disk_keeps_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_from(2))
    with pytest.raises(CheckpointError, match=r"last.ckpt: cannot be written: No space left on device; ") as error:
        save_twice(tmp_path, torch.ones(1000))
    one_line(error.value)
    assert torch.load(tmp_path / "last.ckpt")["value"].sum() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_kill_while_writing_keeps_the_checkpoint(tmp_path: Path) -> None:
    def work() -> None:
        tiny_runs.in_writing(2)
        save_twice(tmp_path, torch.ones(1000))

    assert tiny_runs.child(work)
    assert torch.load(tmp_path / "last.ckpt")["value"].sum() == 0
    save_twice(tmp_path, torch.ones(1000))
    assert torch.load(tmp_path / "last.ckpt")["value"].sum() == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]  # what the kill left behind is gone


def test_a_full_disk_in_the_middle_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_from(2))
        with pytest.raises(CheckpointError, match="No space left on device"):
            fit(tiny_runs.recipe("likelihood"), tmp_path / "run")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 4
    resumed = fit(tiny_runs.recipe("likelihood"), tmp_path / "run", resume=True)
    whole = fit(tiny_runs.recipe("likelihood"), tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_epochs": 3},
        {"max_epochs": 2, "max_steps": 7},
        {"max_epochs": -1, "max_steps": 7},
        {"max_epochs": 3, "max_steps": 5, "accumulate_grad_batches": 2},
    ],
)
@pytest.mark.parametrize("batch_size", [300, 400, 1000])
def test_a_run_interrupted_at_every_save(
    trainer: dict[str, int], batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short epochs, one of a single batch: their ends are where Lightning's own checkpoints go wrong."""
    settings = tiny_runs.recipe("likelihood", **trainer, checkpoint_every=1)
    settings["data"]["batch_size"] = batch_size
    whole = fit(settings, tmp_path / "whole")
    save = callbacks.AtomicCheckpointIO.save_checkpoint

    def save_and_stop(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        raise tiny_runs.InterruptedRunError

    monkeypatch.setattr(callbacks.AtomicCheckpointIO, "save_checkpoint", save_and_stop)
    stops = 0
    while True:
        try:
            resumed = fit(settings, tmp_path / "run", resume=True)
            break
        except tiny_runs.InterruptedRunError:
            stops += 1
            assert stops < 20, "the run goes on for ever"
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    assert stops > 0 or (batch_size == 1000 and len(trainer) > 1)  # of one batch an epoch and two ends, none is saved


# ------------------------------------------------------------------------------------------------------------- recipes


def test_training_is_without_denormal_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def has_denormals() -> bool:
        return (torch.tensor(2.0**-126) / 2).item() > 0

    found, step = [], VAE.training_step
    monkeypatch.setattr(VAE, "training_step", lambda *given: found.append(has_denormals()) or step(*given))
    fit(tiny_runs.recipe("likelihood", max_steps=2), tmp_path / "run")
    assert found == [False, False]
    assert has_denormals()
    with pytest.raises(ConfigError):
        fit({"seed": "x"}, tmp_path / "none")
    assert has_denormals()


def test_a_run_in_the_way(tmp_path: Path) -> None:
    settings = tiny_runs.recipe("closed-form", max_epochs=1)
    first = fit(settings, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run: there is a run already; resume it, or choose another folder$"):
        fit(settings, tmp_path / "run")
    again = fit(settings, tmp_path / "run", resume=True)
    assert torch.equal(first.loc, again.loc)
    with pytest.raises(
        ConfigError, match=r"the run to resume began with another section 'seed': expected 3, found 4; "
    ):
        fit({**settings, "seed": 4}, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match=r"the run to resume began with another section 'optimization': "):
        fit({**settings, "optimization": {"optimizer": "muon"}}, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": {}}, r"recipe: unknown key 'modle'; did you mean 'model'\?"),
        ({"data": "Digits"}, r"recipe: data must be .*, found 'Digits'"),
        ({"trainer": [1]}, r"recipe: trainer must be "),
        ({"seed": "x"}, r"recipe: seed must be int, found 'x'"),
        ({"data": {"class": "Digit"}}, r"data: no class 'Digit'; did you mean 'Digits'\?"),
        ({"data": {"class": "Digits", "batch_sise": 3}}, r"data: Digits: unknown key 'batch_sise'; did you mean"),
        ({"data": {"class": "Digits", "batch_size": "3"}}, r"data: Digits: batch_size must be int, found '3'"),
        (
            {"model": {"class": "vae.VEA"}},
            r"recipe: model: this version of the zoo has no class 'vae.VEA'",
        ),
        ({"model": {"class": "os.system"}}, r"recipe: model: expected a class of the zoo"),
        ({"model": {"class": "vae.VAE", "latent": 3}}, r"model: VAE: unknown key 'latent'"),
        ({"model": {"class": "vae.VAE"}}, r"model: expected event_shape \[1, 8, 8\], .* found \[1, 28, 28\]"),
        ({"optimization": {"lrr": 0.1}}, r"optimization: unknown key 'lrr'"),
        ({"optimization": {"lr": -0.1}}, r"optimization: lr must be positive, found -0.1"),
        ({"optimization": {"schedule": "exponential"}}, r"optimization: schedule must be one of"),
        ({"trainer": {"max_epoch": 1, "max_steps": 1}}, r"trainer: no option 'max_epoch'"),
        ({"trainer": {"max_epoch": 1}}, r"trainer: expected max_epochs or max_steps, found neither"),
        ({"trainer": {"max_time": "00:00:00:01"}}, r"trainer: expected max_epochs or max_steps, found neither"),
        ({"trainer": {"max_epochs": None}}, r"trainer: expected max_epochs or max_steps, found neither"),
        ({"data": {"class": ["Digits"]}}, r"data: no class "),
        ({"trainer": {"max_steps": 1, "checkpoint_every": 0.5}}, r"trainer: checkpoint_every must be int, found 0.5"),
        ({"trainer": {"folder": "x"}}, r"trainer: folder is "),
    ],
)
def test_recipes_that_do_not_fit(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as error:
        fit({**tiny_runs.recipe("likelihood"), **changes}, tmp_path / "run")
    one_line(error.value)
    assert not (tmp_path / "run").exists()


def test_machines_of_one_device_each_average_as_several_devices_do(tmp_path: Path) -> None:
    for devices, num_nodes in ((1, 2), (2, 2), (2, 1)):
        trainer = Trainer(tmp_path, accelerator="cpu", devices=devices, num_nodes=num_nodes, progress=False)
        assert isinstance(trainer.strategy, trainer_module._DDP)


def test_options_that_lightning_refuses_when_it_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^trainer: .*val_check_interval") as error:
        fit(tiny_runs.recipe("likelihood", val_check_interval=100), tmp_path / "often")
    one_line(error.value)
    with pytest.raises(ConfigError, match=r"^trainer: .*gradient accumulation") as error:
        fit(tiny_runs.recipe("adversarial", accumulate_grad_batches=2), tmp_path / "run")
    one_line(error.value)


def test_a_model_begins_with_weights_of_the_same_shapes(tmp_path: Path) -> None:
    sizes = {"event_shape": [1, 8, 8], "latent_dim": 2, "channels": 4, "hidden": 5}
    vae = build_model({"class": "vae.VAE", **sizes}, seed=3)
    Zoo.save(vae, tmp_path / "vae")
    recipe = {"start": f"local-dir:{tmp_path / 'vae'}", "model": {"class": "vae.IWAE", **sizes}}
    model = begin(recipe)
    assert type(model).__name__ == "IWAE" and model.hparams["num_samples"] == 50
    for name, value in vae.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert type(begin({"start": recipe["start"]})).__name__ == "VAE"
    recipe["model"]["hidden"] = 6
    with pytest.raises(ConfigError, match=r"start: the parameters of .* a VAE, do not fit the IWAE"):
        begin(recipe)


def test_a_model_begins_with_weights_of_some_of_its_parts(tmp_path: Path) -> None:
    sizes = {"event_shape": [1, 4, 4], "hidden": 5, "num_layers": 1}
    teacher, professor = ({"class": "autoregressive.RNN", **sizes, **more} for more in ({}, PROFESSOR))
    Zoo.save(first := build_model(teacher, seed=3), tmp_path / "teacher")
    model = begin({"start": f"local-dir:{tmp_path / 'teacher'}", "model": professor})
    assert model.pretrained and model.state_dict().keys() > first.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    Zoo.save(model, tmp_path / "professor")
    with pytest.raises(ConfigError, match=r"start: the parameters of .* a RNN, do not fit the RNN"):
        begin({"start": f"local-dir:{tmp_path / 'professor'}", "model": teacher})


def test_a_model_of_classes_begins_with_one_that_knows_none(tmp_path: Path) -> None:
    """At first it gives every class the same probabilities; the way back has no place for the classes."""
    sizes = {"event_shape": [1, 4, 4], "channels": 4, "num_layers": 2, "hidden": 4}
    plain, classes = (f"local-dir:{tmp_path / name}" for name in ("plain", "classes"))
    start = build_model({"class": "autoregressive.GatedPixelCNN", **sizes})
    Zoo.save(start, tmp_path / "plain")
    section = {"class": "autoregressive.ConditionalGatedPixelCNN", "num_classes": 3, **sizes}
    model: Any = begin({"start": plain, "model": section})
    x = torch.randint(2, (5, 1, 4, 4)).float()
    for label in range(3):
        assert torch.equal(model.log_prob(x, labels=label), start.log_prob(x))
    Zoo.save(model, tmp_path / "classes")
    with pytest.raises(ConfigError, match="a ConditionalGatedPixelCNN, do not fit the GatedPixelCNN"):
        begin({"start": classes, "model": {"class": "autoregressive.GatedPixelCNN", **sizes}})


def test_a_recipe_with_teachers(tmp_path: Path) -> None:
    """It trains on what they expect, and a run goes on with those that it began with."""
    sizes = {"class": "autoregressive.RNN", "event_shape": [1, 8, 8], "hidden": 5, "num_layers": 1}
    for seed, name in enumerate(("first", "second")):
        Zoo.save(build_model(sizes, seed), tmp_path / name)
    first, second = (f"local-dir:{tmp_path / name}" for name in ("first", "second"))
    recipe = {
        "name": "pupil",
        "data": {"class": "Digits", "binarize": True, "batch_size": 500},
        "model": {"class": "autoregressive.PixelCNN", "event_shape": [1, 8, 8], "channels": 4},
        "trainer": {"max_steps": 2, "progress": False},
    }
    trained = [
        fit(recipe | ({"teachers": names} if names else {}), tmp_path / f"run-{len(names)}")
        for names in ([], [first], [first, second])
    ]
    assert [len(model.teachers) for model in trained] == [0, 1, 2]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in trained]
    assert not any(torch.equal(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert len(begin({"start": first, "teachers": [second]}).teachers) == 1
    with pytest.raises(ConfigError, match="the run to resume began with another section 'teachers': "):
        fit(recipe | {"teachers": [second]}, tmp_path / "run-1", resume=True)
    with pytest.raises(ConfigError, match=r"teachers: VAE learns from the data alone; leave them out$"):
        begin({"model": {"class": "vae.VAE"}, "teachers": [first]})
    with pytest.raises(ConfigError, match=r"recipe: teachers must be list\[str\]"):
        override(recipe, {"teachers": first})


def test_overrides() -> None:
    recipe = {"data": {"class": "Digits"}, "trainer": None, "seed": 0}
    changed = override(recipe, {"trainer.max_epochs": 2, "data.batch_size": 5, "seed": 1})
    assert changed == {"data": {"class": "Digits", "batch_size": 5}, "trainer": {"max_epochs": 2}, "seed": 1}
    assert recipe == {"data": {"class": "Digits"}, "trainer": None, "seed": 0}
    for key in ("trainr.devices", "seed.x"):
        with pytest.raises(ConfigError):
            override(recipe, {key: 2})


def beginning(recipe: dict[str, Any], folder: Path) -> ZooModule:
    """What its run begins with; of what another recipe has to make first, in `folder`, the weights are untrained."""
    if (start := recipe.get("start", "")).startswith("local-dir:"):
        name = start.removeprefix("local-dir:")
        first = load_recipe(ROOT / "recipes" / f"{name}.yaml")
        assert first["name"] == name
        recipe = {**recipe, "start": f"local-dir:{Zoo.save(build_model(first['model']), folder / name)}"}
    return begin(recipe, recipe.get("seed", 0))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_every_recipe_survives_a_batch(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of noise in the shape of its data, which need not be there."""
    recipe = load_recipe(path, {"trainer.max_epochs": 1, "trainer.progress": False, "trainer.accelerator": "cpu"})
    published = build_data(recipe["data"])
    x = torch.randint(0, 256, (20, *published.event_shape), dtype=torch.uint8)
    if published.levels == 2:
        x = x > 127
    labels = torch.arange(20) % published.num_classes if published.num_classes else None
    data = Arrays.from_array(x, labels, batch_size=16)
    model = beginning(recipe, tmp_path)
    model.optimization = Optimization(**recipe.get("optimization") or {})
    if isinstance(model, Memoriser):
        request.getfixturevalue("real_data")  # its memory
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = Trainer(tmp_path, **{**recipe["trainer"], "sample_grids": False})
    if hasattr(model, "jitter"):
        model.jitter = 1e-3  # sixteen examples have no covariance of full rank
    trainer.fit(model, data)
    assert trainer.global_step == 1
    changed = [name for name, value in model.state_dict().items() if not torch.equal(before[name], value)]
    assert changed or not before, "only a program without weights stays as it is"
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 6
    assert {load_yaml(path)["name"] for path in RECIPES} == {path.parent.name for path in RECIPES}


def test_digits_are_what_the_tiny_runs_expect() -> None:
    assert len(Digits(batch_size=100).train_dataloader()) == 12
