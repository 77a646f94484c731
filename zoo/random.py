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

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # int64 arithmetic wraps modulo 2^64, as the hash wants it
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical (zero-filling) right shift of int64."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(state: Tensor, value: Tensor | int) -> Tensor:
    """Absorb `value` into 64-bit hash states, broadcasting."""
    z = state + value + _GOLDEN
    z = z.bitwise_xor_(_shift(z, 30)).mul_(_FIRST)
    z = z.bitwise_xor_(_shift(z, 27)).mul_(_SECOND)
    return z.bitwise_xor_(_shift(z, 31))


class Streams:
    """One stream of random numbers per example, keyed by (seed, step, example index).

    Each call of `rand` or `randn` returns fresh numbers; the n-th call on equal keys returns equal numbers.
    """

    def __init__(self, seed: int, index: Sequence[int] | Tensor, step: int = 0) -> None:
        keys = torch.as_tensor(index, dtype=torch.int64)
        wrapped = (seed + 2**63) % 2**64 - 2**63
        self._state = _mix(_mix(torch.full_like(keys, wrapped), step), keys)  # [B]
        self._calls = 0

    def __len__(self) -> int:
        return len(self._state)

    def _uniform(self, size: tuple[int, ...], device: torch.device | str) -> Tensor:
        if size[0] != len(self):
            raise ValueError(f"asked for {size[0]} rows of noise from {len(self)} streams; the first size must match")
        state = _mix(self._state.to(device), self._calls)[:, None]  # [B, 1]
        self._calls += 1
        columns = math.prod(size[1:])
        bits = _shift(_mix(state, torch.arange(columns, device=device)), 40)  # 24 bits: what float32 holds
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
        # by the inverse of the distribution function, at the middle of each cell; the last would round to 1, so to infinity
        return torch.special.ndtri((source._uniform(size, device) + 2.0**-25).clamp_(max=1 - 2.0**-24))
    where = source.device if source is not None else "cpu"
    return torch.randn(size, generator=source, device=where).to(device)


def seed_from(generator: torch.Generator | None) -> int:
    """A fresh seed drawn from `generator` (or from torch's global generator), so that a generator advances when used."""
    where = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**62, (), generator=generator, device=where))
