"""Tiny training runs of each kind of objective, and what the tests do to them in processes of their own.

python tests/support/tiny_runs.py killed FOLDER        runs killed at many moments and resumed, beside ones left alone
python tests/support/tiny_runs.py distributed FOLDER   runs on two processes
torchrun tests/support/tiny_runs.py together FOLDER     commands that the launched processes share
srun tests/support/tiny_runs.py failing FOLDER          what fails in the first of them alone
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from zoo import Zoo
from zoo.cli import main
from zoo.distributed import gather, is_leader, join, on_leader
from zoo.errors import ZooError
from zoo.random import Streams
from zoo.store import save as save_module
from zoo.training import callbacks
from zoo.training import recipe as recipe_module
from zoo.training.recipe import fit, make

SHAPE = {"event_shape": [1, 8, 8]}
MODELS: dict[str, dict[str, Any]] = {
    "likelihood": {
        "class": "vae.VAE",
        "latent_dim": 2,
        "channels": 4,
        "hidden": 8,
        "likelihood": "discretized-logistic",
    },
    "adversarial": {"class": "gan.GAN", "latent_dim": 4, "channels": 16},
    # two channels a group of its normalisation: with one, biases have no gradient but rounding errors
    "several steps": {"class": "gan.WGANGP", "latent_dim": 4, "channels": 16, "critic_steps": 5},
    "noise": {"class": "gan.DCGAN", "latent_dim": 4, "channels": 16, "instance_noise": 0.5},
    "labels": {"class": "gan.ConditionalGAN", "latent_dim": 4, "channels": 16, "penalty": 0.0},
    "pairs": {"class": "gan.ALI", "latent_dim": 4, "channels": 16, "hidden": 16, "penalty": 0.0},
    "spectral": {"class": "gan.SNGAN", "latent_dim": 4, "channels": 16},
    "closed-form": {"class": "density.Gaussian", "levels": 256, "jitter": 1e-4},
    "first batch": {"class": "flows.Glow", "num_steps": [1, 1], "hidden": [4, 4]},  # which sets its actnorm
    "chains": {"class": "boltzmann.RBM", "num_hidden": 16, "num_chains": 20},
    "deep chains": {"class": "energy.BinaryEBM", "num_hidden": 16, "channels": 4, "hidden": 8, "num_chains": 20},
    "noise contrast": {"class": "energy.NCE", "noise": "mixture", "channels": 4, "hidden": 8, "num_noise": 2},
}
BINARY = ("chains", "deep chains", "noise contrast")


def recipe(
    kind: str, *, model: dict[str, Any] | None = None, optimization: dict[str, Any] | None = None, **trainer: Any
) -> dict[str, Any]:
    """A recipe of 36 steps that takes a fraction of a second."""
    return {
        "seed": 3,
        "data": {"class": "Digits", "batch_size": 100, "binarize": kind in BINARY},
        "model": {**MODELS[kind], **SHAPE, **(model or {})},
        "optimization": {"lr": 3e-3, "schedule": "cosine", "warmup": 5, "gradient_clip": 10.0, **(optimization or {})},
        "trainer": {
            "max_epochs": 3,
            "accelerator": "cpu",
            "checkpoint_every": 4,
            "log_every_n_steps": 5,
            "progress": False,
            "sample_grids": False,
            **trainer,
        },
    }


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(
    owner: Any,
    name: str,
    count: int,
    before: Callable[..., Any] = lambda *_: None,
    counts: Callable[..., bool] = lambda *_: True,
) -> None:
    """At its `count`-th call, of those that count, a function kills the process."""
    original, calls = getattr(owner, name), [0]

    def counting(*args: Any, **kwargs: Any) -> Any:
        if not counts(*args):
            return original(*args, **kwargs)
        calls[0] += 1
        if calls[0] == count:
            before(*args)
            die()
        return original(*args, **kwargs)

    setattr(owner, name, counting)


def in_training(count: int) -> None:
    """At the `count`-th draw of noise: inside a step of training or validation."""
    die_at_call(Streams, "__init__", count)


def is_checkpoint(file: int | Path, *_: Any) -> bool:
    """Whether an open file, or a path, is that of the checkpoint of a run before it is renamed."""
    path = Path(os.readlink(f"/proc/self/fd/{file}")) if isinstance(file, int) else file
    return path.name.startswith(".last.ckpt.")


def in_writing(count: int) -> None:
    """With half of the `count`-th checkpoint on the disk."""
    half = lambda file: os.ftruncate(file, os.fstat(file).st_size // 2)  # noqa: E731
    die_at_call(os, "fsync", count, half, is_checkpoint)


def before_renaming(count: int) -> None:
    die_at_call(os, "replace", count, counts=is_checkpoint)


def after_renaming(count: int) -> None:
    die_at_call(os, "replace", count, os.rename, is_checkpoint)


CHAINS: list[list[tuple[Callable[[int], None], int]]] = [
    [(in_training, 3), (in_writing, 2), (in_training, 12), (before_renaming, 2)],
    [(after_renaming, 3), (in_writing, 3), (after_renaming, 4)],  # at the end of an epoch, and after the last step
]
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "likelihood": ("likelihood", {"max_epochs": 3}),
    "likelihood by steps": ("likelihood", {"max_epochs": -1, "max_steps": 40, "optimization": {"optimizer": "muon"}}),
    # the rate is so high that the best weights are those of an early step, and the run stops before its end
    "keeping the best": (
        "likelihood",
        {
            **{"max_epochs": -1, "max_steps": 60, "val_check_interval": 5, "check_val_every_n_epoch": None},
            **{"keep_best": True, "patience": 2},
            "optimization": {"lr": 0.2, "warmup": 20, "schedule": "constant"},
        },
    ),
    "adversarial": ("adversarial", {"max_epochs": 3}),
    "several steps": ("several steps", {"max_epochs": 3}),
    "spectral": ("spectral", {"max_epochs": 3}),
    "closed-form by steps": ("closed-form", {"max_epochs": -1, "max_steps": 36}),
    "first batch": ("first batch", {"max_epochs": 3}),
    "chains": ("chains", {"max_epochs": 3}),
    "deep chains": ("deep chains", {"max_epochs": 3, "model": {"burn_in": 10}}),
    "noise contrast": ("noise contrast", {"max_epochs": 3}),
}


def begin(work: Callable[[], None]) -> int:
    """Starts `work` in a process of its own."""
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return process


def end(process: int) -> bool:
    """Waits for it; whether it was killed."""
    status = os.waitpid(process, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a run failed")
    return os.WIFSIGNALED(status)


def child(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Runs `work` in a process of its own; whether it was killed."""
    process = begin(work)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    return end(process)


def train(settings: dict[str, Any], folder: Path, *, resume: bool = False) -> None:
    """Trains and keeps the weights in `<folder>.pt`."""
    torch.save(fit(settings, folder, resume=resume).state_dict(), f"{folder}.pt")


def killed(folder: Path) -> None:
    """For each of `RUNS`, a run left alone and killed ones: FOLDER/<run>/{whole,0,1,2}.pt; two at a time."""

    def some(names: list[str]) -> None:
        for name in names:
            kind, length = RUNS[name]
            kill_again_and_again(name, recipe(kind, **length), folder / name)

    for process in [begin(partial(some, list(RUNS)[half::2])) for half in range(2)]:
        if end(process):
            sys.exit("the tests were killed")


def kill_again_and_again(name: str, settings: dict[str, Any], runs: Path) -> None:
    runs.mkdir(parents=True)
    start = time.monotonic()
    child(lambda: train(settings, runs / "whole"))
    duration = time.monotonic() - start

    def resume(number: int, kill: Callable[[int], None] | None = None, count: int = 0) -> None:
        if kill is not None:
            kill(count)
        train(settings, runs / str(number), resume=True)

    for number, chain in enumerate(CHAINS):
        for kill, count in chain:
            if not child(partial(resume, number, kill, count)):
                sys.exit(f"{name}: {kill.__name__}({count}) of chain {number} killed nothing")
        child(partial(resume, number))
    last, moments = len(CHAINS), random.Random(name)
    for _ in range(2):  # from outside, at any moment
        child(partial(resume, last), moments.uniform(0, duration))
    child(partial(resume, last))


SGD = {"optimizer": "sgd", "lr": 0.1}
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "likelihood": ("likelihood", {}),
    "adversarial": ("adversarial", {"model": {"penalty": 0.0}}),
    # the gradient of the penalty jumps where a unit of the critic switches: rounding alone parts longer runs
    "adversarial with a penalty": ("adversarial", {"max_epochs": -1, "max_steps": 5}),
    # differences of means hardly move biases: Adam would make steps of what rounding leaves
    "several steps": ("several steps", {"max_epochs": -1, "max_steps": 5, "optimization": {**SGD, "lr": 0.01}}),
    "noise": ("noise", {}),
    "labels": ("labels", {"optimization": SGD}),
    "pairs": ("pairs", {}),
    "spectral": ("spectral", {"optimization": SGD}),
    "closed-form": ("closed-form", {}),
    "first batch": ("first batch", {"optimization": {**SGD, "lr": 1e-3}}),
    "chains": ("chains", {"optimization": SGD}),
    "deep chains": ("deep chains", {"max_epochs": 2, "model": {"burn_in": 10}, "optimization": SGD}),
    "noise contrast": ("noise contrast", {"max_epochs": 2, "optimization": SGD}),
    "likelihood in bfloat16": ("likelihood", {"precision": "bf16-mixed"}),
    # slow on processors without such arithmetic
    "adversarial in bfloat16": ("adversarial", {"precision": "bf16-mixed", "max_epochs": 1, "model": {"penalty": 0.0}}),
}
RESUMED = ("likelihood", "closed-form", "first batch", "chains", "deep chains", "noise contrast")


class InterruptedRunError(Exception):
    """What stops a run in the middle."""


def distributed(folder: Path) -> None:
    """Each of `PAIRS` on two processes, which Lightning starts by running this script again: FOLDER/<run>.pt.

    Besides, those of `RESUMED` interrupted and resumed (FOLDER/resumed <kind>.pt), and a checkpoint (FOLDER/made).
    """
    leads = int(os.environ.get("LOCAL_RANK", "0")) == 0
    two = {"devices": 2, "strategy": "ddp"}

    def keep(name: str, weights: dict[str, torch.Tensor]) -> None:
        if leads:
            torch.save(weights, folder / f"{name}.pt")

    for name, (kind, options) in PAIRS.items():
        keep(name, fit(recipe(kind, **two, **options), folder / name).state_dict())

    save = callbacks.RunCheckpoint._save_when_due

    def interrupt(self: Any, trainer: Any) -> None:
        save(self, trainer)
        if trainer.global_step == 18:
            raise InterruptedRunError

    for name in RESUMED:
        kind, options = PAIRS[name]
        settings = recipe(kind, **two, **options)
        callbacks.RunCheckpoint._save_when_due = interrupt  # type: ignore[method-assign]
        with contextlib.suppress(InterruptedRunError):
            fit(settings, folder / f"resumed {name}")
            sys.exit("the run was not interrupted")
        callbacks.RunCheckpoint._save_when_due = save  # type: ignore[method-assign]
        keep(f"resumed {name}", fit(settings, folder / f"resumed {name}", resume=True).state_dict())

    make({**recipe("likelihood", **two), "name": "made"}, folder / "made")


def together(folder: Path) -> None:
    """Runs the commands in FOLDER/commands.json, {name: words}; FOLDER/<name>.out has what the leader printed.

    Nothing may be printed by another process, and none may fail.
    """
    for name, words in json.loads((folder / "commands.json").read_text()).items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main(words)
        if is_leader():
            (folder / f"{name}.out").write_text(printed.getvalue())
        if status or (printed.getvalue() and not is_leader()):
            sys.exit(f"{name}: status {status}, printed {printed.getvalue()!r}")


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failures(folder: Path) -> dict[str, tuple[Callable[[], object], Any, str]]:
    """By name: what to call, and of which owner which function finds the disk full in the first process alone."""
    own, two = folder / "first" if is_leader() else folder / "other", {"devices": 2, "strategy": "ddp"}
    tiny = recipe("likelihood", max_epochs=1, **two)
    pictured = recipe("likelihood", max_epochs=1, **two, sample_grids=True)
    tracked = recipe("likelihood", **two, wandb={"project": "zoo"})  # without a key
    tune = [
        "--data",
        f"{folder}/own.npy",
        "--steps",
        "8",
        "--data.batch_size",
        "20",
        "--trainer.accelerator",
        "cpu",
        *TWO,
    ]
    return {
        "folder": (lambda: make(tiny, own / "there"), None, ""),
        "run": (lambda: make(tiny, own / "half"), None, ""),
        "recipe": (lambda: fit(tiny, own / "recipe"), recipe_module, "write_atomically"),
        "checkpoint": (lambda: fit(tiny, own / "checkpoint"), callbacks, "write_atomically"),
        "picture": (lambda: fit(pictured, own / "picture"), Image.Image, "save"),
        "export": (lambda: make(tiny, folder / "export"), save_module, "write_new"),
        "wandb": (lambda: make(tracked, own / "wandb"), None, ""),
        "devices": (lambda: fit(recipe("likelihood"), own / "devices"), None, ""),
        "sample": (lambda: run("sample", f"local-dir:{folder}/tiny", "--out", f"{own}/x.png"), Image.Image, "save"),
        "evaluate": (lambda: run("evaluate", f"local-dir:{folder}/tiny", "--write"), save_module, "write_atomically"),
        "finetune": (
            lambda: run("finetune", f"local-dir:{folder}/tiny", *tune, "--out", f"{folder}/tuned"),
            Zoo,
            "update",
        ),
        "other": (lambda: on_leader(full), None, ""),
        "log": (lambda: fit(tiny, own / "log"), CSVLogger, "save"),  # the first process ends with it
        "gather": (lambda: gather(torch.ones(2), 4), None, ""),
    }


TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def run(*words: str) -> None:
    """A command, which must fail: its one line as a ZooError."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    if status:
        raise ZooError(said.getvalue().splitlines()[-1])


def failing(folder: Path) -> None:
    """FOLDER/<rank>.json: for each of `failures`, the type and the words of what was raised."""
    join()
    raised: dict[str, list[str]] = {}
    rank = torch.distributed.get_rank()
    for name, (act, owner, function) in failures(folder).items():
        with contextlib.ExitStack() as stack:
            if function and is_leader():
                stack.enter_context(mock.patch.object(owner, function, full))
            try:
                act()
            except Exception as error:
                raised[name] = [type(error).__name__, str(error)]
        (folder / f"{rank}.json").write_text(json.dumps(raised))
        if name == "log" and is_leader():
            os._exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    works = {"killed": killed, "distributed": distributed, "together": together, "failing": failing}
    works[sys.argv[1]](Path(sys.argv[2]))
