"""Gibbs sampling (Geman & Geman 1984, https://doi.org/10.1109/TPAMI.1984.4767596)."""

from zoo.samplers.chain import ChainSampler


class Gibbs(ChainSampler):
    """Runs a Markov chain in which each step is a sweep that draws every unit given the others."""
