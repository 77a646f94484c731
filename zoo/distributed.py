"""Work that processes share: each computes a part of the examples, and all have the whole.

    positions = share(num)       # of this process
    rows = ...                   # one for each of them
    whole = gather(rows, num)    # [num, ...], the same in every process
    on_leader(write)             # the first alone does it; if it fails, all fail

Noise is keyed by the position of an example, so that it does not matter who computes it. Without a process group,
`share` gives all positions and `gather` returns its argument.
"""

from __future__ import annotations

import atexit
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed

from zoo.errors import ConfigError, ZooError

_LOST = "another process of this command failed; see what it says"


def launcher(num_nodes: object = 1) -> ClusterEnvironment | None:
    """What started this process as one of several, `torchrun` or SLURM's `srun`; None where Lightning may look itself.

    A job of SLURM has a number of tasks, but only `srun` starts them: what its batch script or an interactive shell
    runs without it is one process, from which Lightning starts others on the same machine.
    Lightning's own requeueing under SLURM is off: it saves in the middle of a step.

    Raises:
        ConfigError: SLURM's settings contradict each other, or processes on other nodes are asked for without `srun`.
    """
    if TorchElasticEnvironment.detect():  # first, as in Lightning: torchrun may run inside SLURM
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
        return LightningEnvironment()  # Lightning's own look would wait for the other tasks
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise ConfigError(f"SLURM: {' '.join(str(error).split())}") from error


def _is_started_by_srun() -> bool:
    """Whether this is one of several tasks that srun has started; by the variables of a step, which srun alone sets.

    The shell of `salloc` is a step too, of a number near 2^32 and one task. `srun --pty bash` with several tasks leaves
    one of them at the terminal. The name of the job tells nothing: salloc's `interactive` is inherited by srun.
    """
    is_shell = "SLURM_PTY_PORT" in os.environ and SLURMEnvironment.job_name() == "bash"
    step, tasks = (os.environ.get(f"SLURM_STEP_{name}", "") for name in ("ID", "NUM_TASKS"))
    return step.isdecimal() and int(step) < 2**31 and tasks.isdecimal() and int(tasks) > 1 and not is_shell


def join(device: str = "cpu") -> str:
    """Makes a group of the processes that were launched for one command; it lasts until they end.

    Returns:
        The device of this process: where `device` is "cuda", one of its machine's GPUs.

    Raises:
        ConfigError: the other processes cannot be reached.
    """
    started = launcher()
    if started is None or started.world_size() == 1:
        return device
    try:
        os.environ |= {"MASTER_ADDR": started.main_address, "MASTER_PORT": str(started.main_port)}
        if not distributed.is_initialized():
            # what is gathered or said lies on the CPU; gradients, if this group trains, on GPUs
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
            distributed.init_process_group(backend, rank=started.global_rank(), world_size=started.world_size())
            atexit.register(_leave)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"expected the {started.world_size()} processes of this command to find each other at "
            f"{started.main_address}:{started.main_port}, found {' '.join(str(error).split())[:200]}; start all of "
            "them with torchrun, or with srun under SLURM"
        ) from error
    return f"cuda:{started.local_rank() % max(1, torch.cuda.device_count())}" if device == "cuda" else device


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def is_leader() -> bool:
    """Whether this is the first of the processes that work together, each of which runs the whole program."""
    if _rank_and_size()[1] > 1:
        return distributed.get_rank() == 0
    node = os.environ.get("NODE_RANK", "0")  # given to Lightning, which counts the first process of each node as one
    return getattr(rank_zero_only, "rank", 0) == 0 and node == "0"


def on_leader(act: Callable[[], object]) -> None:
    """Runs `act` in the first process, while the others wait for its end. Where it fails, all fail, with one message.

    Every process must call it. Where there is no group yet, those that Lightning is going to start find it done.

    Raises:
        ZooError: what `act` raised, in every process; or another process failed. Anything else that `act` raised is
            raised in the first process, and told to the others as a ZooError.
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
    """Says in one line that another process of the group is gone, where PyTorch tells of a closed connection.

    Raises:
        ZooError: it is gone.
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
    """Of the group, 1 where there is none."""
    return _rank_and_size()[1]


def share(num: int) -> Tensor:
    """The positions, of `num`, that this process computes: int64, equally many in each process.

    They are consecutive, so that the parts in order of rank are the whole; past its end they begin anew, and `gather`
    leaves out what was computed twice.
    """
    rank, size = _rank_and_size()
    width = math.ceil(num / size)
    return torch.arange(rank * width, (rank + 1) * width) % max(1, num)


def gather(rows: Tensor, num: int) -> Tensor:
    """The rows of all positions from those of each process's `share(num)`: [len(share(num)), ...] -> [num, ...].

    Every process must call it.

    Raises:
        ZooError: another process failed.
    """
    _, size = _rank_and_size()
    if size == 1:
        return rows
    sent = rows.to("cuda" if distributed.get_backend() == "nccl" else "cpu").contiguous()
    parts = [torch.empty_like(sent) for _ in range(size)]
    with sensing_loss():
        distributed.all_gather(parts, sent)
    return torch.cat(parts)[:num].to(rows.device)
