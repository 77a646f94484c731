from .boltzmann_machine import BoltzmannMachine as BoltzmannMachine
from .rbm import RBM as RBM
