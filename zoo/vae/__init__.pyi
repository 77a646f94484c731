from .autoencoder import Autoencoder as Autoencoder
from .conditional_vae import ConditionalVAE as ConditionalVAE
from .iaf import IAF as IAF
from .iwae import IWAE as IWAE
from .ladder_vae import LadderVAE as LadderVAE
from .planar_vae import PlanarVAE as PlanarVAE
from .semi_supervised_vae import SemiSupervisedVAE as SemiSupervisedVAE
from .vae import VAE as VAE
