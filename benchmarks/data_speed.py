"""Speed of the data layer: shuffled batches of MNIST as floats, compared with torchvision, ToTensor and two workers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice

from report import in_turn, options, report
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from zoo.data import MNIST
from zoo.data.files import data_root

REQUIRED = 25
BATCH_SIZE = 128


def images_per_second(batches: Iterable[Tensor], num: int) -> float:
    """Speed over `num` batches. The first batch is not counted, since it includes starting the workers."""
    iterator = iter(batches)
    next(iterator)
    start = time.perf_counter()
    count = sum(len(x) for x in islice(iterator, num))
    return count / (time.perf_counter() - start)


def main() -> None:
    arguments = options(__doc__, repeats=5).parse_args()
    data = MNIST(batch_size=BATCH_SIZE)
    data.prepare_data()
    theirs = DataLoader(
        datasets.MNIST(str(data_root()), train=True, transform=transforms.ToTensor()),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=2,
        drop_last=True,
    )
    num = len(data.train_dataloader()) - 1
    found = in_turn(
        arguments.repeats,
        zoo=lambda: images_per_second((data.on_after_batch_transfer(b, 0).x for b in data.train_dataloader()), num),
        torchvision=lambda: images_per_second((x for x, _ in theirs), num),
    )
    ratio = found["zoo"] / found["torchvision"]
    report(
        f"The data layer yields {found['zoo']:,.0f} images a second, {ratio:.0f} times the "
        f"{found['torchvision']:,.0f} of torchvision's MNIST with ToTensor and two workers "
        f"(required: at least {REQUIRED}).",
        arguments.json,
        benchmark="data_speed",
        ratio=ratio,
        required=REQUIRED,
        images_per_second=found,
    )


if __name__ == "__main__":
    main()
