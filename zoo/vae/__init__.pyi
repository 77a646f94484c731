from .autoencoder import Autoencoder as Autoencoder
from .conditional_vae import ConditionalVAE as ConditionalVAE
from .iwae import IWAE as IWAE
from .ladder_vae import LadderVAE as LadderVAE
from .vae import VAE as VAE
