from .rbm import RBM as RBM
