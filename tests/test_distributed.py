"""Two processes train the weights of one; and so in mixed precision, as far as it is precise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch

from zoo.catalog import Zoo
from zoo.training.recipe import fit


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
    start = fit(tiny_runs.recipe(kind, max_epochs=0), tmp_path / "start").state_dict()
    two = torch.load(pairs / f"{name}.pt")
    apart, moved = ({key: one[key] - other[key] for key in one} for other in (two, start))
    if "precision" in options:  # sums of halves round differently: small against what training does
        assert norm(apart) < 0.1 * norm(moved)
    else:
        assert max(float(difference.abs().max()) for difference in apart.values()) < 1e-5
    assert norm(moved) > 1e-2


def norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([tensor.flatten().double() for tensor in tensors.values()]).norm())


@pytest.mark.parametrize("kind", tiny_runs.RESUMED)
def test_a_resumed_run_of_two_processes_equals_a_whole_one(kind: str, pairs: Path) -> None:
    whole, resumed = torch.load(pairs / f"{kind}.pt"), torch.load(pairs / f"resumed {kind}.pt")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_two_processes_write_one_checkpoint(pairs: Path) -> None:
    weights = Zoo.load(f"local-dir:{pairs / 'made'}").state_dict()
    trained = torch.load(pairs / "likelihood.pt")
    assert all(torch.equal(weights[key], trained[key]) for key in trained)
