"""Gibbs sampling (Geman & Geman 1984, https://doi.org/10.1109/TPAMI.1984.4767596)."""

from zoo.samplers.chain import ChainSampler


class Gibbs(ChainSampler):
    """Runs a chain from noise, each step of which is a sweep: every unit is drawn given the others."""
