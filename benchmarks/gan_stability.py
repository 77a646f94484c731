"""Spread over training seeds of a GAN and its regularised versions: what those methods claim is stability.

    python benchmarks/gan_stability.py --steps 1000

Trains the recipe of each named checkpoint once for every seed, which draws the initial weights, the noise and the order
of the data; measures the quality of samples against held-out training images, so that the test set stays out of the
comparison; and writes what it found after each run to `benchmarks/results/gan_stability.json`, from which an
interrupted comparison goes on where recipes and settings are the same. Prints a table of mean +- standard deviation.
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

from zoo import Zoo
from zoo.capabilities import GenerativeModel
from zoo.checkpoint import read_metrics
from zoo.distributed import share
from zoo.errors import ConfigError
from zoo.metrics.evaluate import recipe_of
from zoo.metrics.extractors import Extractor, default_extractor, load_extractor
from zoo.metrics.quality import Features, extract, fid, kid, precision_recall
from zoo.training.recipe import build_data, fit, override

ROOT = Path(__file__).resolve().parent
NAMES = ("dcgan-mnist", "dcgan-mnist.instance-noise", "dcgan-mnist.gradient-penalty", "dcgan-mnist.jacobian-clamping")
COLUMNS = ("fid", "kid", "precision", "recall")


def train_and_measure(
    recipe: dict[str, Any], truth: Features, extractor: Extractor, num: int, folder: Path
) -> dict[str, Any]:
    """The numbers of one training run, with the sha256 of its exported weights and the seconds of processor time."""
    start = time.process_time()
    model = fit(recipe, folder / "run")
    seconds = time.process_time() - start
    Zoo.save(model, folder / "model", recipe=recipe, dtype=recipe["dtype"])
    exported = Zoo.load(f"local-dir:{folder / 'model'}")
    assert isinstance(exported, GenerativeModel)
    generator = torch.Generator().manual_seed(0)
    samples = exported.iter_samples(num, generator=generator, positions=share(num))
    found = extract(samples, extractor, num, label="samples", progress=False)
    precision, recall = precision_recall(found.values, truth.values)
    numbers = {
        "fid": fid(found.values, truth.values)[0],
        "kid": kid(found.values, truth.values)[0],
        "precision": precision[0],
        "recall": recall[0],
    }
    sha256 = read_metrics(folder / "model").weights_sha256
    return {**numbers, "weights_sha256": sha256, "processor_seconds": round(seconds, 1)}


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

    data = build_data(recipe_of(options.names[0])["data"])
    extractor = load_extractor(default_extractor(data.name))
    settings = {"num": options.num, "split": "valid", "extractor": extractor.details()}
    quiet = {"trainer.progress": False, "trainer.sample_grids": False, "trainer.limit_val_batches": 0}
    changes = quiet if options.steps is None else {**quiet, "trainer.max_steps": options.steps}
    plan = {}
    for seed in range(options.seeds):
        for name in options.names:
            recipe = override(recipe_of(name), {"seed": seed, **changes})
            plan[digest(recipe, settings)] = (name, seed, recipe)
    runs = finished(options.out, set(plan))

    images = (batch.x for batch in data.batches("valid", index=data.subset("valid", options.num, 0)))
    truth = extract(images, extractor, options.num, label="valid", progress=False)
    done = {run["digest"] for run in runs}
    for key, (name, seed, recipe) in plan.items():
        if key in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            numbers = train_and_measure(recipe, truth, extractor, options.num, Path(folder))
        runs.append({"name": name, "seed": seed, "steps": recipe["trainer"]["max_steps"], "digest": key, **numbers})
        runs.sort(key=lambda run: (run["seed"], run["name"]))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")
        print(f"{name} seed {seed}: fid {numbers['fid']:.1f}", flush=True)
    print(table(runs, options.names))


if __name__ == "__main__":
    main()
