from .causal_gaussian import CausalGaussian as CausalGaussian
from .gaussian import Gaussian as Gaussian
from .gaussian_mixture import GaussianMixture as GaussianMixture
from .memoriser import Memoriser as Memoriser
from .mixture import BernoulliMixture as BernoulliMixture
from .rivers import Rivers as Rivers
