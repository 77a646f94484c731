from .ancestral import Ancestral as Ancestral
from .base import Sampler as Sampler
from .ddim import DDIM as DDIM
from .dpm import DPMSolver as DPMSolver
from .euler import Euler as Euler
from .gibbs import Gibbs as Gibbs
from .heun import Heun as Heun
from .names import named as named
