"""Gibbs sampling (Geman & Geman 1984, https://doi.org/10.1109/TPAMI.1984.4767596)."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.samplers.chain import ChainSampler


@dataclass(frozen=True)
class Gibbs(ChainSampler):
    """Runs a Markov chain in which each step is a sweep that draws every unit given the others."""
