"""The noise: a published generator underneath, one stream per (seed, step, example), and the right distributions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from zoo.random import _GOLDEN, Streams, _mix, _signed, mix_, rand, randn, seed_from


def uniforms(seed: int, index: int | list[int], step: int = 0, columns: int = 1000) -> Tensor:
    index = [index] if isinstance(index, int) else index
    return rand((len(index), columns), Streams(seed, index, step))


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of the reference implementation from state 1234567."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = [1234567 + k * _GOLDEN for k in range(5)]
    assert [_mix(state, 0) for state in states] == expected
    assert [int(z) % 2**64 for z in mix_(torch.tensor([_signed(state) for state in states]))] == expected


def test_every_seed_step_example_and_call_has_its_own_numbers() -> None:
    seen = {}
    for seed, step in product([-1, 0, 1, 2, 3, 2**32, 2**63 - 1, 2**63, 2**64 - 2], [-1, 0, 1, 2, 3, 10**6]):
        streams = Streams(seed, range(6), step)
        for call in range(3):
            for index, row in enumerate(rand((6, 3), streams).tolist()):
                key = (seed, step, index, call)
                assert seen.setdefault(tuple(row), key) == key
    assert len(seen) == 9 * 6 * 6 * 3


def test_equal_keys_give_equal_numbers_whoever_else_is_in_the_batch() -> None:
    alone, together = Streams(7, [4711], 3), Streams(7, torch.tensor([5, 4711, 0]), 3)
    for _ in range(3):
        assert torch.equal(rand((1, 2, 5), alone)[0], rand((3, 2, 5), together)[1])
        assert torch.equal(randn((1, 4), alone)[0], randn((3, 4), together)[1])


def test_a_draw_begins_alike_however_wide_it_is() -> None:
    """The first columns of a draw do not depend on how many there are."""
    assert torch.equal(uniforms(0, [1, 2], columns=10), uniforms(0, [1, 2], columns=100)[:, :10])


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2, 3), (5, 0)])
def test_shapes(shape: tuple[int, ...]) -> None:
    for draw in (rand, randn):
        x = draw(shape, Streams(0, range(5)))
        assert x.shape == shape and x.dtype == torch.float32


def test_the_first_size_must_be_the_number_of_streams() -> None:
    assert len(Streams(0, range(5))) == 5
    with pytest.raises(ValueError, match=r"expected a first dimension of 5, .* found 6"):
        rand((6, 2), Streams(0, range(5)))


def test_uniforms_are_uniform() -> None:
    u = uniforms(0, list(range(200)))
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    # each of the 24 bits is fair, of all numbers and of the first of each stream
    for sample in (u.flatten(), uniforms(1, list(range(100_000)), columns=1)[:, 0]):
        bits = (sample.double() * 2**24).long()[:, None] >> torch.arange(24) & 1
        z = (bits.double().mean(0) - 0.5) * 2 * math.sqrt(len(sample))
        assert z.abs().max() < 4.5


@pytest.mark.parametrize("what", ["column", "example", "call", "step", "seed"])
def test_neighbouring_numbers_are_independent(what: str) -> None:
    num = 60_000
    if what == "column":
        numbers = uniforms(0, 0, columns=num)[0]
    elif what == "example":
        numbers = uniforms(0, list(range(num)), columns=1)[:, 0]
    elif what == "call":
        streams = Streams(0, range(300))
        numbers = torch.stack([rand((300,), streams) for _ in range(200)], 1).flatten()
    else:
        keys = [(k, 0) if what == "seed" else (0, k) for k in range(-1, 199)]
        numbers = torch.stack([uniforms(seed, list(range(300)), step, 1)[:, 0] for seed, step in keys], 1).flatten()
    # pairs fill the square evenly: chi-square over 16 x 16 cells, at distances 1, 2 and 3
    for distance in (1, 2, 3):
        first, second = (numbers[:-distance] * 16).long(), (numbers[distance:] * 16).long()
        counts = torch.bincount(first * 16 + second, minlength=256)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_normals_are_normal() -> None:
    x = randn((100, 2000), Streams(0, range(100)))
    assert stats.kstest(x.flatten().numpy(), "norm").pvalue > 1e-3
    assert x.mean().abs() < 5 / math.sqrt(x.numel()) and (x.var() - 1).abs() < 5 * math.sqrt(2 / x.numel())


def test_normals_are_finite_and_symmetric_at_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[0.0, 2.0**-24, 0.5, 1 - 2.0**-23, 1 - 2.0**-24]])
    monkeypatch.setattr(Streams, "_uniform", lambda self, size, device: ends.clone())
    x = randn((1, 5), Streams(0, [0]))[0].double()
    middles = ends[0].double().numpy() + 2.0**-25  # of the cells
    np.testing.assert_allclose(x.numpy(), stats.norm.ppf(middles), rtol=1e-4, atol=1e-7)
    assert x[0] == -x[4] and x[0] < -5


def test_generators_and_the_global_state_are_sources_too() -> None:
    for ours, theirs in ((rand, torch.rand), (randn, torch.randn)):
        expected = theirs(3, 2, generator=torch.Generator().manual_seed(5))
        assert torch.equal(ours((3, 2), torch.Generator().manual_seed(5)), expected)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            assert torch.equal(ours((3, 2)), expected)


def test_streams_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    randn((2, 3), Streams(0, range(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_advances_its_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = seed_from(generator), seed_from(generator)
    assert first != second and first == seed_from(torch.Generator().manual_seed(0))
    assert all(0 <= seed < 2**62 for seed in (first, second))
