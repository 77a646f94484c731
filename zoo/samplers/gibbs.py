"""Gibbs sampling (Geman & Geman 1984, https://doi.org/10.1109/TPAMI.1984.4767596)."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.samplers.chain import ChainSampler


@dataclass(frozen=True)
class Gibbs(ChainSampler):
    """Runs a chain from noise, each step of which is a sweep: every unit is drawn given the others."""
