from .glow import Glow as Glow
from .realnvp import RealNVP as RealNVP
