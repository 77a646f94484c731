"""The Metropolis-Hastings algorithm (Hastings 1970, https://doi.org/10.1093/biomet/57.1.97).

x' ~ r(x' | x),    accepted with probability min(1, p(x') r(x | x')/(p(x) r(x' | x))),    else x stays
"""

from zoo.samplers.chain import ChainSampler


class Metropolis(ChainSampler):
    """Runs a Markov chain in which each step proposes a new state, and accepts it or keeps the old state."""
