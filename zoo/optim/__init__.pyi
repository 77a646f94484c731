from .muon import Muon as Muon
from .optimization import Optimization as Optimization
