"""Diffusion against the bare network and a plain training loop, on the network of ddpm-fashion-mnist.

Sampling: images drawn by DPM-Solver++ (2M), against as many passes of the network in batches of the same size.
Training: steps of the common Trainer, with averaged weights and without, against the loop that one writes with
torchvision, a DataLoader and PyTorch, as the training script of diffusers does: ToTensor, scale to [-1, 1], add noise,
predict it. All train the same network in batches of 32, the Trainer under bfloat16 autocast with AdamW and with Muon,
the optimiser of the recipe, and the loop with AdamW, in single precision, the default of that script, and under
bfloat16 autocast.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import torch
from report import in_turn, options, report
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST as Published
from torchvision.transforms import v2
from training_speed import WARM_UP, Clock

from zoo.data import FashionMNIST
from zoo.diffusion import DDPM
from zoo.optim import Optimization
from zoo.samplers import DPMSolver
from zoo.training import Trainer

BATCH, SAMPLES, EVALUATIONS = 32, 250, 20
SAMPLING, TRAINING, AVERAGING = 0.95, 1.2, 1.03  # what is wanted


def sampling() -> float:
    """Seconds to draw `SAMPLES` images."""
    start = time.perf_counter()
    DDPM().eval().sample(SAMPLES, sampler=DPMSolver(steps=EVALUATIONS), batch_size=SAMPLES)
    return time.perf_counter() - start


@torch.no_grad()
def passes() -> float:
    """Seconds of as many passes of the network."""
    network, x, c_noise = DDPM().eval().network, torch.randn(SAMPLES, 1, 28, 28), torch.rand(SAMPLES)
    start = time.perf_counter()
    for _ in range(EVALUATIONS):
        network(x, c_noise)
    return time.perf_counter() - start


def with_trainer(num_steps: int, optimizer: Literal["adamw", "muon"], ema_decay: float | None) -> float:
    """Seconds of a step of the common Trainer."""
    torch.manual_seed(0)
    model, clock = DDPM().train(), Clock(num_steps)
    model.optimization = Optimization(optimizer=optimizer, lr=1e-3)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = Trainer(
            folder,
            max_steps=WARM_UP + num_steps,
            max_epochs=-1,
            limit_val_batches=0,
            accelerator="cpu",
            precision="bf16-mixed",
            ema_decay=ema_decay,
            callbacks=[clock],
        )
        trainer.fit(model, FashionMNIST(batch_size=BATCH))
    return (clock.readings[1] - clock.readings[0]) / num_steps


def with_loop(num_steps: int, root: Path, *, mixed: bool) -> float:
    """Seconds of a step of the plain loop, in single precision or, if it is `mixed`, under autocast."""
    torch.manual_seed(0)
    model = DDPM()
    network, optimizer = model.network, torch.optim.AdamW(model.parameters(), lr=1e-3)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
    to_state = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])])
    loader = DataLoader(Published(str(root), transform=to_state), BATCH, shuffle=True, drop_last=True)
    start = 0.0
    for step, (x, _) in enumerate(islice(cycle(loader), WARM_UP + num_steps)):
        if step == WARM_UP:
            start = time.perf_counter()
        t, epsilon = torch.randint(1000, (BATCH,)), torch.randn_like(x)
        kept = abar[t][:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            predicted = network(kept.sqrt() * x + (1 - kept).sqrt() * epsilon, (t + 1) / 1000)
        loss = nn.functional.mse_loss(predicted.float(), epsilon)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - start) / num_steps


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--steps", type=int, default=60, help="steps of training in each turn (default %(default)s)")
    arguments = parser.parse_args()
    root, steps = FashionMNIST().root, arguments.steps
    found = in_turn(
        arguments.repeats,
        sampling=sampling,
        passes=passes,
        loop=lambda: with_loop(steps, root, mixed=False),
        mixed_loop=lambda: with_loop(steps, root, mixed=True),
        trainer=lambda: with_trainer(steps, "adamw", 0.999),
        unaveraged=lambda: with_trainer(steps, "adamw", None),
        muon=lambda: with_trainer(steps, "muon", 0.999),
    )
    drawn, averaged = found["passes"] / found["sampling"], found["trainer"] / found["unaveraged"]
    trained, by_muon, mixed = (
        found[loop] / found[ours] for loop, ours in (("loop", "trainer"), ("loop", "muon"), ("mixed_loop", "trainer"))
    )
    report(
        f"Sampling evaluates the network {drawn:.2f} times as fast as bare passes (wanted: {SAMPLING}). The Trainer "
        f"makes {trained:.2f} times the steps of a plain loop (wanted: {TRAINING}), {by_muon:.2f} times with Muon, and "
        f"{mixed:.2f} times those of a loop in mixed precision. Averaging the weights takes {averaged:.3f} times the "
        f"time (wanted: at most {AVERAGING}).",
        arguments.json,
        benchmark="denoising_speed",
        **{name: round(value, 5) for name, value in found.items()},
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
