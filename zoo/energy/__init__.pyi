from .binary_ebm import BinaryEBM as BinaryEBM
from .ebm import EBM as EBM
from .nce import NCE as NCE
