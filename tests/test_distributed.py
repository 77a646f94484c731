"""Two processes train the weights of one; and so in mixed precision, as far as it is precise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch
from torch import Tensor

from zoo.catalog import Zoo
from zoo.training.recipe import build_model, fit


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes trained; see `tiny_runs.distributed`."""
    folder = tmp_path_factory.mktemp("pairs")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, tiny_runs.__file__, "distributed", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", tiny_runs.PAIRS)
def test_two_processes_equal_one(name: str, pairs: Path, tmp_path: Path) -> None:
    kind, options = tiny_runs.PAIRS[name]
    one = fit(tiny_runs.recipe(kind, **options), tmp_path / "one").state_dict()
    two = torch.load(pairs / f"{name}.pt")
    start = build_model(tiny_runs.recipe(kind, **options)["model"], seed=3).state_dict()
    apart, moved = distance(one, two), distance(one, start)
    assert all(torch.isfinite(value).all() for value in two.values())
    if "precision" in options:  # sums of 8 bits, in another order
        assert apart < 0.1 * moved
    else:
        assert all(torch.allclose(one[key], two[key], rtol=0, atol=1e-5) for key in one)
        assert apart < 1e-3 * moved


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Euclidean, of all weights together."""
    return sum(float((one[key] - two[key]).square().sum()) for key in one) ** 0.5


@pytest.mark.parametrize("kind", tiny_runs.RESUMED)
def test_a_resumed_run_of_two_processes_equals_a_whole_one(kind: str, pairs: Path) -> None:
    whole, resumed = torch.load(pairs / f"{kind}.pt"), torch.load(pairs / f"resumed {kind}.pt")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_two_processes_write_one_checkpoint(pairs: Path) -> None:
    weights = Zoo.load(f"local-dir:{pairs / 'made'}").state_dict()
    trained = torch.load(pairs / "likelihood.pt")
    assert all(torch.equal(weights[key], trained[key]) for key in trained)
