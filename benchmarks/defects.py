"""How well images that are unlike good ones are found: AUROC by method, and false alarms of `score --new`.

The parts are drawn here: grey discs with a hole, a brushed texture, and a light from one side that differs a little.
Scratches are lines one pixel wide. Digits and clothes come from MNIST and Fashion-MNIST.

    python benchmarks/defects.py --out benchmarks/results/defects.json    # some minutes of one core
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo import Zoo
from zoo.capabilities import EvidenceLowerBound
from zoo.data import MNIST, FashionMNIST
from zoo.data.base import Split
from zoo.metrics.novelty import _of_images, _of_patches, novelty
from zoo.metrics.outliers import auroc

SIZE = 28
OVERSAMPLING = 4
STEPS = 300

Method = Callable[[Tensor, Tensor], Tensor]
"""Good and new images, [M, 1, H, W] and [N, 1, H, W] in [0, 1] -> scores [N], higher for odd images."""


# -------------------------------------------------------------------------------------------------------------- images


def parts(num: int, seed: int, *, scratched: bool = False, size: int = SIZE) -> Tensor:
    """Draws parts, with a scratch or without: [num, 1, size, size]."""
    random = np.random.default_rng(seed)
    images = np.stack([_part(random, scratched, size) for _ in range(num)])
    return torch.from_numpy(images)[:, None].float() / 255


def _part(random: np.random.Generator, scratched: bool, size: int) -> np.ndarray:
    n = size * OVERSAMPLING
    image = Image.new("L", (n, n), 40)
    draw = ImageDraw.Draw(image)
    radius, (x, y) = n * (0.36 + 0.01 * random.normal()), n / 2 + n * 0.015 * random.normal(size=2)
    metal = int(np.clip(150 + 8 * random.normal(), 0, 255))
    for r, shade in ((radius, metal), (0.3 * radius, 50)):
        draw.ellipse([x - r, y - r, x + r, y + r], fill=shade)
    pixels = np.asarray(image, np.float64)
    light = np.linspace(-12, 12, n)[:, None] * math.cos(0.3 * random.normal())
    pixels = pixels + (pixels > 100) * (_brushed(random, n) + light)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if scratched:
        angle, length, turn = random.uniform(0, math.pi), random.uniform(0.35, 0.7), random.uniform(0, 2 * math.pi)
        distance = radius * random.uniform(0.45, 0.75)
        x, y = x + distance * math.cos(turn), y + distance * math.sin(turn)
        dx, dy = (radius * length / 2 * part for part in (math.cos(angle), math.sin(angle)))
        shade = int(random.choice([85, 215]))
        ImageDraw.Draw(image).line([x - dx, y - dy, x + dx, y + dy], fill=shade, width=OVERSAMPLING)
    small = np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float64)
    return np.clip(small + 2 * random.normal(size=(size, size)), 0, 255).round().astype(np.uint8)


def _brushed(random: np.random.Generator, n: int) -> np.ndarray:
    """Noise that is smooth from left to right, with a standard deviation of 10 grey levels."""
    kernel = np.exp(-0.5 * (np.arange(-24, 25) / 8) ** 2)
    noise = np.apply_along_axis(np.convolve, 1, random.normal(size=(n, n)), kernel, mode="same")
    return 10 * noise / noise.std()


def blanks(num: int, seed: int, size: int = SIZE) -> Tensor:
    """Images of one grey, every second one with the noise of the camera."""
    random = np.random.default_rng(seed)
    greys = np.resize([40, 150, 0, 255, 100], num)[:, None, None]
    noise = 2 * random.normal(size=(num, size, size)) * (np.arange(num)[:, None, None] % 2)
    return torch.from_numpy(np.clip(greys + noise, 0, 255).round())[:, None].float() / 255


def some(split: Split, chosen: Tensor, num: int, seed: int) -> Tensor:
    """Some of the chosen images (bool [N]) of a split."""
    index = chosen.nonzero()[:, 0]
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))
    return split.x[index[order[:num]]].float() / 255


Task = tuple[Tensor, Tensor, Tensor]
"""Good images, held-out good ones, and odd ones."""


def tasks(num: int = 200) -> dict[str, Task]:
    """All tasks by name."""
    digits, clothes = MNIST(), FashionMNIST()
    train, test = digits.split("train"), digits.split("test")
    assert train.labels is not None and test.labels is not None
    made, held_out = parts(60, 1), parts(num, 2)
    all_clothes = torch.ones(10_000, dtype=torch.bool)
    fives, up_to_8 = (train.labels == 5, test.labels == 5), (train.labels < 9, test.labels < 9)
    return {
        "parts, a scratch": (made, held_out, parts(num, 3, scratched=True)),
        "parts, blank images": (made, held_out, blanks(20, 4)),
        "digit 5, other digits": (
            some(train, fives[0], 200, 0),
            some(test, fives[1], num, 1),
            some(test, ~fives[1], num, 2),
        ),
        "digits 0 to 8, digit 9": (
            some(train, up_to_8[0], 300, 0),
            some(test, up_to_8[1], num, 1),
            some(test, ~up_to_8[1], num, 2),
        ),
        "clothes, digits": (
            some(clothes.split("train"), torch.ones(len(clothes.split("train")), dtype=torch.bool), 300, 0),
            some(clothes.split("test"), all_clothes, num, 1),
            some(test, all_clothes, num, 2),
        ),
    }


# ------------------------------------------------------------------------------------------------------------- methods


def by_score(good: Tensor, new: Tensor) -> Tensor:
    return novelty(good, new).scores


def by_patches(good: Tensor, new: Tensor) -> Tensor:
    return _of_patches(good.double(), new.double())


def by_likelihood(good: Tensor, new: Tensor) -> Tensor:
    return _of_images(good.double().flatten(1), new.double().flatten(1)) / 2  # -log p(x) but for a constant


def by_complexity(good: Tensor, new: Tensor) -> Tensor:
    """-log p(x) minus the nats of a PNG file (Serra et al. 2020, https://arxiv.org/abs/1909.11480)."""
    return by_likelihood(good, new) - torch.tensor([_png_nats(image) for image in new]).double()


def _png_nats(image: Tensor) -> float:
    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().byte().numpy()).save(file, "PNG", optimize=True)
    return 8 * len(file.getvalue()) * math.log(2)


@cache
def tuned_on(good: Tensor) -> EvidenceLowerBound:
    """vae-mnist after some more steps, on good images."""
    model = Zoo.load("vae-mnist", EvidenceLowerBound).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for number in range(STEPS):
        rows = torch.randint(len(good), (32,), generator=generator)
        optimizer.zero_grad()
        model.training_step(good[rows], number)["loss"].backward()
        optimizer.step()
    return model.eval()


def by_vae(good: Tensor, new: Tensor, *, ratio: bool) -> Tensor:
    """-elbo of vae-mnist, fine-tuned on the good images; as a ratio, plus the elbo of vae-mnist as it was.

    Ren et al. 2019, https://arxiv.org/abs/1906.02845, take such a ratio.
    """
    before, tuned = Zoo.load("vae-mnist", EvidenceLowerBound), tuned_on(good)

    def elbo(model: EvidenceLowerBound) -> Tensor:
        with torch.no_grad():
            noise = torch.Generator().manual_seed(1)
            return torch.stack([model.elbo(new, generator=noise) for _ in range(10)]).mean(0)

    return elbo(before) - elbo(tuned) if ratio else -elbo(tuned)


METHODS: dict[str, Method] = {
    "`score --new`": by_score,
    "patches alone": by_patches,
    "likelihood, Gaussian": by_likelihood,
    "likelihood against PNG": by_complexity,
    "bound, fine-tuned VAE": partial(by_vae, ratio=False),
    "bound against that before": partial(by_vae, ratio=True),
}


# --------------------------------------------------------------------------------------------------------------- report


def measure(name: str, task: Task, methods: dict[str, Method]) -> list[dict[str, object]]:
    """One row for each method: the AUROC of a task and its standard error."""
    good, held_out, odd = task
    rows: list[dict[str, object]] = []
    for title, method in methods.items():
        scores = method(good, torch.cat([held_out, odd]))
        value, error = auroc(-scores[: len(held_out)], -scores[len(held_out) :])
        rows.append({"task": name, "method": title, "auroc": round(value, 4), "error": round(error, 4)})
    return rows


def alarms(task: Task) -> tuple[float, float]:
    """The shares of held-out good images and of odd ones above the threshold for 1 % of false alarms."""
    good, held_out, odd = task
    found = novelty(good, torch.cat([held_out, odd]))
    above = (found.scores > found.threshold).double()
    return above[: len(held_out)].mean().item(), above[len(held_out) :].mean().item()


def table(rows: list[dict[str, object]]) -> str:
    """The AUROCs as Markdown: a row for each task, a column for each method."""
    names, methods = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("task", "method"))
    values = {(row["task"], row["method"]): row["auroc"] for row in rows}
    lines = [f"| good images, odd ones | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    lines += [f"| {name} | {' | '.join(f'{values[name, method]:.3f}' for method in methods)} |" for name in names]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the numbers")
    options = parser.parse_args(words)
    rows, rates = [], []
    for name, task in tasks().items():
        rows += measure(name, task, METHODS)
        false, found = alarms(task)
        rates.append({"task": name, "false_alarms": round(false, 4), "found": round(found, 4)})
        print(f"{name}: false alarms {false:.3f}, found {found:.3f}", flush=True)
    options.out.write_text(json.dumps({"rows": rows, "rates": rates}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
