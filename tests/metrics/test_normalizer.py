"""log Z as evaluation measures it: exact if it can be summed, else bracketed, and measured once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.boltzmann.rbm import RBM
from zoo.errors import ConfigError
from zoo.metrics import normalizer
from zoo.metrics.normalizer import normalizer_of


@pytest.fixture
def rbm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RBM:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    model = RBM(event_shape=[1, 3, 4], num_hidden=6)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.8, generator=torch.Generator().manual_seed(0))
    model.set_base_rates(torch.linspace(0.2, 0.8, 12))
    return model


def log_z_of(model: RBM) -> float:
    found = model.exact_log_z()
    assert found is not None
    return found.item()


def test_few_units_are_summed_over(rbm: RBM) -> None:
    found = normalizer_of(rbm)
    assert (found.kind, found.error, found.log_z) == ("exact", 0, log_z_of(rbm))


def test_estimates_bracket_the_sum_and_are_made_once(rbm: RBM, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = log_z_of(rbm)
    monkeypatch.setattr(RBM, "exact_log_z", lambda self: None)
    found = normalizer_of(rbm, runs=200, temperatures=100, sweeps=50)
    settings = found.settings
    assert found.kind == "estimate" and found.log_z == settings["log_z"] and found.error == settings["log_z_error"]
    for name in ("log_z", "log_z_reverse"):
        assert abs(settings[name] - exact) < 4 * settings[f"{name}_error"] < 0.2
    assert 100 < settings["effective_runs"] <= 200 and 100 < settings["effective_runs_reverse"] <= 200
    with monkeypatch.context() as patch:
        patch.setattr(normalizer, "_measure", None)
        assert normalizer_of(rbm, runs=200, temperatures=100, sweeps=50) == found
    with torch.no_grad():
        rbm.weight[0, 0] += 0.5
    assert normalizer_of(rbm, runs=200, temperatures=100, sweeps=50) != found


def test_runs_that_cannot_be(rbm: RBM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RBM, "exact_log_z", lambda self: None)
    with pytest.raises(ConfigError, match="temperatures: expected at least 1, found 0"):
        normalizer_of(rbm, temperatures=0)
