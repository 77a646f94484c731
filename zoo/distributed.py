"""Work that is divided among processes: each computes a part of the examples, and all receive the whole.

    positions = share(num)       # positions that this process computes
    rows = ...                   # one row for each of them
    whole = gather(rows, num)    # [num, ...], the same in every process
    on_leader(write)             # only the first process writes; if it fails, all fail

Noise depends on the position of an example, so that it does not matter which process computes it. Without a process
group, `share` returns all positions and `gather` returns its argument.
"""

from __future__ import annotations

import atexit
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zoo.compatibility  # noqa: F401

# isort: split
import torch

# isort: split
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed

from zoo.config import reason
from zoo.errors import ConfigError, ZooError

_LOST = "another process of this command failed; see its message"


def launcher(num_nodes: object = 1) -> ClusterEnvironment | None:
    """The environment that started this process as one of several: `torchrun` or SLURM's `srun`.

    A SLURM job has a number of tasks, but only `srun` starts them. Without `srun`, a command in a batch script or an
    interactive shell is a single process, from which Lightning can start others on the same machine. Lightning's own
    requeueing under SLURM is disabled, because it saves in the middle of a step.

    Args:
        num_nodes: Number of machines that the command uses.

    Returns:
        The environment, or None if Lightning should detect it itself.

    Raises:
        ConfigError: SLURM's settings contradict each other, or several machines are to be used without `srun`.
    """
    if TorchElasticEnvironment.detect():  # comes first, as in Lightning: torchrun may run inside SLURM
        return TorchElasticEnvironment()
    if "SLURM_JOB_ID" not in os.environ:
        return None
    if not _is_started_by_srun():
        if num_nodes != 1:
            raise ConfigError(
                f"trainer: num_nodes={num_nodes} needs a process for each device of every node, and only srun starts "
                "them; put srun before the command"
            )
        if is_leader() and (tasks := os.environ.get("SLURM_NTASKS", "1")) != "1":
            warnings.warn(
                f"SLURM has {tasks} tasks for this job, but this command runs without srun, as one process; put srun "
                "before it to use all",
                stacklevel=1,
            )
        return LightningEnvironment()  # Lightning's own detection would wait for the other tasks
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise ConfigError(f"SLURM: {reason(error)}") from error


def _is_started_by_srun() -> bool:
    """Whether this process is one of several tasks that srun started. Only srun sets the variables of a step.

    The shell of `salloc` is also a step, but with a number near 2^32 and a single task. `srun --pty bash` with several
    tasks leaves one of them at the terminal. The name of the job does not help, since srun inherits that of salloc.
    """
    is_shell = "SLURM_PTY_PORT" in os.environ and SLURMEnvironment.job_name() == "bash"
    step, tasks = (os.environ.get(f"SLURM_STEP_{name}", "") for name in ("ID", "NUM_TASKS"))
    return step.isdecimal() and int(step) < 2**31 and tasks.isdecimal() and int(tasks) > 1 and not is_shell


def join(device: str = "cpu") -> str:
    """Joins the processes that were started for one command into a group, which lasts until they end.

    Args:
        device: "cpu", "cuda" or another device of torch.

    Returns:
        The device of this process; for "cuda", one of the machine's GPUs.

    Raises:
        ConfigError: The other processes cannot be reached.
    """
    started = launcher()
    if started is None or started.world_size() == 1:
        return device
    try:
        os.environ |= {"MASTER_ADDR": started.main_address, "MASTER_PORT": str(started.main_port)}
        if not distributed.is_initialized():
            # results and messages are on the CPU, gradients can be on GPUs
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
            distributed.init_process_group(backend, rank=started.global_rank(), world_size=started.world_size())
            atexit.register(_leave)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"expected the {started.world_size()} processes of this command to find each other at "
            f"{started.main_address}:{started.main_port}, found {reason(error)}; start all of "
            "them with torchrun, or with srun under SLURM"
        ) from error
    return f"cuda:{started.local_rank() % max(1, torch.cuda.device_count())}" if device == "cuda" else device


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_leader() -> bool:
    """Whether this is the first of the processes that work together. Each of them runs the whole program."""
    if _rank_and_size()[1] > 1:
        return distributed.get_rank() == 0
    node = os.environ.get("NODE_RANK", "0")  # for Lightning, the first process of each node has rank 0
    return getattr(rank_zero_only, "rank", 0) == 0 and node == "0"


def on_leader(act: Callable[[], object]) -> None:
    """Runs a function in the first process while the others wait. If it fails, all processes fail with its message.

    All processes must call it. If there is no group yet, processes that Lightning starts later find the work done.

    Args:
        act: Function without arguments.

    Raises:
        ZooError: `act` raised it (in all processes), or another process failed. Other errors of `act` are raised in the
            first process, and become a ZooError in the others.
    """
    failure: BaseException | None = None
    if is_leader():
        try:
            act()
        except BaseException as error:
            failure = error
    if _rank_and_size()[1] > 1:
        told = [failure if failure is None or isinstance(failure, ZooError) else ZooError(_one_line(failure))]
        try:
            with sensing_loss():
                distributed.broadcast_object_list(told, src=0)
        except ZooError:
            if failure is None:
                raise
        failure = failure or told[0]
    if failure is not None:
        raise failure


def _one_line(error: BaseException) -> str:
    reason = " ".join(str(error).split())[:300]
    return f"the first process of this command failed: {type(error).__name__} {reason}".rstrip()


@contextmanager
def sensing_loss() -> Iterator[None]:
    """Within this context, PyTorch's errors about closed connections become one clear error.

    Raises:
        ZooError: Another process of the group failed.
    """
    try:
        yield
    except RuntimeError as error:
        is_told = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if _rank_and_size()[1] > 1 and is_told:
            raise ZooError(_LOST) from error
        raise


def _rank_and_size() -> tuple[int, int]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def size() -> int:
    """Number of processes in the group; 1 if there is no group."""
    return _rank_and_size()[1]


def share(num: int) -> Tensor:
    """The positions, out of `num`, that this process computes.

    The parts are consecutive and follow each other by rank. All have the same length: at the end, positions from the
    beginning fill the last part, and `gather` drops their rows.

    Returns:
        The positions, [ceil(num / size())], int64.
    """
    rank, size = _rank_and_size()
    width = math.ceil(num / size)
    return torch.arange(rank * width, (rank + 1) * width) % max(1, num)


def gather(rows: Tensor, num: int) -> Tensor:
    """Collects the rows that the processes computed. All processes must call it.

    Args:
        rows: Rows of the positions `share(num)` of this process, [len(share(num)), ...].
        num: Total number of positions.

    Returns:
        The rows of all positions, [num, ...].

    Raises:
        ZooError: Another process failed.
    """
    _, size = _rank_and_size()
    if size == 1:
        return rows
    sent = rows.to("cuda" if distributed.get_backend() == "nccl" else "cpu").contiguous()
    parts = [torch.empty_like(sent) for _ in range(size)]
    with sensing_loss():
        distributed.all_gather(parts, sent)
    return torch.cat(parts)[:num].to(rows.device)
