"""Metropolis-adjusted Langevin dynamics (Roberts & Tweedie 1996, https://doi.org/10.2307/3318418).

x' = x - s^2/2 dE(x) + s epsilon,    epsilon ~ N(0, I),    accepted or not as in `zoo.samplers.metropolis`
"""

from zoo.samplers.chain import ChainSampler


class Langevin(ChainSampler):
    """Runs a chain from noise, each step of which goes down the energy and adds noise; the model says how far."""
