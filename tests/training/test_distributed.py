"""Two processes train the weights of one, and so in mixed precision, as far as it is precise; and share other work."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from PIL import Image
from torch import Tensor

from zoo.cli import main
from zoo.distributed import gather, is_leader, join, launcher, share
from zoo.errors import ConfigError, ZooError
from zoo.store.zoo import Zoo
from zoo.training import Trainer
from zoo.training.recipe import build_model, fit


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes trained; see `tiny_runs.distributed`."""
    folder = tmp_path_factory.mktemp("pairs")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
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
        assert all(torch.allclose(one[key].float(), two[key].float(), rtol=0, atol=1e-5) for key in one)
        assert apart < 1e-3 * moved


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Euclidean, of all weights together."""
    return sum(float((one[key].float() - two[key].float()).square().sum()) for key in one) ** 0.5


@pytest.mark.parametrize("kind", tiny_runs.RESUMED)
def test_a_resumed_run_of_two_processes_equals_a_whole_one(kind: str, pairs: Path) -> None:
    whole, resumed = torch.load(pairs / f"{kind}.pt"), torch.load(pairs / f"resumed {kind}.pt")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_two_processes_write_one_checkpoint(pairs: Path) -> None:
    weights = Zoo.load(f"local-dir:{pairs / 'made'}").state_dict()
    trained = torch.load(pairs / "likelihood.pt")
    assert all(torch.equal(weights[key], trained[key]) for key in trained)


# ------------------------------------------------------------------------------------------------------- shared work


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def by_torchrun(command: list[str]) -> list[subprocess.Popen[str]]:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    return [start([sys.executable, *torchrun, *command], {})]


def by_slurm(command: list[str], **variables: str) -> list[subprocess.Popen[str]]:
    """Two processes with the variables that `srun --ntasks-per-node 2` gives them."""
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "zoo", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}
    tasks = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0", "MASTER_PORT": free_port()}
    tasks |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return [start([sys.executable, *command], job | tasks | rank | variables) for rank in ranks]


def start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of `commands`."""
    folder = tmp_path_factory.mktemp("one")
    Zoo.save(build_model(tiny_runs.recipe("likelihood")["model"]), folder / "tiny", recipe=EVALUATED)
    Zoo.save(build_model(tiny_runs.recipe("likelihood")["model"]), folder / "start", recipe=EVALUATED)
    np.save(folder / "own.npy", np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8), np.uint8))
    (folder / "commands.json").write_text(json.dumps(commands(folder)))
    tiny_runs.together(folder)
    return folder


EVALUATED = {"data": {"class": "Digits"}, "evaluation": {"k": 60, "draws": 2}}


def commands(folder: Path) -> dict[str, list[str]]:
    """By name; 33 does not divide by two."""
    tiny = f"local-dir:{folder}/tiny"
    tune = ["finetune", f"local-dir:{folder}/start", "--steps", "16", "--data.batch_size", "20"]
    return {
        "sample": ["sample", "gan-mnist", "--num", "33", "--out", f"{folder}/samples.png"],
        "expected": ["sample", "vae-mnist", "--num", "33", "--out", f"{folder}/expected.png"],
        "evaluate": ["evaluate", tiny, "--json"],
        "write": ["evaluate", tiny, "--write"],
        "finetune": [*tune, "--data", f"{folder}/own.npy", "--out", f"{folder}/tuned"],
        **(QUALITY if os.environ.get("ZOO_DATA") else {}),
    }


QUALITY = {
    name: ["evaluate", name, "--only", group, "--num", "301", "--slice", "--json"]
    for name, group in (("gan-mnist", "quality"), ("lenet-mnist", "accuracy"))
}


@pytest.fixture(scope="module", params=[by_torchrun, by_slurm])
def two(request: pytest.FixtureRequest, one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of them."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("start", "tiny"):
        shutil.copytree(one / "start", folder / name)
    shutil.copy(one / "own.npy", folder)
    both = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    run_together(request.param, folder, {k: v + both * (k == "finetune") for k, v in commands(folder).items()})
    return folder


def run_together(launch: Callable[[list[str]], list[Any]], folder: Path, words: dict[str, list[str]]) -> None:
    (folder / "commands.json").write_text(json.dumps(words))
    for process in launch([tiny_runs.__file__, "together", str(folder)]):
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]


def numbers(text: str) -> dict[str, dict[str, Any]]:
    return {f"{m['name']} {m['unit']}": m for m in json.loads(text)["measurements"]}


def same_numbers(ours: str, theirs: str, tolerance: dict[str, float]) -> None:
    found, expected = numbers(ours), numbers(theirs)
    assert found.keys() == expected.keys() and found
    for name, number in expected.items():
        assert found[name]["n"] == number["n"]
        for key in ("value", "error"):
            close = pytest.approx(number[key], rel=tolerance.get(number["name"], 1e-5))
            assert found[name][key] == close, (name, key)


def test_shared_samples_are_the_same_picture(one: Path, two: Path) -> None:
    for name in ("samples.png", "expected.png"):
        ours, theirs = (np.asarray(Image.open(folder / name)).astype(int) for folder in (one, two))
        assert ours.shape == theirs.shape and ours.std() > 10
        apart = abs(ours - theirs)
        assert apart.max() <= 1 and (apart > 0).mean() < 1e-3  # rounding, where the batch changes the order of a sum


def test_a_shared_evaluation_gives_the_same_numbers(one: Path, two: Path) -> None:
    same_numbers((two / "evaluate.out").read_text(), (one / "evaluate.out").read_text(), {})
    assert numbers((two / "evaluate.out").read_text())["nll nats"]["n"] == 300
    same_numbers((two / "tiny/metrics.json").read_text(), (one / "tiny/metrics.json").read_text(), {})
    assert (two / "write.out").read_text().count("neg_elbo") == 2  # in nats and in bits/dim, once
    assert (two / "tiny/samples.png").exists()


def test_shared_fine_tuning_measures_once_and_records_the_same_numbers(one: Path, two: Path) -> None:
    loose = dict.fromkeys(("neg_elbo", "nll"), 1e-4)  # of weights that differ by rounding
    same_numbers((two / "tuned/metrics.json").read_text(), (one / "tuned/metrics.json").read_text(), loose)
    assert (two / "finetune.out").read_text().count("before:") == (one / "finetune.out").read_text().count("before:")
    weights, start = (Zoo.load(f"local-dir:{two / name}").state_dict() for name in ("tuned", "start"))
    assert distance(weights, Zoo.load(f"local-dir:{one / 'tuned'}").state_dict()) < 1e-3 * distance(weights, start)


def test_shared_sample_quality(real_data: str, one: Path, two: Path) -> None:
    for name in QUALITY:
        ours, theirs = ((folder / f"{name}.out").read_text() for folder in (one, two))
        same_numbers(theirs, ours, {"fid": 1e-4, "kid": 1e-4})
    assert "fid " in numbers((two / "gan-mnist.out").read_text())


def test_one_process_has_it_all() -> None:
    assert share(3).tolist() == [0, 1, 2] and share(0).tolist() == []
    rows = torch.rand(3, 2)
    assert gather(rows, 3) is rows
    assert join("cpu") == "cpu" and not torch.distributed.is_initialized()


def test_the_first_process_of_another_node_is_not_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_leader()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_leader()


@pytest.mark.parametrize(("size", "num"), [(2, 5), (3, 3), (4, 1), (4, 9)])
def test_shares_are_equally_long_and_together_the_whole(size: int, num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: size)
    for rank in range(size):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append(share(num))
    assert len({len(part) for part in shares}) == 1
    assert torch.cat(shares)[:num].tolist() == list(range(num))
    assert all(0 <= position < num for part in shares for position in part.tolist())


SRUN = {"SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "2"}  # a step of two tasks
SALLOC = {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PTY_PORT": "1", "SLURM_PROCID": "0"}


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A job of SLURM that has four tasks on one node, and variables besides."""

    def allocate(variables: dict[str, str], name: str = "zoo") -> None:
        shell = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": name, "SLURM_NTASKS": "4", "SLURM_NNODES": "1"}
        for key, value in (shell | variables).items():
            monkeypatch.setenv(key, value)

    return allocate


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, "zoo"),  # what sbatch gives its script
        ({}, "interactive"),  # salloc, a shell on the login node
        (SALLOC, "interactive"),  # salloc, a shell on the first node, which is a step of its own kind
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, "zoo"),
        ({**SRUN, "SLURM_PTY_PORT": "1"}, "bash"),  # srun --pty bash: the other shells are at no terminal
    ],
)
@pytest.mark.filterwarnings("ignore:SLURM has 4 tasks")
def test_what_srun_has_not_started_waits_for_nobody(
    variables: dict[str, str], name: str, job: Callable[..., None], tmp_path: Path
) -> None:
    job(variables, name)
    assert join("cpu") == "cpu" and not torch.distributed.is_initialized()
    assert Trainer(tmp_path, accelerator="cpu", max_steps=1).world_size == 1
    both = Trainer(tmp_path, accelerator="cpu", max_steps=1, devices=2)
    assert both.strategy.launcher is not None  # which starts the other
    with pytest.raises(ConfigError, match=r"num_nodes=2 needs .* put srun before the command$"):
        Trainer(tmp_path, accelerator="cpu", max_steps=1, devices=2, num_nodes=2, strategy="ddp")


@pytest.mark.parametrize(("variables", "name"), [(SRUN, "zoo"), (SALLOC | SRUN, "interactive")])
def test_what_srun_has_started_is_a_group(variables: dict[str, str], name: str, job: Callable[..., None]) -> None:
    """In the shell of salloc too, whose variables srun passes on."""
    job({**variables, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "1"}, name)
    started = launcher()
    assert isinstance(started, SLURMEnvironment) and (started.global_rank(), started.world_size()) == (1, 2)


def test_one_process_of_a_job_of_many_tasks_says_so(job: Callable[..., None]) -> None:
    job({"SLURM_PROCID": "0"})
    with pytest.warns(UserWarning, match=r"SLURM has 4 tasks .*; put srun before it to use all$"):
        join()


def test_what_cannot_be_joined_is_said_in_one_line(job: Callable[..., None]) -> None:
    job(SRUN)
    with pytest.raises(ConfigError, match=r"^SLURM: .*--ntasks-per-node=4") as error:
        join()
    assert "\n" not in str(error.value)


FULL = "No space left on device"


def test_what_fails_in_the_first_process_fails_in_all(one: Path, tmp_path: Path) -> None:
    """Nobody ends processes that wait, as torchrun would: they end by themselves, soon, and say the same."""
    shutil.copytree(one / "start", tmp_path / "tiny")
    shutil.copy(one / "own.npy", tmp_path)
    for folder in ("there", "half.run"):
        (tmp_path / "first" / folder).mkdir(parents=True)  # the other process does not see it
    processes = by_slurm([tiny_runs.__file__, "failing", str(tmp_path)], HOME=str(tmp_path), WANDB_API_KEY="")
    said = [said_by(process) for process in processes]
    raised = [json.loads(path.read_text()) for path in (tmp_path / "0.json", tmp_path / "1.json")]
    first, other = raised
    assert len(first) == 13 and len(other) == 14, said
    for name, words in {
        "folder": "exists already; choose another folder",
        "run": "there is a run already; resume it",
        "recipe": FULL,
        "checkpoint": f"last.ckpt: cannot be written: {FULL}",
        "picture": f"the picture cannot be written: {FULL}",
        "export": FULL,
        "wandb": "trainer: wandb: ",
        "devices": "expected devices x num_nodes to equal the 2 processes",
        "sample": FULL,
        "evaluate": FULL,
        "finetune": FULL,
    }.items():
        assert words in other[name][1] and "\n" not in other[name][1], other[name]
        assert first[name][0] == other[name][0] != "OSError" or name == "finetune"
    assert other["other"] == ["ZooError", f"the first process of this command failed: OSError [Errno 28] {FULL}"]
    assert first["log"][0] == "OSError"  # with which it ended
    for name in ("log", "gather"):
        assert other[name] == ["ZooError", "another process of this command failed; see its message"]
    assert not (tmp_path / "export").exists()


def said_by(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=200)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return f"still waiting: {process.communicate()[0]}"


@pytest.mark.parametrize(
    "words",
    ["sample x", "evaluate x", "reproduce mnist-nll", "fit x.yaml --out y", "finetune x --data y --out z"],
)
def test_shared_commands_meet_before_anything_can_fail_in_one(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the others would wait for a process that has ended."""

    def meet(device: str = "cpu") -> str:
        raise ZooError("met")

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setattr("zoo.distributed.join", meet)
    assert main(words.split()) == 1 and capsys.readouterr().err == "zoo: met\n"


def test_the_command_is_a_module_that_torchrun_can_start() -> None:
    done = start([sys.executable, "-m", "zoo", "--version"], {})
    assert done.communicate(timeout=60)[0].startswith("zoo ") and done.returncode == 0
