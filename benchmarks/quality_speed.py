"""Time of an FID of 10,000 images on the features of lenet-mnist, without sampling and with a cached reference.

The time includes loading the classifier and the data, verifying the cached statistics, extracting the features of the
samples, and computing the distance. CPU seconds are printed too: other work on the machine does not change them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from report import options, report

from zoo import Zoo
from zoo.data import MNIST
from zoo.metrics import evaluate_quality, load_extractor
from zoo.metrics.distances import fid
from zoo.metrics.quality import extract, reference_of

REQUIRED = 20


def main() -> None:
    import torch

    parser = options(__doc__, repeats=3)
    parser.add_argument("--num", type=int, default=10_000, help="number of images (default %(default)s)")
    arguments = parser.parse_args()
    num = arguments.num
    model = Zoo.load("gan-mnist")
    samples = model.sample(num, generator=torch.Generator().manual_seed(0))

    def distance() -> None:
        extractor = load_extractor("lenet-mnist")
        truth = reference_of(MNIST(), "test", extractor, num, seed=0, progress=False)
        features = extract([samples], extractor, num, label="samples", progress=False)
        fid(features.values, truth.features.values, truth.moments)

    def everything() -> None:
        evaluate_quality([samples], MNIST(), load_extractor("lenet-mnist"), num=num, progress=False)

    def clock(act: Callable[[], None]) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        act()
        return time.perf_counter() - wall, time.process_time() - cpu

    first = clock(everything)  # fills the cache
    rounds = [(clock(distance), clock(everything)) for _ in range(arguments.repeats)]
    (wall, cpu), (wall_all, cpu_all) = (min(side) for side in zip(*rounds, strict=True))
    report(
        f"FID of {num} images in {wall:.1f} s ({cpu:.1f} CPU s) on {torch.get_num_threads()} threads, with KID, "
        f"inception score, precision, recall and baselines in {wall_all:.1f} s ({cpu_all:.1f} CPU s); {first[0]:.0f} s "
        f"the first time, unless the statistics are there already (required of the FID: {REQUIRED} s).",
        arguments.json,
        benchmark="quality_speed",
        seconds=wall,
        cpu_seconds=cpu,
        seconds_all=wall_all,
        cpu_seconds_all=cpu_all,
        first=first[0],
        required=REQUIRED,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
