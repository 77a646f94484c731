from .ali import ALI as ALI
from .conditional_gan import ConditionalGAN as ConditionalGAN
from .dcgan import DCGAN as DCGAN
from .gan import GAN as GAN
from .r3gan import R3GAN as R3GAN
from .sngan import SNGAN as SNGAN
from .wgan import WGAN as WGAN
from .wgan_gp import WGANGP as WGANGP
