"""Spread over training seeds of a GAN and its regularised versions: what those methods claim is stability.

    python benchmarks/gan_stability.py --steps 1000 --out my-runs.json

Trains the recipe of each named checkpoint once for every seed, which draws the initial weights, the noise and the order
of the data; measures the quality of samples against held-out training images, so that the test set stays out of the
comparison; and writes what it found after each run to `--out`, from which an interrupted comparison goes on where the
recipes and settings are the same. Prints a table of mean +- standard deviation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from zoo.capabilities import GenerativeModel
from zoo.distributed import share
from zoo.errors import ConfigError
from zoo.metrics.extractors import Extractor, default_extractor, load_extractor
from zoo.metrics.quality import extract, reference_of, scores
from zoo.store.source import checkpoint
from zoo.training.recipe import build_data, make, override

ROOT = Path(__file__).resolve().parent
NAMES = ("dcgan-mnist", "dcgan-mnist.instance-noise", "dcgan-mnist.gradient-penalty", "dcgan-mnist.jacobian-clamping")
COLUMNS = ("fid", "kid", "precision", "recall")


def train_and_measure(recipe: dict[str, Any], extractor: Extractor, num: int, folder: Path) -> dict[str, Any]:
    """The numbers of one training run, with the sha256 of its exported weights and the seconds of processor time."""
    start = time.process_time()
    data = build_data(recipe["data"], recipe["seed"])  # a seed may also choose which images are held out
    made = make(recipe, folder / "model", data=data)
    seconds = time.process_time() - start
    model = made.load()
    assert isinstance(model, GenerativeModel)
    generator = torch.Generator().manual_seed(0)
    samples = model.iter_samples(num, generator=generator, positions=share(num))
    truth = reference_of(data, "valid", extractor, num, seed=0, progress=False)
    found = scores(extract(samples, extractor, num, label="samples", progress=False), truth, seed=0)
    return {column: found[column][0] for column in COLUMNS} | {
        "weights_sha256": made.weights_sha256,
        "processor_seconds": round(seconds, 1),
    }


def table(runs: list[dict[str, Any]], names: list[str]) -> str:
    """Mean +- standard deviation of each column, a line for each name; one seed has no deviation."""
    lines = ["model".ljust(32) + "seeds  " + "".join(column.rjust(20) for column in COLUMNS)]
    for name in names:
        mine = [run for run in runs if run["name"] == name]
        if mine:
            values = ([run[column] for run in mine] for column in COLUMNS)
            cells = (f"{statistics.mean(v):.3f} +- {statistics.stdev(v) if v[1:] else math.nan:.3f}" for v in values)
            lines.append(name.ljust(32) + f"{len(mine):5}  " + "".join(cell.rjust(20) for cell in cells))
    return "\n".join(lines)


def digest(recipe: dict[str, Any], settings: dict[str, Any]) -> str:
    """What tells runs of one recipe, measured in one way, from all others."""
    return hashlib.sha256(json.dumps([recipe, settings], sort_keys=True).encode()).hexdigest()


def finished(path: Path, planned: set[str]) -> list[dict[str, Any]]:
    """The runs that a file holds.

    Raises:
        ConfigError: one is not planned: it is of another recipe, seed or way to measure, and would be lost.
    """
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    if others := [run for run in runs if run["digest"] not in planned]:
        raise ConfigError(
            f"{path}: {len(others)} of its {len(runs)} runs are of other recipes or settings than asked for now; give "
            "another --out, or delete the file"
        )
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Spread of sample quality over training seeds.")
    parser.add_argument("names", nargs="*", default=list(NAMES), help="checkpoints whose recipes are run")
    parser.add_argument("--seeds", type=int, default=5, help="0, 1, ... (default %(default)s)")
    parser.add_argument("--steps", type=int, help="of training, the same for all; by default what each recipe says")
    parser.add_argument("--num", type=int, default=5000, help="samples, and held-out images (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gan_stability.json")
    options = parser.parse_args(arguments)

    data = checkpoint(options.names[0]).data()
    seen = [{**checkpoint(name).settings.get("data", {}), "batch_size": None} for name in options.names]
    if other := next((name for name, section in zip(options.names, seen, strict=True) if section != seen[0]), None):
        raise ConfigError(f"{other}: expected the data of {options.names[0]}, with whose numbers its own compare")
    extractor = load_extractor(default_extractor(data) or "lenet-mnist")
    if not extractor.num_features < options.num <= len(data.split("valid")):
        raise ConfigError(
            f"--num: expected more than the {extractor.num_features} features of {extractor.name} and at most the "
            f"{len(data.split('valid'))} held-out images, found {options.num}"
        )
    settings = {"num": options.num, "split": "valid", "extractor": extractor.details()}
    quiet = {"trainer.progress": False, "trainer.sample_grids": False, "trainer.limit_val_batches": 0}
    changes = quiet if options.steps is None else {**quiet, "trainer.max_steps": options.steps}
    plan = {}
    for seed in range(options.seeds):
        for name in options.names:
            recipe = override(checkpoint(name).settings, {"seed": seed, **changes})
            plan[digest(recipe, settings)] = (name, seed, recipe)
    runs = finished(options.out, set(plan))

    done = {run["digest"] for run in runs}
    for key, (name, seed, recipe) in plan.items():
        if key in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            numbers = train_and_measure(recipe, extractor, options.num, Path(folder))
        runs.append({"name": name, "seed": seed, "steps": recipe["trainer"].get("max_steps"), "digest": key, **numbers})
        runs.sort(key=lambda run: (run["seed"], run["name"]))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_name(f".{options.out.name}")
        partial.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")
        partial.replace(options.out)  # whole, whenever it is interrupted
        print(f"{name} seed {seed}: fid {numbers['fid']:.1f}", flush=True)
    print(table(runs, options.names))


if __name__ == "__main__":
    main()
