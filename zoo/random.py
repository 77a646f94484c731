"""Randomness as an argument: draws from a `torch.Generator`, or from one independent stream per example.

`Streams` keys every draw by (seed, step, example), never by global state, so that image 4711 of a sample does not
depend on the batch size, and a training step's noise depends neither on the number of processes nor on whether the
run was interrupted. It is a counter-based generator (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405)
with the finaliser of splitmix64 (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195) as its hash: integer
arithmetic alone, so that every device draws the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 that stands for `value` modulo 2^64; tensor arithmetic wraps as the hash wants it."""
    return (value + 2**63) % 2**64 - 2**63


def _mix(state: int, value: int) -> int:
    """Absorb `value` into a 64-bit hash state."""
    z = (state + value + _GOLDEN) % 2**64
    z = (z ^ (z >> 30)) * _FIRST % 2**64
    z = (z ^ (z >> 27)) * _SECOND % 2**64
    return z ^ (z >> 31)


def key_of(seed: int, step: int) -> int:
    """What `Streams` add to the index of an example before they hash it."""
    # a sum of seed and step alone would give seed 1 the noise of seed 0, one step later
    return _signed(_mix(seed * _FIRST, step))


def mix_(z: Tensor) -> Tensor:
    """`_mix` in place, for int64 tensors of state + value."""
    z.add_(_signed(_GOLDEN))
    shifted = torch.empty_like(z)  # one buffer for all steps: fresh memory costs more than arithmetic
    for bits, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        torch.bitwise_right_shift(z, bits, out=shifted)
        z.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - bits) - 1))  # the shift copied the sign
        if factor != 1:
            z.mul_(_signed(factor))
    return z


class Streams:
    """One stream of random numbers per example, keyed by (seed, step, example index).

    Each call of `rand` or `randn` returns fresh numbers; the n-th call on equal keys returns equal numbers.
    """

    def __init__(self, seed: int, index: Sequence[int] | Tensor, step: int = 0) -> None:
        self._state = mix_(torch.as_tensor(index, dtype=torch.int64) + key_of(seed, step))  # [B]
        self._calls = 0

    def __len__(self) -> int:
        return len(self._state)

    def next(self) -> Tensor:
        """The state from which the next call draws, [B], int64."""
        state = mix_(self._state + self._calls)
        self._calls += 1
        return state

    def _uniform(self, size: tuple[int, ...], device: torch.device | str) -> Tensor:
        if size[0] != len(self):
            raise ValueError(f"asked for {size[0]} rows of noise from {len(self)} streams; the first size must match")
        state = self.next().to(device)[:, None]  # [B, 1]
        z = mix_(state + torch.arange(math.prod(size[1:]), device=device))
        bits = z.bitwise_right_shift_(40).bitwise_and_(2**24 - 1)  # 24 bits: what float32 holds
        return bits.to(torch.float32).mul_(2.0**-24).view(size)


Source: TypeAlias = torch.Generator | Streams | None
"""Where noise comes from: a generator, one stream per example, or None for torch's global generator."""


def rand(size: tuple[int, ...], source: Source = None, device: torch.device | str = "cpu") -> Tensor:
    """Uniform draws on [0, 1) of shape `size`; a CPU source gives the same draws on every device."""
    if isinstance(source, Streams):
        return source._uniform(size, device)
    where = source.device if source is not None else "cpu"
    return torch.rand(size, generator=source, device=where).to(device)


def randn(size: tuple[int, ...], source: Source = None, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal draws of shape `size`; a CPU source gives the same draws on every device."""
    if isinstance(source, Streams):
        # by the inverse of the distribution function, at the middle of each of the 2^24 cells: exact and never infinite
        return source._uniform(size, device).mul_(2).sub_(1 - 2.0**-24).erfinv_().mul_(math.sqrt(2))
    where = source.device if source is not None else "cpu"
    return torch.randn(size, generator=source, device=where).to(device)


def seed_from(generator: torch.Generator | None) -> int:
    """A fresh seed drawn from `generator` (or from the global one), so that a generator advances when used."""
    where = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**62, (), generator=generator, device=where))
