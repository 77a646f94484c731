"""Random draws from a `torch.Generator`, or from one independent stream per example.

With `Streams`, a draw depends on (seed, step, example) and not on a global state. Image 4711 of a sample therefore does
not depend on the batch size, and the noise of a training step does not depend on the number of processes or on
interruptions of the run. `Streams` is a counter-based generator (Salmon et al. 2011,
https://doi.org/10.1145/2063384.2063405) whose hash is the finaliser of splitmix64 (Steele et al. 2014,
https://doi.org/10.1145/2660193.2660195). The hash uses only integer arithmetic, so that all devices draw the same
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

_BLOCK = 2**16  # draws hashed at once on a CPU: what its cache holds
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 that equals `value` modulo 2^64. Arithmetic on int64 tensors wraps around, as the hash requires."""
    return (value + 2**63) % 2**64 - 2**63


def _mix(state: int, value: int) -> int:
    """Absorbs `value` into a 64-bit hash state."""
    z = (state + value + _GOLDEN) % 2**64
    z = (z ^ (z >> 30)) * _FIRST % 2**64
    z = (z ^ (z >> 27)) * _SECOND % 2**64
    return z ^ (z >> 31)


def key_of(seed: int, step: int) -> int:
    """The number that `Streams` adds to the index of an example before hashing it."""
    # with seed + step alone, seed 1 would have the noise of seed 0 one step later
    return _signed(_mix(seed * _FIRST, step))


def mix_(z: Tensor) -> Tensor:
    """Applies `_mix` in place to an int64 tensor of state + value."""
    shifted = torch.empty_like(z)
    return _xor_shift_(_multiplied_(z, shifted), 31, shifted)


def _top_bits_(z: Tensor, buffer: Tensor) -> Tensor:
    """The upper 24 bits of `mix_(z)`, as many as float32 has; its last step does not reach them."""
    return _multiplied_(z, buffer).bitwise_right_shift_(40).bitwise_and_(2**24 - 1)


def _multiplied_(z: Tensor, buffer: Tensor) -> Tensor:
    """`mix_` but for its last step. Both tensors are overwritten: one buffer is faster than many allocations."""
    z.add_(_signed(_GOLDEN))
    for bits, factor in ((30, _FIRST), (27, _SECOND)):
        _xor_shift_(z, bits, buffer).mul_(_signed(factor))
    return z


def _xor_shift_(z: Tensor, bits: int, buffer: Tensor) -> Tensor:
    torch.bitwise_right_shift(z, bits, out=buffer)
    return z.bitwise_xor_(buffer.bitwise_and_(2 ** (64 - bits) - 1))  # clear the copies of the sign bit


class Streams:
    """One stream of random numbers per example, with the key (seed, step, example index).

    Each call of `rand` or `randn` returns new numbers. The n-th calls on streams with equal keys return equal numbers.

    Args:
        seed: Seed for all streams.
        index: Index of each example, [B].
        step: Training step, or another number that separates draws with the same seed.
    """

    def __init__(self, seed: int, index: Sequence[int] | Tensor, step: int = 0) -> None:
        self._state = mix_(torch.as_tensor(index, dtype=torch.int64) + key_of(seed, step))  # [B]
        self._calls = 0

    def __len__(self) -> int:
        return len(self._state)

    def next(self) -> Tensor:
        """Advances the streams and returns the state of the next draw, [B], int64."""
        state = mix_(self._state + self._calls)
        self._calls += 1
        return state

    def _uniform(self, size: tuple[int, ...], device: torch.device | str) -> Tensor:
        if size[0] != len(self):
            raise ValueError(f"expected a first dimension of {len(self)}, the number of streams, found {size[0]}")
        state = self.next().to(device)[:, None]  # [B, 1]
        places = torch.arange(math.prod(size[1:]), device=device)
        found = torch.empty(len(state), len(places), dtype=torch.float32, device=device)
        rows = max(1, _BLOCK // max(1, len(places))) if found.device.type == "cpu" else max(1, len(state))
        z = torch.empty(min(rows, len(state)), len(places), dtype=torch.int64, device=device)
        shifted = torch.empty_like(z)
        for part, of_part in zip(state.split(rows), found.split(rows), strict=True):
            used = slice(len(part))
            torch.add(part, places, out=z[used])
            bits = _top_bits_(z[used], shifted[used])
            of_part.copy_(bits).mul_(2.0**-24)
        return found.view(size)


Source: TypeAlias = torch.Generator | Streams | None
"""Source of random numbers: a generator, one stream per example, or None for torch's global generator."""


def rand(size: tuple[int, ...], source: Source = None, device: torch.device | str = "cpu") -> Tensor:
    """Uniform draws from [0, 1). A source on the CPU gives the same draws on all devices.

    Args:
        size: Shape of the draws; with `Streams`, the first dimension is the number of streams.
        source: Source of random numbers.
        device: Device of the draws.
    """
    if isinstance(source, Streams):
        return source._uniform(size, device)
    where = source.device if source is not None else "cpu"
    return torch.rand(size, generator=source, device=where).to(device)


def randn(size: tuple[int, ...], source: Source = None, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal draws. A source on the CPU gives the same draws on all devices.

    Args:
        size: Shape of the draws; with `Streams`, the first dimension is the number of streams.
        source: Source of random numbers.
        device: Device of the draws.
    """
    if isinstance(source, Streams):
        # inverse distribution function at the centre of each of the 2^24 cells, which is never infinite
        return source._uniform(size, device).mul_(2).sub_(1 - 2.0**-24).erfinv_().mul_(math.sqrt(2))
    where = source.device if source is not None else "cpu"
    return torch.randn(size, generator=source, device=where).to(device)


def seed_from(generator: torch.Generator | None) -> int:
    """Draws a seed from a generator, or from torch's global generator if it is None."""
    where = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**62, (), generator=generator, device=where))
