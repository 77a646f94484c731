"""Processes that fetch from the Hub and are killed, many, or short of disk: cheap ones, which do not import torch.

python hub_processes.py kill REPO...      kills one download of each at a random moment; prints how many were alive
python hub_processes.py crowd REPO        eight at once; prints how many succeeded
python hub_processes.py fetch SOURCE...   one; prints the folder of each, or what it says
python hub_processes.py starve REPO       the same, where no file may have more than 1000 bytes
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download  # noqa: F401 - imports the client before a fork, and so once

from zoo.errors import DownloadError
from zoo.store import pull


def fork(task: Callable[[], object]) -> int:
    """A child that exits with 0 where the task succeeds."""
    if pid := os.fork():
        return pid
    try:
        task()
        os._exit(0)
    finally:
        os._exit(1)


def kill(*repos: str) -> int:
    """The first is left in peace, for the time that it takes."""
    start, draw, alive = time.monotonic(), random.Random(0), 0
    os.waitpid(fork(lambda: pull.fetch(repos[0], "main")), 0)
    whole = time.monotonic() - start
    for repo in repos[1:]:
        pid = fork(lambda repo=repo: pull.fetch(repo, "main"))  # type: ignore[misc]
        time.sleep(draw.uniform(0, whole))
        os.kill(pid, signal.SIGKILL)
        alive += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    return alive


def crowd(repo: str) -> int:
    children = [fork(lambda: pull.fetch(repo, "main")) for _ in range(8)]
    return sum(os.waitpid(pid, 0)[1] == 0 for pid in children)


def fetch(*sources: str) -> str:
    lines = []
    for source in sources:
        try:
            lines.append(str(pull.fetch(*pull.parse_source(source))))
        except DownloadError as error:
            lines.append(str(error))
    return "\n".join(lines)


def starve(repo: str) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return fetch(repo)


def run(*arguments: str, **environment: str) -> str:
    """What such a process prints."""
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(pull.__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


if __name__ == "__main__":
    print({"kill": kill, "crowd": crowd, "fetch": fetch, "starve": starve}[sys.argv[1]](*sys.argv[2:]))
