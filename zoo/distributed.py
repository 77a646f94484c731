"""Work that processes share: each computes a part of the examples, and all have the whole.

    positions = share(num)       # of this process
    rows = ...                   # one for each of them
    whole = gather(rows, num)    # [num, ...], the same in every process

Noise is keyed by the position of an example, so that it does not matter who computes it. Without a process group,
`share` gives all positions and `gather` returns its argument.
"""

from __future__ import annotations

import math
import os

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed

from zoo.errors import ConfigError, ZooError


def launcher() -> ClusterEnvironment | None:
    """What started this process as one of several: `torchrun`, or SLURM's `srun`; None where nothing did.

    Lightning's own requeueing under SLURM is off: it saves in the middle of a step.

    Raises:
        ConfigError: SLURM's settings contradict each other.
    """
    if TorchElasticEnvironment.detect():  # first, as in Lightning: torchrun may run inside SLURM
        return TorchElasticEnvironment()
    try:
        return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None
    except RuntimeError as error:
        raise ConfigError(f"SLURM: {' '.join(str(error).split())}") from error


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
        if not distributed.is_initialized():  # gloo with GPUs too: what is gathered lies on the CPU
            distributed.init_process_group("gloo", rank=started.global_rank(), world_size=started.world_size())
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"expected the {started.world_size()} processes of this command to find each other at "
            f"{started.main_address}:{started.main_port}, found {' '.join(str(error).split())[:200]}; start all of "
            "them with torchrun, or with srun under SLURM"
        ) from error
    return f"cuda:{started.local_rank() % max(1, torch.cuda.device_count())}" if device == "cuda" else device


def is_leader() -> bool:
    """Whether this is the first of the processes that work together, each of which runs the whole program."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _rank_and_size() -> tuple[int, int]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


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
    try:
        distributed.all_gather(parts, sent)
    except RuntimeError as error:
        raise ZooError("another process of this command failed; see what it says") from error
    return torch.cat(parts)[:num].to(rows.device)
