"""Runs that are killed at any moment and resumed end with the weights of the run that never was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What runs left alone and killed ones trained; see `tiny_runs.killed`."""
    folder = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, tiny_runs.__file__, "killed", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("chain", range(len(tiny_runs.CHAINS) + 1))
@pytest.mark.parametrize("name", tiny_runs.RUNS)
def test_killed_and_resumed_equals_whole(name: str, chain: int, runs: Path) -> None:
    whole, killed = torch.load(runs / name / "whole.pt"), torch.load(runs / name / f"{chain}.pt")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)  # bit for bit
