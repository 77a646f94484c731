"""Metropolis-adjusted Langevin dynamics (Roberts & Tweedie 1996, https://doi.org/10.2307/3318418).

x' = x - s^2/2 dE(x) + s epsilon,    epsilon ~ N(0, I),    accepted or not as in `zoo.samplers.metropolis`
"""

from zoo.samplers.chain import ChainSampler


class Langevin(ChainSampler):
    """Runs a Markov chain in which each step goes down the energy and adds noise; the model sets the step size."""
