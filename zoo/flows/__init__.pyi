from .glow import Glow as Glow
from .maf import MAF as MAF
from .planar import PlanarFlow as PlanarFlow
from .realnvp import RealNVP as RealNVP
from .spline import SplineFlow as SplineFlow
