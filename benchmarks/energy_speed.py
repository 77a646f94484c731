"""Speed of an RBM: sweeps of its chain against their two bare matrix products, training against scikit-learn.

Both sides of the training make one update of a persistent chain and one step for each batch of 100 binary images, in
single precision; ours by the common Trainer with its logs and averaged weights, theirs by `BernoulliRBM.partial_fit`. A
step of either takes five or six products of the size of the weights, which bounds the ratio. Sides take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from report import in_turn, options, report
from sklearn.neural_network import BernoulliRBM
from training_speed import with_trainer

from zoo.boltzmann import RBM
from zoo.data import Arrays
from zoo.optim import Optimization
from zoo.random import Streams

BATCH, PIXELS, HIDDEN = 100, 784, 500
SGD = Optimization(optimizer="sgd", lr=0.1, beta1=0.0, weight_decay=1e-3)  # of the recipe of rbm-binarized-mnist


def clock(run: Callable[[], object], number: int) -> float:
    """Seconds that one of a number of calls takes."""
    start = time.perf_counter()
    for _ in range(number):
        run()
    return (time.perf_counter() - start) / number


@torch.no_grad()
def compare_sweeps(model: RBM, num_chains: int, number: int, repeats: int, as_json: bool) -> None:
    chain, streams = model.chain(), Streams(0, range(num_chains))
    x, h, weight = chain.start(streams), torch.rand(num_chains, HIDDEN).round(), model.weight.detach()
    state = x

    def sweep() -> None:
        nonlocal state
        state = chain.step(state, streams)

    found = in_turn(
        repeats, sweep=lambda: clock(sweep, number), products=lambda: clock(lambda: (x @ weight.T, h @ weight), number)
    )
    ratio = found["products"] / found["sweep"]
    report(
        f"A sweep of {num_chains} chains takes {1e3 * found['sweep']:.2f} ms; its matrix products alone take "
        f"{ratio:.2f} of that (required: at least 0.6).",
        as_json,
        benchmark="sweep_speed",
        chains=num_chains,
        ratio=ratio,
        seconds=found,
        threads=torch.get_num_threads(),
    )


def compare_training(num_steps: int, repeats: int, as_json: bool) -> None:
    images = torch.rand(20_000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.13
    data, batch = Arrays.from_array(images, batch_size=BATCH), images[:BATCH].flatten(1).numpy().astype(np.float32)
    theirs = BernoulliRBM(n_components=HIDDEN, random_state=0)
    theirs.partial_fit(batch)
    found = in_turn(
        repeats,
        ours=lambda: 1 / with_trainer(data, num_steps, lambda: RBM((1, 28, 28), HIDDEN), SGD),
        theirs=lambda: clock(lambda: theirs.partial_fit(batch), num_steps),
    )
    ratio = found["theirs"] / found["ours"]
    report(
        f"A step of training takes {1e3 * found['ours']:.2f} ms, {1e3 * found['theirs']:.2f} ms by scikit-learn: "
        f"{ratio:.1f} times as fast (required: 5 times).",
        as_json,
        benchmark="rbm_training_speed",
        ratio=ratio,
        seconds=found,
        threads=torch.get_num_threads(),
    )


def main() -> None:
    parser = options(__doc__, repeats=7)
    parser.add_argument("--steps", type=int, default=100, help="sweeps, or steps, of each turn (default %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for num_chains in (100, 500):
        compare_sweeps(RBM((1, 28, 28), HIDDEN), num_chains, arguments.steps, arguments.repeats, arguments.json)
    compare_training(arguments.steps, arguments.repeats, arguments.json)


if __name__ == "__main__":
    main()
