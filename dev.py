"""One command from a fresh clone to a result. It needs Python 3.11 or newer with pip; only pip needs a network.

    python3 dev.py sample    set up, then write samples.png with digits from the pretrained vae-mnist
    python3 dev.py test      set up, then run the tests
    python3 dev.py setup     only set up
    python3 dev.py check     set up, then check style and types, build the site and run the tests, as CI does

Everything is installed into the folder `.venv` beside this file. Delete that folder to start afresh.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
WORKERS = ["-n", "auto", "--maxprocesses", "8", "--dist", "loadfile"]
COMMANDS = {
    "setup": [],
    "sample": [["zoo", "sample", "vae-mnist", "--out", "samples.png", "--overwrite"]],
    "test": [["pytest", *WORKERS]],
    "check": [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["mkdocs", "build", "--strict", "--quiet", "--site-dir", ".site"],
        ["pytest", *WORKERS, "--durations=10"],
    ],
}


def run(*command: str) -> None:
    """Runs a program of `.venv`, and exits with its status if it fails."""
    print("+", *command, flush=True)
    start = time.monotonic()
    status = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False).returncode
    print(
        f"  {'done' if status == 0 else f'failed with status {status}'} after {time.monotonic() - start:.0f} s",
        flush=True,
    )
    if status:
        sys.exit(status)


def set_up(extra: str) -> None:
    """Creates `.venv` and installs the zoo with its requirements, unless this has been done.

    Args:
        extra: Optional requirements of `pyproject.toml`, such as "[dev]", or "".
    """
    stamp = VENV / f"{extra}.installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"setting up {VENV} (about 5 GB with PyTorch's CUDA libraries on Linux; a few minutes, once)", flush=True)
    if not BIN.exists() and subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False).returncode:
        sys.exit("dev.py: Python's venv module does not work here; on Debian or Ubuntu: apt install python3-venv")
    run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f".{extra}")
    stamp.write_text(wanted)


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - pip, which checks this too, runs later
        sys.exit(f"dev.py: needs Python 3.11 or newer, found {sys.version.split()[0]}")
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    set_up("" if sys.argv[1] == "sample" else "[dev]")
    for command in COMMANDS[sys.argv[1]]:
        run(*command)


if __name__ == "__main__":
    main()
