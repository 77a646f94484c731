"""Fine-tunes one checkpoint of each kind on 1,000 images of clothes, with the defaults of `zoo finetune`.

Checkpoints that know clothes are fine-tuned on digits, and those of 64x64 pixels on scaled photographs of CIFAR-10.

The table says what the numbers of each model are on the test images before and after, and how long it took.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import ROOT

NAMES = (
    "gaussian-mnist",
    "mixture-binarized-mnist",
    "nade-binarized-mnist",
    "made-binarized-mnist",
    "gated-pixelcnn-binarized-mnist",
    "conditional-gated-pixelcnn-binarized-mnist",
    "vae-mnist",
    "vae-shapes64",
    "maf-mnist",
    "glow-mnist",
    "rbm-binarized-mnist",
    "dbn-binarized-mnist",
    "dbm-binarized-mnist",
    "gan-mnist",
    "dcgan-mnist",
    "conditional-edm-mnist",
    "conditional-edm-shapes64",
    "ddpm-fashion-mnist",
    "lenet-mnist",
)
NUM = 1000
WORDS = {"nll": "nats", "neg_elbo": "nats, a bound", "accuracy": "% of labels right", "kid": "KID"}
RESULTS = ROOT / "benchmarks" / "results" / "finetuning.json"


def run(name: str, folder: Path) -> dict[str, Any]:
    """Fine-tunes one checkpoint: its numbers before and after, and the duration in seconds."""
    import torch
    from torch.nn.functional import interpolate

    from zoo.data import CIFAR10, MNIST, FashionMNIST
    from zoo.store.checkpoint import Checkpoint
    from zoo.training.finetune import finetune

    kind = CIFAR10 if "shapes64" in name else MNIST if "fashion" in name else FashionMNIST
    train = kind().split("train")
    assert train.labels is not None
    index = torch.arange(len(train))
    if name == "conditional-edm-shapes64":  # which has eight classes, and CIFAR-10 has ten
        index = index[train.labels < 8]
    train = train.take(index[:NUM])
    assert train.labels is not None
    x = train.x
    if kind is CIFAR10:
        x = interpolate(x.float(), (64, 64), mode="bilinear").round().byte()
    if "-binarized-" in name:
        x = x >= 128
    np.savez(folder / "images.npz", x=x.numpy(), labels=train.labels.numpy())
    began = time.monotonic()
    made = Checkpoint.of_folder(finetune(name, folder / "images.npz", folder / name))
    numbers = {number.name: number for number in made.numbers if number.unit != "bits/dim"}
    shown = [numbers[key] for key in WORDS if key in numbers][:2]
    found = {number.name: [number.details["before"], number.value, number.unit] for number in shown}
    return {"numbers": found, "seconds": round(time.monotonic() - began), "lr": rate(made.settings)}


def rate(recipe: dict[str, Any]) -> float | None:
    """The learning rate that was found, if there is one."""
    return (recipe.get("optimization") or {}).get("lr")


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown, with the first number of each model."""
    lines = ["| checkpoint | number on test images | before | after | minutes |", "| --- | --- | --- | --- | --- |"]
    for name in [name for name in NAMES if name in results]:
        number, (before, after, _) = next(iter(results[name]["numbers"].items()))
        values = " | ".join(f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" for value in (before, after))
        lines.append(f"| `{name}` | {WORDS[number]} | {values} | {results[name]['seconds'] / 60:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="checkpoints (default: the recorded results are printed)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results (default %(default)s)")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(name, Path(folder))
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
