"""FID against network evaluations for every sampler of a denoiser: a table and a figure in benchmarks/results.

All samplers begin at the same noise. A sampler takes as many steps as a number of evaluations allows; Heun's method
takes two evaluations a step, except for the last. FIDs are measured against the test images on the features that are
the default for the data set. They are higher than those of 10,000 images if --num is smaller.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import torch
from report import ROOT

from zoo.capabilities import Denoiser
from zoo.metrics import Table, load_extractor
from zoo.metrics.extractors import default_extractor
from zoo.metrics.quality import extract, reference_of, scores
from zoo.samplers import DDIM, Ancestral, DPMSolver, Euler, Heun
from zoo.samplers.denoising import DenoisingSampler
from zoo.store.source import checkpoint

SAMPLERS: dict[str, Any] = {
    "ancestral": Ancestral,
    "DDIM, eta 0.5": lambda steps: DDIM(steps, eta=0.5),
    "Euler (DDIM, eta 0)": Euler,
    "Heun": Heun,
    "DPM-Solver++ (2M)": DPMSolver,
}
EVALUATIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
COLOURS = ("#1f5fa8", "#c8501e", "#3c8c46", "#7a4fa3", "#b8860b")


def sampler_of(name: str, evaluations: int) -> DenoisingSampler:
    """The sampler with as many steps as its evaluations allow; Heun needs an odd number of these."""
    steps = (evaluations + 1) // 2 if name == "Heun" else evaluations
    return SAMPLERS[name](steps=steps)


def study(name: str, num: int, most: int) -> list[dict[str, Any]]:
    """The FID of `num` samples of a checkpoint for every sampler and number of evaluations; a row for each."""
    source = checkpoint(name)
    model, data = source.load(), source.data()
    assert isinstance(model, Denoiser)
    judge = default_extractor(data)
    assert judge is not None
    extractor = load_extractor(judge)
    truth = reference_of(data, "test", extractor, 10_000, seed=0)
    rows: list[dict[str, Any]] = []
    for title in SAMPLERS:
        for sampler in (sampler_of(title, wanted) for wanted in EVALUATIONS if wanted <= most):
            if rows and (title, sampler.evaluations) == (rows[-1]["sampler"], rows[-1]["evaluations"]):
                continue
            start = time.perf_counter()
            samples = model.iter_samples(num, generator=torch.Generator().manual_seed(0), sampler=sampler)
            features = extract(samples, extractor, num, label=f"{title}, {sampler.evaluations}")
            value = scores(features, truth, seed=0)["fid"][0]
            seconds = time.perf_counter() - start
            rows.append({"sampler": title, "evaluations": sampler.evaluations, "fid": value, "seconds": seconds})
            print(f"{title}, {sampler.evaluations} evaluations: FID {value:.4g} in {seconds:.0f} s", flush=True)
    return rows


def table(record: dict[str, Any]) -> Table:
    num, name = record["num"], record["name"]
    title = f"Samplers of {name}: FID of {num} samples by evaluations of the network for each"
    return Table("sampler-curve", title, {"sampler": "", "evaluations": "d", "fid": ".4g"}, record["rows"])


def draw_figure(record: dict[str, Any], path: Path) -> None:
    """Draws FID against evaluations, a line for each sampler, both axes logarithmic."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for title, colour in zip(SAMPLERS, COLOURS, strict=True):
        rows = [row for row in record["rows"] if row["sampler"] == title]
        axes.plot([row["evaluations"] for row in rows], [row["fid"] for row in rows], "o-", color=colour, label=title)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("evaluations of the network for each sample")
    axes.set_ylabel(f"FID of {record['num']} samples")
    axes.set_title(record["name"], fontsize="small", loc="left")
    axes.grid(color="#d8d8d8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    Image.open(content).convert("RGB").quantize(64).save(path, "PNG", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="conditional-edm-mnist", help="checkpoint (default %(default)s)")
    parser.add_argument("--num", type=int, default=2000, help="number of samples (default %(default)s)")
    parser.add_argument("--most", type=int, default=1000, help="most evaluations to try (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results", help="folder of the results (default %(default)s)"
    )
    parser.add_argument("--redraw", action="store_true", help="draw the figure of the recorded numbers")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    place = arguments.out / "sampler_curve.json"
    if not arguments.redraw:
        settings = {"name": arguments.name, "num": arguments.num, "most": arguments.most}
        command = " ".join(f"--{key} {value}" for key, value in settings.items())
        found = {**settings, "seed": 0, "command": f"python benchmarks/sampler_curve.py {command}"}
        place.write_text(json.dumps({**found, "rows": study(*settings.values())}, indent=1) + "\n")
    record = json.loads(place.read_text())
    text = str(table(record))
    place.with_suffix(".txt").write_text(text + "\n")
    draw_figure(record, place.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
