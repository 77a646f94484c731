"""Peak memory of sampling, evaluating and fine-tuning with few images and with many, each in its own process.

This process imports nothing large, because the peak that the system reports for a child includes that of its parent.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from report import ROOT, options, report

REQUIRED = 2.5  # GiB
FEW, MANY = 2_000, 10_000
FEW_OWN, MANY_OWN = 12_000, 60_000

RUN = """
import resource, sys
from zoo.cli import main
status = main(sys.argv[1:])
unit = 1 if sys.platform == "darwin" else 1024
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
sys.exit(status)
"""

MAKE = """
import sys
import numpy as np
x = np.random.default_rng(0).integers(0, 256, (int(sys.argv[2]), 1, 28, 28), np.uint8)
np.savez(sys.argv[1], x=x)
"""


def peak(*words: str) -> float:
    """Runs `zoo WORDS` and returns its peak resident memory in GiB."""
    done = subprocess.run([sys.executable, "-c", RUN, *words], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return int(done.stdout.rsplit("peak ", 1)[1]) / 2**30


def main() -> None:
    parser = options(__doc__, repeats=1)
    parser.add_argument("--name", default="vae-mnist", help="checkpoint of 8-bit images (default %(default)s)")
    arguments = parser.parse_args()
    name, found = arguments.name, {}
    with tempfile.TemporaryDirectory() as folder:
        for num in (FEW, MANY):
            found[f"sample {num}"] = peak("sample", name, "--num", str(num), "--out", f"{folder}/{num}.png")
            # many importance samples take long, but no more memory than 50
            found[f"evaluate {num}"] = peak("evaluate", name, "--k", "50", "--num", str(num))
        for num in (FEW_OWN, MANY_OWN):
            data, out = f"{folder}/{num}.npz", f"{folder}/own-{num}"
            subprocess.run([sys.executable, "-c", MAKE, data, str(num)], check=True)
            steps = ("--steps", "90", "--evaluation.k", "50")
            found[f"finetune {num}"] = peak("finetune", name, "--data", data, "--out", out, *steps)
    worst = max(found.values())
    report(
        f"Peak memory with {name}: "
        f"{found[f'sample {MANY}']:.2f} GiB to sample {MANY:,} images ({found[f'sample {FEW}']:.2f} for {FEW:,}), "
        f"{found[f'evaluate {MANY}']:.2f} to evaluate with {MANY:,} ({found[f'evaluate {FEW}']:.2f} with {FEW:,}), "
        f"{found[f'finetune {MANY_OWN}']:.2f} to fine-tune on {MANY_OWN:,} ({found[f'finetune {FEW_OWN}']:.2f} on "
        f"{FEW_OWN:,}) (required: at most {REQUIRED} each).",
        arguments.json,
        benchmark="memory",
        gib=found,
        worst=worst,
        required=REQUIRED,
    )


if __name__ == "__main__":
    main()
