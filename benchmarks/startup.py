"""Start-up: a fresh process that loads a checkpoint and draws from it, against one that imports torch and lightning."""

from __future__ import annotations

import subprocess
import sys
import time

from report import ROOT, in_turn, options, report

REQUIRED = 1.15


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = options(__doc__, repeats=7)
    parser.add_argument("--name", default="vae-mnist", help="checkpoint (default %(default)s)")
    arguments = parser.parse_args()
    ours = f"from zoo import Zoo; Zoo.load({arguments.name!r}).sample(64)"
    alone = "import torch, lightning"
    for code in (ours, alone):  # the first run of all reads from the disk and compiles
        seconds(code)
    found = in_turn(arguments.repeats, ours=lambda: seconds(ours), alone=lambda: seconds(alone))
    ratio = found["ours"] / found["alone"]
    report(
        f"Loading {arguments.name} and drawing 64 images in a fresh process takes {found['ours']:.2f} s, "
        f"{ratio:.2f} times the {found['alone']:.2f} s of importing torch and lightning alone "
        f"(required: at most {REQUIRED}).",
        arguments.json,
        benchmark="startup",
        ratio=ratio,
        required=REQUIRED,
        seconds=found,
    )


if __name__ == "__main__":
    main()
