"""log Z of an energy: exact if it can be summed, else bracketed by annealed importance sampling in both directions.

It is measured once for the weights of a model, and cached as reference statistics are; see `zoo.cache`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch

from zoo.cache import Tensors, remembered
from zoo.capabilities import Unnormalized
from zoo.config import brief
from zoo.distributed import gather, share
from zoo.errors import ConfigError
from zoo.mcmc import LogZ, annealed_importance_sampling, resampled, reverse_annealed_importance_sampling, run
from zoo.measurement import Kind
from zoo.random import Streams


@dataclass(frozen=True)
class Normalizer:
    """log Z of a model, and how it was found.

    Attributes:
        log_z: log Z in nats; log p(x) = -energy(x) - log_z.
        error: One standard error of it in nats; 0 if it is exact.
        kind: `exact` or `estimate`.
        settings: JSON-plain. Of an estimate, the numbers of runs, temperatures and sweeps, the effective number of runs
            forward and in reverse, and `log_z` and `log_z_reverse` with their errors. The former is too low on average
            and flatters the model, the latter is too high if the chains from which it starts have mixed.
    """

    log_z: float
    error: float
    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)


def normalizer_of(
    model: Unnormalized, *, runs: int = 500, temperatures: int = 10_000, sweeps: int = 1000, seed: int = 0
) -> Normalizer:
    """log Z of a model. In a process group, every process must call it: they divide the runs.

    Args:
        model: An energy in evaluation mode.
        runs: Number of runs in each direction.
        temperatures: Number of inverse temperatures of a run.
        sweeps: Number of sweeps at the model's own temperature between the end of the runs forward, drawn by their
            weights, and the start of those in reverse.
        seed: Seed for all random draws.

    Raises:
        ConfigError: A number is less than 1.
    """
    with torch.no_grad():
        exact = model.exact_log_z()
    if exact is not None:
        return Normalizer(exact.item(), 0.0, "exact", {"log_z": exact.item()})
    effort = {"runs": runs, "temperatures": temperatures, "sweeps": sweeps}
    for name, number in effort.items():
        if number < 1:
            raise ConfigError(f"{name}: expected at least 1, found {brief(number)}")
    key = {"log_z": type(model).__name__, "weights": _digest(model), "seed": seed, **effort}
    found = remembered(f"log-z-{type(model).__name__}", key, lambda: _measure(model, runs, temperatures, sweeps, seed))
    base = found["base"].item()
    forward, reverse = LogZ(base, found["forward"]), LogZ(base, found["reverse"], is_reverse=True)
    settings = {
        **effort,
        "log_z": forward.estimate,
        "log_z_error": forward.error,
        "effective_runs": forward.effective_runs,
        "log_z_reverse": reverse.estimate,
        "log_z_reverse_error": reverse.error,
        "effective_runs_reverse": reverse.effective_runs,
    }
    return Normalizer(forward.estimate, forward.error, "estimate", settings)


@torch.no_grad()
def _measure(model: Unnormalized, runs: int, temperatures: int, sweeps: int, seed: int) -> Tensors:
    """Log-weights of the runs in both directions, [runs] each, and log Z of the base distribution."""
    chain, mine = model.chain(), share(runs)
    part = annealed_importance_sampling(chain, runs, temperatures, seed=seed, index=mine)
    assert part.states is not None
    forward = LogZ(part.base, gather(part.log_weights, runs), states=gather(part.states, runs))
    states = resampled(forward, seed)
    states[mine] = run(chain, states[mine], Streams(seed, mine, step=2), sweeps)
    back = reverse_annealed_importance_sampling(chain, states, temperatures, seed=seed, index=mine)
    base = torch.tensor(part.base, dtype=torch.float64)
    return {"forward": forward.log_weights, "reverse": gather(back.log_weights, runs), "base": base}


def _digest(model: Unnormalized) -> str:
    """The sha256 of the weights and of the arguments of a model."""
    digest = hashlib.sha256(repr(sorted(dict(model.hparams).items())).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
