"""`zoo check` and its plugin of pytest: right models pass, and each wrong one is caught by the law that it breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from instances import INSTANCES
from scipy import stats
from torch import Tensor, nn

from zoo.autoregressive.fvsbn import FVSBN
from zoo.capabilities import TractableDensity
from zoo.cli import main
from zoo.flows.realnvp import RealNVP
from zoo.gan.dcgan import DCGAN
from zoo.laws.law import LAWS, goodness_of_fit
from zoo.laws.report import check
from zoo.laws.subject import Subject
from zoo.module import ZooModule
from zoo.random import Source, Streams, rand
from zoo.vae.vae import VAE

PIXELS = {"event_shape": [1, 2, 3]}
SMALL_VAE = {"event_shape": [1, 4, 4], "latent_dim": 1, "channels": 4, "hidden": 8}
SMALL_GAN = {"event_shape": [1, 8, 4], "latent_dim": 2, "channels": 8}
SMALL_FLOW = {"event_shape": [2], "num_couplings": 2, "hidden": 8}


class Bernoulli(TractableDensity):
    """Independent pixels, as in an exercise."""

    levels = 2
    temperature = 1.0

    def __init__(self, event_shape: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.logits = nn.Parameter(torch.full(self.event_shape, 0.5))

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.distributions.Bernoulli(logits=self.logits).log_prob(x).flatten(1).sum(1)

    def draw(self, streams: Streams) -> Tensor:
        u = rand((len(streams), *self.event_shape), streams, self.device)
        return (u < (self.logits / self.temperature).sigmoid()).float()


class TooWarm(Bernoulli):
    """Draws at another temperature than that of its density."""

    temperature = 2.0


class Unnormalised(Bernoulli):
    """Forgets a constant."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + 0.1


class Forgetful(Bernoulli):
    """Has a parameter that nothing uses."""

    def __init__(self, event_shape: Any) -> None:
        super().__init__(event_shape)
        self.unused = nn.Parameter(torch.zeros(3))


class Crashing(Bernoulli):
    def log_prob(self, x: Tensor) -> Tensor:
        raise TypeError("no such thing")


class WrongSign(VAE):
    """Adds the divergence that the bound should subtract."""

    def elbo(self, x: Tensor, *, generator: Source = None, **given: Tensor) -> Tensor:
        divergence = torch.distributions.kl_divergence(self.encode(x), self.prior())
        return super().elbo(x, generator=generator) + 2 * divergence


class Sociable(RealNVP):
    """Subtracts the mean of the batch."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x - 0.1 * x.mean(0, keepdim=True))


class Careless(DCGAN):
    """Draws from torch's global noise."""

    def draw(self, streams: Streams, **given: Any) -> Tensor:
        return super().draw(Streams(int(torch.randint(2**31, ())), range(len(streams))))


@pytest.mark.parametrize(
    ("model", "arguments", "least"),
    [(Bernoulli, PIXELS, 6), (FVSBN, PIXELS, 9), (VAE, SMALL_VAE, 8), (DCGAN, SMALL_GAN, 6), (RealNVP, SMALL_FLOW, 8)],
)
def test_right_models_obey_the_laws(model: type[ZooModule], arguments: dict[str, Any], least: int) -> None:
    report = check(model, arguments)
    assert not report.failed, report
    assert len(report.verdicts) == len(LAWS)
    assert sum(verdict.status == "held" for verdict in report.verdicts) >= least, report


@pytest.mark.parametrize(
    ("model", "arguments", "broken"),
    [
        (WrongSign, SMALL_VAE, {"bounds_sum_to_at_most_one", "importance_samples_tighten_the_bound"}),
        (TooWarm, PIXELS, {"samples_follow_the_probabilities"}),
        (Unnormalised, PIXELS, {"probabilities_sum_to_one"}),
        (Forgetful, PIXELS, {"every_parameter_gets_a_gradient"}),
        (Sociable, SMALL_FLOW, {"densities_keep_to_their_own_example", "samples_follow_the_density"}),
        (Careless, SMALL_GAN, {"samples_depend_on_the_generator_alone", "arguments_rebuild_the_model"}),
    ],
)
def test_wrong_models_break_their_laws(model: type[ZooModule], arguments: dict[str, Any], broken: set[str]) -> None:
    titles = {law.title: name for name, law in LAWS.items()}
    assert {titles[verdict.law] for verdict in check(model, arguments).failed} == broken


def test_a_model_that_raises_fails_and_says_what_it_raised() -> None:
    (verdict,) = (v for v in check(Crashing, PIXELS).verdicts if v.law == LAWS["probabilities_sum_to_one"].title)
    assert verdict.status == "failed" and verdict.detail == "raised TypeError: no such thing"


def test_what_does_not_apply_says_why() -> None:
    (verdict,) = (v for v in check(Bernoulli, {"event_shape": [1, 6, 6]}).verdicts if "sum to one" in v.law)
    assert verdict.status == "does not apply" and "2^36 examples cannot be enumerated" in verdict.detail


def test_every_law_applies_to_some_model() -> None:
    for law in LAWS.values():
        assert any(not law.why_not(instance) for instance in INSTANCES), law.title


@pytest.mark.parametrize("instance", {i.cls: i for i in INSTANCES}.values(), ids=lambda instance: instance.cls.__name__)
def test_the_kind_of_data_is_found(instance: Any) -> None:
    found = Subject.of(instance.cls, instance.arguments)
    assert (found.levels, found.differentiable) == (instance.levels, instance.differentiable)


def test_the_p_value_is_that_of_scipy() -> None:
    probs, counts = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([230, 290, 480])
    expected = stats.chisquare(counts.numpy(), (probs.double() * 1000).numpy()).pvalue
    assert goodness_of_fit(counts, probs.log()) == pytest.approx(expected, rel=1e-5)
    assert goodness_of_fit(torch.tensor([1, 999]), torch.tensor([-torch.inf, 0.0])) == 0


# ------------------------------------------------------------------------------------------- the command, the plugin

EXERCISE = """
from zoo.autoregressive import FVSBN

class Right(FVSBN):
    pass

class Wrong(FVSBN):
    def log_prob(self, x):
        return super().log_prob(x) - 1.0
"""
SMALL = '{"event_shape": [1, 2, 2]}'


@pytest.fixture
def exercise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "an_exercise.py").write_text(EXERCISE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    sys.modules.pop("an_exercise", None)
    return tmp_path


def test_the_command_grades(exercise: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "an_exercise:Right", "--arguments", SMALL]) == 0
    printed = capsys.readouterr().out
    assert "held            Probabilities of all examples sum to one (16 probabilities" in printed
    assert "0 failed" in printed and "does not apply  " in printed
    statuses = [line[:14].strip() for line in printed.splitlines() if line.startswith(("held", "does not apply"))]
    assert statuses == sorted(statuses, reverse=True)  # the laws that say something about the model come first
    assert main(["check", "an_exercise:Wrong", "--arguments", SMALL, "--json"]) == 1
    found = capsys.readouterr()
    (verdict,) = (v for v in json.loads(found.out)["verdicts"] if "sum to one" in v["law"])
    assert verdict["status"] == "failed" and verdict["detail"] == "16 probabilities sum to 0.367879"
    assert "an_exercise:Wrong: 1 of " in found.err and found.err.count("\n") == 1


def test_the_plugin_adds_a_test_for_each_law(exercise: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "zoo.laws", "-rsf"]
    command += ["--zoo-model", "an_exercise:Wrong", "--zoo-arguments", SMALL]
    done = subprocess.run(command, cwd=exercise, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "16 probabilities sum to 0.367879" in done.stdout and "Wrong::probabilities_sum_to_one" in done.stdout
    assert "the model is no Bijection" in done.stdout and "1 failed" in done.stdout


def test_the_plugin_imports_no_torch_unless_it_is_used() -> None:
    code = "import sys, zoo.laws; assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
