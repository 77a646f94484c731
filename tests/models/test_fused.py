"""What runs otherwise on a GPU: recurrent layers as one kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zoo.autoregressive.fast.fused import is_fused


def test_recurrent_layers_as_one_kernel_are_those_step_by_step() -> None:
    """In a process of its own, as Triton's interpreter must be there before Triton is."""
    pytest.importorskip("triton")
    script = Path(__file__).parents[1] / "support" / "interpreted_scans.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lstm", "lstm", "lstm", "gru", "gru"]


@pytest.mark.parametrize(
    ("width", "is_cuda", "capability", "fused"),
    [
        (16, True, (9, 0), True),
        (16, False, (9, 0), False),
        (16, True, (7, 5), False),  # no bfloat16
        (64, True, (8, 6), True),
        (128, True, (8, 6), False),  # too little shared memory
        (128, True, (9, 0), True),
        (256, True, (9, 0), False),
        (24, True, (9, 0), False),
        (8, True, (9, 0), False),
    ],
)
def test_where_kernels_take_the_place_of_steps(
    width: int, is_cuda: bool, capability: tuple[int, int], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x: Any = SimpleNamespace(is_cuda=is_cuda, device="cuda", dtype=torch.float32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("zoo.autoregressive.fast.fused.find_spec", lambda name: object())
    assert not is_fused(x, width, 128)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    assert is_fused(x, width, 128) == fused
