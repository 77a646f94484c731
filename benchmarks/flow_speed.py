"""Speed of flows: training against zuko, sampling against evaluating a density, and MAF's sampling by its fast path.

    python benchmarks/flow_speed.py

Training: an optimiser step with flows of equal layers on 64 values, and for MAF on the 784 values of a digit. Flows of
the zoo do without actnorm here, as zuko's do. Sampling: for couplings, the time of a draw divided by that of its
density. MAF draws value by value and computes each hidden unit once; the alternative is a pass through the whole
network for each value. Times are CPU time of one thread, and the alternatives take turns. Prints one JSON line and one
sentence for each.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import zuko
from torch import Tensor

from zoo.flows import MAF, Glow, RealNVP, SplineFlow
from zoo.flows.flow import Flow
from zoo.flows.layers import ActNorm, Bijector, Chain
from zoo.flows.maf import MaskedAutoregressive

BATCH, SIZE, HIDDEN = 128, 64, 128


def medians(*alternatives: Callable[[], object], num: int = 15) -> list[float]:
    """The median CPU time of each, in seconds; they take turns."""
    times: list[list[float]] = [[] for _ in alternatives]
    for number in range(num + 3):
        for record, run in zip(times, alternatives, strict=True):
            start = time.process_time()
            run()
            if number >= 3:
                record.append(time.process_time() - start)
    return [statistics.median(record) for record in times]


def step(module: torch.nn.Module, log_prob: Callable[[], Tensor]) -> Callable[[], None]:
    """An optimiser step that raises the mean of `log_prob`."""
    optimizer = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        (-log_prob().mean()).backward()
        optimizer.step()

    return run


def _zuko(flow: torch.nn.Module, x: Tensor) -> Tensor:
    return flow().log_prob(x)


def _without_actnorm(flow: Flow) -> Flow:
    assert isinstance(flow.bijector, Chain)
    layers = (layer for layer in flow.bijector.layers if isinstance(layer, Bijector))
    flow.bijector = Chain(*(layer for layer in layers if not isinstance(layer, ActNorm)))
    return flow.train()


def training() -> dict[str, float]:
    """Steps per second of the zoo, divided by those of zuko, by flow."""
    hidden = [HIDDEN, HIDDEN]
    pairs: dict[str, tuple[Flow, torch.nn.Module]] = {
        "RealNVP": (RealNVP([SIZE], 8, HIDDEN), zuko.flows.RealNVP(SIZE, transforms=8, hidden_features=hidden)),
        "MAF": (
            MAF([SIZE], 5, HIDDEN, levels=None, logit=None),
            zuko.flows.MAF(SIZE, transforms=5, hidden_features=hidden),
        ),
        "MAF of digits": (
            MAF([784], 5, 288, levels=None, logit=None),
            zuko.flows.MAF(784, transforms=5, hidden_features=[288, 288]),
        ),
        "splines": (
            SplineFlow([SIZE], 6, HIDDEN, 8),
            zuko.flows.NSF(SIZE, bins=8, transforms=6, hidden_features=hidden, passes=2),
        ),
    }
    ratios = {}
    for name, (ours, theirs) in pairs.items():
        x = torch.randn(BATCH, *_without_actnorm(ours).event_shape)
        one, other = medians(step(ours, partial(ours.log_prob, x)), step(theirs, partial(_zuko, theirs, x)))
        ratios[name] = round(other / one, 2)
    return ratios


@torch.no_grad()
def sampling() -> dict[str, float]:
    """The time of a draw divided by that of its density, by flow of couplings."""
    flows: dict[str, Flow] = {
        "RealNVP": RealNVP([SIZE], 8, HIDDEN),
        "splines": SplineFlow([SIZE], 6, HIDDEN, 8),
        "RealNVP of images": RealNVP([1, 28, 28], 2, 32, levels=256, logit=1e-6),
        "Glow": Glow(num_steps=[4, 4], hidden=[32, 32]),
    }
    ratios = {}
    for name, model in flows.items():
        z = torch.randn(BATCH, *model.eval().latent_shape)
        x = model.from_latent(z)
        draw, density = medians(partial(model.from_latent, z), partial(model.log_prob, x))
        ratios[name] = round(draw / density, 2)
    return ratios


@torch.no_grad()
def autoregressive() -> dict[str, float]:
    """How many times faster MAF's fast path is, on 250 examples of 784 values, and how far its results are off."""
    layer, z = MaskedAutoregressive(784, 288, 2).eval(), torch.randn(250, 784)
    for parameter in layer.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))

    def passes() -> Tensor:
        x = torch.zeros_like(z)
        for d in range(z.shape[1]):
            h = x
            for part in layer.hidden:
                h = part(h).relu()
            parameters = layer.last(h).unflatten(1, (2, -1))
            x[:, d] = layer.transform.inverse(z, parameters)[:, d]
        return x

    start = time.process_time()
    slow = passes()
    middle = time.process_time()
    fast = layer.inverse(z)
    end = time.process_time()
    return {"times faster": round((middle - start) / (end - middle), 1), "difference": float((fast - slow).abs().max())}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {"training": training(), "sampling": sampling(), "autoregressive": autoregressive()}
    print(json.dumps(found))
    print(f"Training steps per second, divided by zuko's: {found['training']}.")
    print(f"Time of a draw, divided by that of its density: {found['sampling']}.")
    print(f"MAF's fast path is {found['autoregressive']['times faster']} times faster than a pass for each value.")


if __name__ == "__main__":
    main()
