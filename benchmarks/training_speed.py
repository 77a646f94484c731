"""Speed of the common Trainer against a bare PyTorch loop: steps per second of a small model on 784 pixels, batch 128.

    python benchmarks/training_speed.py              an MLP VAE
    python benchmarks/training_speed.py --gan        the DCGAN of the zoo, an update of each of its players a step

Both train the same networks with the same optimiser on the same bytes in memory. The Trainer draws its batches and
noise from (seed, epoch) and (seed, step, example), logs to CSV, shows its progress bar and averages the weights; the
loop does none of this. Validation, which the loop does not have, is off. The two take turns in one
process, and the medians are compared. Prints one JSON line and one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule
from lightning import Trainer as LightningTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.batch import Batch
from zoo.capabilities import EvidenceLowerBound, ZooModule
from zoo.data import Arrays
from zoo.gan.dcgan import DCGAN
from zoo.optim import Optimization
from zoo.random import Source, Streams, rand, randn
from zoo.training import Trainer

BATCH, PIXELS, HIDDEN, LATENT = 128, 784, 400, 20
WARM_UP = 20  # steps before the clock starts


class Networks(nn.Module):
    """784-400-(20, 20) encoder and 20-400-784 decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))

    def elbo(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """[B, 784], [B, 20] -> [B]."""
        loc, log_scale = self.encoder(x).chunk(2, -1)
        logits = self.decoder(loc + log_scale.exp() * epsilon)
        likelihood = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        kl = 0.5 * (loc.square() + (2 * log_scale).exp() - 2 * log_scale - 1).sum(-1)
        return likelihood - kl


class MLPVAE(EvidenceLowerBound):
    """The networks as a model of the zoo."""

    def __init__(self) -> None:
        super().__init__()
        self.event_shape = (1, 28, 28)
        self.networks = Networks()

    def elbo(self, x: Tensor, *, generator: Source = None) -> Tensor:
        return self.networks.elbo(x.flatten(1), randn((len(x), LATENT), generator, x.device))

    def draw(self, streams: Streams) -> Tensor:
        logits = self.networks.decoder(randn((len(streams), LATENT), streams, self.device))
        return (rand((len(streams), PIXELS), streams, self.device) < logits.sigmoid()).float().view(-1, 1, 28, 28)


class Clock(Callback):
    """Reads the clock after the warm-up and after the last step."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self.readings: list[float] = []

    def on_train_batch_end(
        self, trainer: LightningTrainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step in (WARM_UP, WARM_UP + self.num_steps):
            self.readings.append(time.perf_counter())


def with_trainer(
    data: Arrays, num_steps: int, make: Callable[[], ZooModule] = MLPVAE, optimization: Optimization | None = None
) -> float:
    """Steps per second of the common Trainer."""
    torch.manual_seed(0)
    model, clock = make().to(memory_format=torch.channels_last).train(), Clock(num_steps)
    model.optimization = optimization or Optimization(lr=1e-3)
    # the progress bar goes to standard error, as the result goes to standard output
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = Trainer(
            folder,
            max_steps=WARM_UP + num_steps,
            max_epochs=-1,
            limit_val_batches=0,
            accelerator="cpu",
            callbacks=[clock],
        )
        trainer.fit(model, data)
    return num_steps / (clock.readings[1] - clock.readings[0])


def with_loop(data: Arrays, num_steps: int) -> float:
    """Steps per second of the loop that one would write without the zoo."""
    torch.manual_seed(0)
    x = data.split("train").x.flatten(1)
    model = Networks()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    order = torch.empty(0, dtype=torch.int64)
    start = 0.0
    for step in range(WARM_UP + num_steps):
        if step == WARM_UP:
            start = time.perf_counter()
        if len(order) < BATCH:
            order = torch.randperm(len(x))
        rows, order = order[:BATCH], order[BATCH:]
        batch = x[rows].float() / 255
        loss = -model.elbo(batch, torch.randn(BATCH, LATENT)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return num_steps / (time.perf_counter() - start)


def with_two_players(data: Arrays, num_steps: int) -> float:
    """Steps per second of the loop that one would write for a DCGAN without the zoo."""
    torch.manual_seed(0)
    x = data.split("train").x
    model = DCGAN().to(memory_format=torch.channels_last)
    generator, critic = model.generator, model.critic
    of_generator, of_critic = (torch.optim.Adam(net.parameters(), lr=1e-3, fused=True) for net in (generator, critic))
    order = torch.empty(0, dtype=torch.int64)
    start = 0.0
    for step in range(WARM_UP + num_steps):
        if step == WARM_UP:
            start = time.perf_counter()
        if len(order) < BATCH:
            order = torch.randperm(len(x))
        rows, order = order[:BATCH], order[BATCH:]
        real = x[rows].float() / 255
        fake = generator(torch.randn(BATCH, model.latent_shape[0]))
        on_real, on_fake = critic(torch.cat([real, fake.detach()])).chunk(2)
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        of_critic.zero_grad()
        loss.backward()
        of_critic.step()
        critic.requires_grad_(False)
        loss = F.softplus(-critic(fake)).mean()
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()
        critic.requires_grad_(True)
    return num_steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps per second of the common Trainer against a bare PyTorch loop.")
    parser.add_argument("--steps", type=int, default=400, help="steps of each turn (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each (default %(default)s)")
    parser.add_argument("--gan", action="store_true", help="two players in place of a VAE")
    options = parser.parse_args()
    make, bare = (DCGAN, with_two_players) if options.gan else (MLPVAE, with_loop)
    target = 0.8 if options.gan else 0.85

    images = torch.randint(0, 256, (50_000, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = Arrays.from_array(images, batch_size=BATCH)
    trainer, loop = [], []
    for _ in range(options.repeats):
        loop.append(bare(data, options.steps))
        trainer.append(with_trainer(data, options.steps, make))
    ratio = statistics.median(trainer) / statistics.median(loop)
    result = {
        "benchmark": "training_speed",
        "model": make.__name__,
        "trainer_steps_per_s": round(statistics.median(trainer), 1),
        "loop_steps_per_s": round(statistics.median(loop), 1),
        "ratio": round(ratio, 3),
        "ratios": [round(a / b, 3) for a, b in zip(trainer, loop, strict=True)],
        "steps": options.steps,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))
    print(
        f"The common Trainer makes {ratio:.2f} of the steps per second of a bare PyTorch loop (target: at least "
        f"{target})."
    )


if __name__ == "__main__":
    main()
