from .glow import Glow as Glow
from .iaf import IAF as IAF
from .maf import MAF as MAF
from .nice import NICE as NICE
from .planar import PlanarFlow as PlanarFlow
from .realnvp import RealNVP as RealNVP
from .spline import SplineFlow as SplineFlow
